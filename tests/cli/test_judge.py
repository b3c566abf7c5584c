"""The command judge, from its words to its exit code; a judge that is cut off goes on where it was."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tiebreak
from judge_endpoints import Reply, endpoint, longer
from tiebreak.cli.app import app
from tiebreak.evaluation.judges.rewards import REWARDS
from tiebreak.runs import Run

PAIRS = [(f"Question {number}?", "a long and careful answer " * 2, f"short {number}") for number in range(6)]


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def pairs(here):
    path = here / "pairs.jsonl"
    rows = [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in PAIRS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def samples(here):
    folder = here / "run"
    folder.mkdir()
    rows = [
        {"prompt_id": f"p{number}", "prompt": [{"role": "user", "content": prompt}], "chosen": "c", "rejected": "r",
         "before": {"text": short}, "after": {"text": long if number else short}}
        for number, (prompt, long, short) in enumerate(PAIRS)
    ]  # fmt: skip
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "run.json").write_text("{}", encoding="utf-8")
    return folder


def run(*words):
    return CliRunner().invoke(app, ["judge", *map(str, words)], catch_exceptions=True)


def server(found, *more):
    settings = (f"base_url={found.url}", "num_at_once=1", "num_retries=0", *more)
    return ["--judge", "server:m", *[word for one in settings for word in ("--set", f"judge.{one}")]]


RULE = ("--judge", "rule:length_band", "--set", "judge.arguments.least=1000")


def test_pairs_are_judged_chosen_against_rejected(pairs):
    done = run(pairs, *RULE, "--json", "--quiet")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["sides"], found["num"], found["num_prompts"]) == (["chosen", "rejected"], 6, 6)
    assert (found["win_rate"]["mean"], found["ties"], found["flip_rate"], found["not_judged"]) == (1.0, 0.0, 0.0, {})


def test_calls_of_tools_are_a_part_of_what_is_judged(here):
    def calling(name):
        return {"type": "function", "function": {"name": name, "arguments": "{}"}}

    tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("weather", "delete_all")]
    rows = [
        {"tools": tools, "messages": [{"role": "user", "content": f"Is it raining? {place}"}],
         "chosen": [{"role": "assistant", "content": said, "tool_calls": [calling("weather")]}],
         "rejected": [{"role": "assistant", "content": said, "tool_calls": [calling("delete_all")]}]}
        for place, said in enumerate(["", "A moment."])
    ]  # fmt: skip
    (here / "calls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    asked = []

    def hear(question, number):
        asked.append(question)
        first = question.partition("answer A")[2]
        return f"Verdict: {'A' if first.find('weather') < first.find('delete_all') else 'B'}"

    with endpoint(hear) as found:
        done = run(here / "calls.jsonl", *server(found), "--json", "--quiet")
    assert done.exit_code == 0, done.output
    assert len(asked) == 4
    assert json.loads(done.stdout)["win_rate"]["mean"] == 1.0


def test_a_run_is_judged_after_against_before_by_its_folder_or_its_samples(samples):
    for place in (samples, samples / "samples.jsonl"):
        found = json.loads(run(place, *RULE, "--json", "--quiet").stdout)
        assert found["sides"] == ["after", "before"]
        assert found["win_rate"]["mean"] == pytest.approx(5.5 / 6)  # the first answer did not change: a tie


def test_samples_of_a_run_are_proven_by_its_seals_however_they_are_named(samples):
    one, file = Run(samples), samples / "samples.jsonl"
    one.update_manifest(files={})
    one.keep({file: file.read_bytes()})
    assert run(file, *RULE).exit_code == 0
    file.write_bytes(file.read_bytes().replace(b'"c"', b'"d"', 1))
    for place in (samples, file):
        assert "samples.jsonl: is not what was written" in str(run(place, *RULE).exception)


def test_a_run_without_samples_is_refused(samples):
    (samples / "samples.jsonl").unlink()
    done = run(samples, *RULE)
    assert done.exception.exit_code == 2
    assert "the run holds no answers to judge; evaluate makes them" in str(done.exception)


def test_what_people_did_not_decide_is_left_out_and_counted(here):
    path = here / "votes.jsonl"
    rows = [{"instruction": f"Q{number}", "response1": "long answer", "response2": "b", "votes": votes}
            for number, votes in enumerate([[1, 1, 1], [1, 2, 0], [2, 2, 1]])]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = json.loads(run(path, *RULE, "--json", "--quiet").stdout)
    assert (found["num"], found["left_out"]) == (2, {"tie": 1})


def test_columns_of_any_name_are_said_as_to_the_other_commands(here):
    path = here / "odd.jsonl"
    path.write_text('{"q": "Q", "good": "one two three", "bad": "one"}\n', encoding="utf-8")
    names = ("--column", "prompt=q", "--column", "chosen=good", "--column", "rejected=bad")
    assert json.loads(run(path, *RULE, *names, "--json", "--quiet").stdout)["win_rate"]["mean"] == 1.0


@pytest.mark.parametrize(("num", "agree", "code"), [(40, 38, 0), (40, 4, 3), (40, 20, 4), (10, 10, 4)])
def test_calibrate_says_whether_a_judge_agrees_with_people_and_exits_so(here, num, agree, code):
    path = here / "votes.jsonl"
    rows = [{"prompt": f"Q{n}", "chosen": "long " * (9 if n < agree else 1) + str(n), "rejected": "long " * 4 + str(n)}
            for n in range(num)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = run("calibrate", path, *RULE, "--json", "--quiet")
    assert done.exit_code == code, done.output
    found = json.loads(done.stdout)["agreement"]
    assert found["mean"] == agree / num
    assert found["is_usable"] == (code == 0)


def test_samples_are_nothing_that_people_judged(samples):
    assert "calibrate needs chosen and rejected" in str(run("calibrate", samples, *RULE).exception)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no judge is named; give --judge KIND:NAME"),
        (
            ["--judge", "sever:m"],
            "kind is one of rule, reward_model, model, server, data, self and people. Did you mean 'server'?",
        ),
        (["--judge", "server"], "'evaluation.judge.model' is missing"),
        (["--judge", "rule:repetition", "--set", "training.epochs=2"], "only settings of judge are read here"),
        (["--judge", "server:m", "--set", "judge.max_cots=1"], "Did you mean 'evaluation.judge.max_cost'?"),
        (["--judge", "server:m", "--set", "judge.max_cost=1"], "max_cost needs price_in and price_out"),
        (["--judge", "server:m"], "the environment variable OPENAI_API_KEY holds no key"),
        (["--judge", "data"], "is fitted on the pairs of a run"),
        (["more.jsonl", "--judge", "rule:repetition"], "wanted one file, found 2"),
    ],
)
def test_wrong_words_are_answered_in_one_line(pairs, words, told):
    done = run(pairs, *words)
    assert done.exception.exit_code == 2
    assert told in str(done.exception)
    assert "\n" not in str(done.exception)


def test_a_dry_run_says_what_it_would_take_and_asks_and_writes_nothing(pairs, here, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    with endpoint(longer) as found:
        done = run(pairs, *server(found, "price_in=1", "price_out=2"), "--dry-run", "--json")
        assert found.requests == []
    assert not (here / "cache").exists()
    told = json.loads(done.stdout)["estimate"]
    assert (told["num_calls"], told["num_kept"], told["most_tokens_out"]) == (12, 0, 12 * 512)
    assert told["most_cost"] > 0


def test_each_row_is_written_and_a_second_run_asks_nothing(pairs, here):
    with endpoint(longer) as found:
        first = run(pairs, *server(found), "--out", "judged.jsonl", "--kept", "kept.sqlite", "--json", "-q")
        assert first.exit_code == 0, first.output
        rows = [json.loads(line) for line in (here / "judged.jsonl").read_text().splitlines()]
        (here / "judged.jsonl").unlink()  # what is kept is enough
        second = run(pairs, *server(found), "--out", "judged.jsonl", "--kept", "kept.sqlite", "--json", "-q")
        third = run(
            pairs, *server(found), "--out", "judged.jsonl", "--kept", "other.sqlite", "--json", "-q"
        )  # or the rows
        assert len(found.requests) == 12
    assert [row["index"] for row in rows] == list(range(6))
    assert [row["preference"] for row in rows] == [1.0] * 6
    kinds = [{**json.loads(one.stdout), "spent": None, "estimate": None} for one in (first, second, third)]
    assert kinds[0] == kinds[1] == kinds[2]


def test_a_file_of_something_else_or_of_another_judge_is_not_written_over(pairs, here):
    for content in ("my notes", '{"index": 0}\n', '{"index": 0, "judge": "other", "key": "x", "preference": 1.0}\n'):
        (here / "judged.jsonl").write_text(content)
        done = run(pairs, *RULE, "--out", "judged.jsonl")
        assert done.exception.exit_code == 2
        assert "already exists and is not of this file and this judge" in str(done.exception)
        assert (here / "judged.jsonl").read_text() == content


def test_a_cap_half_way_exits_with_1_and_the_same_command_goes_on(pairs, here):
    with endpoint(longer) as found:
        words = [pairs, "--out", "judged.jsonl", "--kept", "kept.sqlite", "--quiet", "--json"]
        done = run(*words, *server(found, "max_calls=7"))
        assert done.exception.exit_code == 1
        assert "max_calls 7 is reached; 7 of 12 answers are kept" in str(done.exception)
        assert len((here / "judged.jsonl").read_text().splitlines()) == 3
        again = run(*words, *server(found, "max_calls=7"))
        assert again.exit_code == 0, again.output
        assert len(found.requests) == len(set(found.users)) == 12
    assert json.loads(again.stdout)["win_rate"]["mean"] == 1.0


def test_a_judge_that_is_killed_goes_on_with_equal_results_and_no_call_is_made_twice(pairs, here):
    reached, go_on = threading.Event(), threading.Event()

    def held(question, number):
        if number == 5 and not go_on.is_set():  # the sixth call is under way, five are answered and kept
            reached.set()
            return Reply(longer(question), seconds=1.0)
        return longer(question)

    with endpoint(held) as found, endpoint(longer) as other:
        words = ["--out", "judged.jsonl", "--kept", "kept.sqlite", "--quiet", "--json"]
        command = [sys.executable, "-m", "tiebreak", "judge", str(pairs), *words, *server(found)]
        killed = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert reached.wait(60)
        killed.send_signal(signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
        killed.stdout.close()
        go_on.set()
        time.sleep(0.05)
        answered = found.users[:5]
        again = run(pairs, *words, *server(found))
        assert again.exit_code == 0, again.output
        assert set(found.users[6:]).isdisjoint(answered)
        assert len(found.requests) == 5 + 1 + 7
        whole = run(pairs, "--kept", "fresh.sqlite", "--quiet", "--json", *server(other))
    for name in ("win_rate", "ties", "flip_rate", "not_judged", "length_controlled"):
        assert json.loads(again.stdout)[name] == json.loads(whole.stdout)[name]


PRINTS = {
    "Python": "print('hello')",
    "the system": "import os; os.write(1, b'hello')",
    "a program": "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1)'], check=True)",
}


@pytest.mark.parametrize("code", PRINTS.values(), ids=PRINTS)
def test_json_is_one_document_whatever_code_of_others_prints(pairs, here, code):
    (here / "mine.py").write_text(
        f"{code}\ndef f(completions, **kwargs):\n    {code}\n    return [1.0] * len(completions)\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "tiebreak", "judge", str(pairs), "--judge", "rule:mine.py:f", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["ties"] == 1.0
    assert "hello" in done.stderr or "1\n1\n" in done.stderr


def test_one_ctrl_c_ends_a_judge_whose_server_stalls_and_what_was_answered_is_kept(pairs, here):
    reached = threading.Event()

    def stalls(question, number):
        if number < 3:
            return longer(question)
        reached.set()
        return Reply(forever=(b"HTTP/1.1 200 OK\r\nx: ", b"y"))

    with endpoint(stalls) as found:
        words = ["--kept", "kept.sqlite", "--json", *server(found, "timeout_seconds=3600")]
        command = [sys.executable, "-m", "tiebreak", "judge", str(pairs), *words]
        stopped = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert reached.wait(60)
        stopped.send_signal(signal.SIGINT)
        out, err = stopped.communicate(timeout=60)  # it would not end in an hour
        assert stopped.returncode == 130, err
        assert err.decode().splitlines()[-1] == "stopped: interrupted; what was finished before is kept"
        assert json.loads(out)["exit_code"] == 130
    with contextlib.closing(sqlite3.connect(here / "kept.sqlite")) as kept:
        assert kept.execute("SELECT count(*) FROM answers").fetchone() == (3,)


NO_VERDICT = {
    "nan": "return [float('nan')] * len(completions)",
    "raises": "return 1 / 0",
    "none": "return [None] * len(completions)",
    "one": "return [1.0]",
}


@pytest.mark.parametrize("body", NO_VERDICT.values(), ids=NO_VERDICT)
@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_a_judge_that_says_nothing_ends_with_an_error_in_the_one_document_and_in_the_last_line(
    pairs, here, body, quiet
):
    (here / "mine.py").write_text(f"def f(completions, **kwargs):\n    {body}\n", encoding="utf-8")
    done = run(pairs, "--judge", "rule:mine.py:f", "--json", *quiet)
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    words = "6 of 6 questions have no verdict (6 not rated)"
    assert (told["error"], told["message"], told["exit_code"]) == ("NoVerdict", words, 1)
    assert (told["win_rate"], told["not_judged"]) == (None, {"not rated": 6})
    lines = done.stderr.splitlines()
    assert lines[-1] == f"error: {words}"
    assert len(lines) == len(set(lines))


def test_a_server_that_says_nothing_of_use_ends_with_1_and_why(pairs):
    with endpoint(lambda question, number: "hard to say") as found:
        done = run(pairs, *server(found), "--quiet")
    assert done.exit_code == 1
    assert "not judged: 6 (6 no clear verdict)" in done.stdout
    assert done.stderr == "error: 6 of 6 questions have no verdict (6 no clear verdict)\n"


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_questions_without_a_verdict_among_others_are_a_warning_in_the_last_line(pairs, words):
    def some(question, number):
        return "hard to say" if "Question 3?" in question else longer(question)

    with endpoint(some) as found:
        done = run(pairs, *server(found), *words)
        assert run(pairs, *server(found), *words, "--quiet").stderr == ""
    assert done.exit_code == 0
    assert done.stderr.splitlines()[-1] == "warning: 1 of 6 questions have no verdict (1 no clear verdict)"
    if words:
        told = json.loads(done.stdout)
        assert told["not_judged"] == {"no clear verdict": 1}
        assert "error" not in told


def test_a_judge_that_says_nothing_is_calibrated_as_not_known_and_says_so(pairs, here):
    (here / "mine.py").write_text("def f(completions, **kwargs):\n    return 1 / 0\n", encoding="utf-8")
    done = run("calibrate", pairs, "--judge", "rule:mine.py:f")
    assert done.exit_code == 4
    assert "none of 6 pairs was judged" in done.stdout
    assert done.stderr.splitlines()[-1] == "warning: 6 of 6 questions have no verdict (6 not rated)"


def test_the_function_does_what_the_command_does(pairs):
    found = tiebreak.judge(pairs, "rule:repetition", quiet=True)
    assert found.as_dict() == json.loads(run(pairs, "--judge", "rule:repetition", "--json", "-q").stdout) | {
        "sides": ("chosen", "rejected")
    }
    settings = {"kind": "rule", "reward": "length_band", "arguments": {"least": 1000}}
    assert tiebreak.judge(pairs, settings, calibrate=True, quiet=True).agreement.mean == 1.0


def test_a_rule_and_a_server_load_no_torch(pairs):
    code = (
        "import sys, tiebreak; tiebreak.judge(sys.argv[1], 'rule:repetition', quiet=True)\n"
        "from tiebreak.evaluation.judges import server\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(pairs)], check=False).returncode == 0


@pytest.mark.parametrize(
    ("reward", "arguments"),
    [("length_band", {"least": 10_000}), ("length_band", {"most": 1}), ("repetition", {})],
)
def test_agreement_on_votes_of_people_is_what_the_page_says(shared, reward, arguments):
    votes = shared / "data" / "prefs" / "pandalm_human_testset_votes.jsonl.gz"
    settings = {"kind": "rule", "reward": reward, "arguments": arguments}
    found = tiebreak.judge(votes, settings, calibrate=True, quiet=True).agreement
    page = (Path(__file__).parents[2] / "docs" / "judges.md").read_text(encoding="utf-8")
    mean, low, high, where = (f"{100 * share:.1f}" for share in (found.mean, found.low, found.high, found.decided.mean))
    assert (found.num, found.num_prompts) == (855, 156)
    assert f"| {mean} % ({low} … {high}) | {where} % of {found.decided.num} |" in page


def test_every_rule_that_is_built_in_stands_on_the_page_with_its_arguments():
    page = (Path(__file__).parents[2] / "docs" / "judges.md").read_text(encoding="utf-8")
    for name, function in REWARDS.items():
        [row] = [line for line in page.split("\n") if line.startswith(f"| `{name}` |")]
        named = [one.name for one in inspect.signature(function).parameters.values() if one.kind is one.KEYWORD_ONLY]
        assert all(f"`{argument}`" in row for argument in named), name
