"""The command review: links, what is printed, what is refused, and that its advice can be followed."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from tiebreak.review.desk import open_review
from tiebreak.runs import Run

ROW = {"prompt": "q", "completion_a": "x", "completion_b": "y"}


@contextmanager
def serving(*words: str):
    """Serve a review, and end it as Ctrl-C does."""
    command = [sys.executable, "-m", "tiebreak", "review", "--port", "0", *words, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        said = ""
        while line := server.stdout.readline():
            said += line
            if line.startswith("}"):
                break
        told = json.loads(said)
        with pytest.raises(urllib.error.HTTPError) as refused:  # it answers, and knows no such address
            urllib.request.urlopen(f"{told['url']}/none")
        refused.value.close()
        try:
            yield server, told
        finally:
            server.send_signal(signal.SIGINT)
            _, err = server.communicate(timeout=20)
            assert (server.returncode, err) == (0, "")


def printed(*words: str) -> tuple[str, str]:
    """Serve a review until it answers, by the name in its links; return what it printed and what it warned of."""
    command = [sys.executable, "-m", "tiebreak", "review", "--port", "0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            said = ""
            while "for you alone" not in said and (line := server.stdout.readline()):
                said += line
            host, port, path = re.search(r"http://(.*):(\d+)(/r/.*)", said).groups()
            here = {"host": f"{host}:{port}", "sec-fetch-site": "cross-site"}  # a page that leads on, and no redirect
            with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=here)) as page:
                assert page.status == 200
            server.send_signal(signal.SIGINT)
            _, err = server.communicate(timeout=20)
        finally:
            server.kill()
    return said, " ".join(err.split())


def vote_all(folder, name="me"):
    review = open_review(folder)
    while showing := review.at_hand(name):
        review.choose(name, showing.id, "left")


@pytest.fixture
def rows(here) -> Path:
    file = here / "f.jsonl"
    file.write_text("".join(json.dumps(ROW | {"prompt": f"q{n}"}) + "\n" for n in range(4)))
    return file


def test_each_person_gets_a_link_that_opens_a_page_and_another_server_waits(cli, rows):
    with serving(str(rows), "--annotators", "ann,ben") as (_, told):
        assert set(told["links"]) == {"ann", "ben"}
        assert told["num_items"] == 4
    with serving(f"{rows}.review") as (_, again):
        token = re.search("/r/(.*)", told["links"]["ann"])[1]
        assert again["links"]["ann"].endswith(token)
        code, _, err = cli("review", f"{rows}.review", "--port", "0")
        assert (code, "in use by" in err) == (2, True)


def test_a_review_says_what_its_votes_come_to_and_the_doctor_reads_them(cli, rows):
    with serving(str(rows)):
        pass
    vote_all(f"{rows}.review")
    code, out, err = cli("review", str(rows), "--results")
    assert (code, err) == (0, "")
    assert "4 of 4 items judged" in out
    assert "agreement: not known, needs two who voted" in out
    next_step = re.search("'tiebreak (check .*)' reads the pairs", out)[1]
    assert cli(*next_step.split())[0] in (0, 1)


def test_the_gate_decides_with_a_review_of_a_run(cli, here, finished):
    run = Run(shutil.copytree(finished.path, here / "run"))
    with serving(str(run.path), "--annotators", "ann"):
        pass
    vote_all(f"{run.path}.review", "ann")
    code, out, _ = cli("review", f"{run.path}.review", "--results")
    assert code == 0
    next_step = re.search("next: 'tiebreak (gate .*)' decides with it", out)[1]
    code, out, _ = cli(*next_step.split(), "--json")
    check = next(one for one in json.loads(out)["checks"] if one["name"] == "human_win_rate")
    assert check["verdict"] == "inconclusive"
    assert "at least 30 are needed" in check["says"]


def test_a_run_without_answers_is_reviewed_by_the_command_that_its_error_names(cli, here, finished):
    run = Run(shutil.copytree(finished.path, here / "run"))
    run.keep({run.samples_file: b""})
    code, _, err = cli("review", str(run.path))
    assert (code, err.count("\n")) == (2, 1)
    code, out, err = cli(*re.search("'tiebreak (evaluate .*)' writes some", err)[1].split(), "--json")
    assert code == 0, err
    with serving(f"{json.loads(out)['folder']}/samples.jsonl", "--out", "r") as (_, told):
        assert told["num_items"] > 0


def test_some_of_the_items_are_drawn_and_told_and_the_review_goes_on(cli, rows):
    said, err = printed(str(rows), "--items", "3")
    assert ("3 items in" in said, "not asked: 1 not drawn" in said, err) == (True, True, "")
    assert printed(str(rows))[1] == ""  # the same review, whose items are not found changed
    for words, says in (
        (["--items", "2"], "was made with --items 3; give the same"),
        (["--seed", "1"], "was made with --items 3; give the same"),
    ):
        code, _, err = cli("review", str(rows), *words)
        assert (code, err.count("\n"), says in err) == (2, 1, True), err
    with serving(str(rows), "--items", "3") as (_, told):
        assert told["left_out"] == {"not drawn": 1}
    vote_all(f"{rows}.review")
    assert "3 of 3 items judged" in cli("review", str(rows), "--results")[1]


def test_what_is_wrong_with_the_source_of_an_old_review_is_said_and_it_goes_on(here, finished):
    run = Run(shutil.copytree(finished.path, here / "run"))
    with serving(str(run.path)):
        pass
    with run.samples_file.open("a") as file:
        file.write("{}\n")
    _, err = printed(str(run.path))
    assert err.count("samples.jsonl") == 1
    assert "goes on" in err
    shutil.rmtree(run.path)
    assert printed(str(run.path))[1] == ""  # it is gone: there is nothing to say


def test_links_name_this_machine_where_it_listens_at_all_of_its_addresses(rows):
    out, err = printed(str(rows), "--host", "0.0.0.0")
    name = re.escape(socket.gethostname())
    assert re.search(rf"me:  http://{name}:\d+/r/", out)
    assert re.search(rf"alone:  http://{name}:\d+/r/", out)
    assert f"links name this machine {socket.gethostname()}: it must be reachable" in err


def test_one_person_an_item_is_made_with_a_word_of_warning(rows):
    _, err = printed(str(rows), "--annotators", "ann,ben", "--per-item", "1")
    assert "no evidence for a gate" in err


def test_the_run_that_is_named_gets_the_evidence(cli, here, finished):
    run = Run(shutil.copytree(finished.path, here / "run"))
    with serving(str(run.path), "--annotators", "ann"):
        pass
    vote_all(f"{run.path}.review", "ann")
    (here / "moved").mkdir()
    for name in ("run", "run.review"):
        shutil.copytree(here / name, here / "moved" / name)
    before = run.evaluation_file.read_bytes()
    code, out, _ = cli("review", str(here / "moved" / "run"), "--results", "--json")
    assert (code, json.loads(out)["run"]) == (0, str(here / "moved" / "run"))
    assert run.evaluation_file.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--exclude", "ann"], "--exclude goes with --results"),
        (["--results"], "holds no review.json"),
        (["--results", "--items", "2", "--seed", "9"], "--results says what is there"),
        (["--results", "--annotators", "zoe"], "--results says what is there"),
        (["--annotators", "ann,ann"], "a name is there twice"),
        (["--annotators", "fast"], "choose another name"),
        (["--per-item", "2"], "--per-item 2: wanted 1 to 1"),
        (["--tags", "a,A"], "--tags: a name is there twice"),
        (["--host", "192.0.2.1"], "cannot be listened at"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(cli, rows, words, says):
    code, out, err = cli("review", str(rows), *words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert says in err
