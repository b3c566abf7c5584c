"""How a file was read is shown: on the screen, on the page, in JSON, in what init writes and in what train says."""

from __future__ import annotations

import json

import pytest

import tiebreak
from tiebreak.config import DataConfig
from tiebreak.data.reader import open_data
from tiebreak.doctor.page import render_audit_page
from tiebreak.doctor.screen import print_audit
from tiebreak.training.preamble import _reading_of

KEY = "sk-ant-api03-" + "Zk3fQ9x7Lw2mVb8T" * 4
ROW = {
    "prompt": "Why is <b>it</b> so?",
    "response_1": "Because of carla.berg@posteo.de.",
    "response_2": f"No, {KEY}.",
    "winner": 1,
    "context": "A passage that explains it.",
    "id": 7,
}


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [ROW | {"prompt": f"Is it {n}?", "winner": 1 + n % 2} for n in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [ROW, *rows]))
    return tiebreak.check(DataConfig(train=str(path)), quiet=True).as_dict()


def test_the_report_says_what_was_read_and_shows_nothing_secret_or_personal(report):
    (file,) = report["files"]
    first = file["first_record"]
    assert (first["line"], first["prompt"], first["why"]) == (1, "Why is <b>it</b> so?", "winner 1 → response_1")
    assert file["columns_read"] == ["prompt", "response_1", "response_2", "winner"]
    assert file["columns_unread"] == ["context", "id"]
    told = json.dumps(report)
    assert KEY not in told
    assert "carla.berg@posteo.de" not in told


LONG = "".join(f"{n:x}Ab{n * 7:x}Zq" for n in range(100, 700))


@pytest.mark.parametrize(
    "secret",
    [
        f"ghp_{LONG[:36]}",
        f"eyJ{LONG[:1500]}.eyJ{LONG[:2500]}.{LONG[:43]}",
        "-----BEGIN PRIVATE KEY-----\n" + "\n".join(LONG[n : n + 64] for n in range(0, 3000, 64)),
        f"curl -H 'Authorization: Bearer eyJ{LONG[:1500]}.eyJ{LONG[:2500]}.{LONG[:43]}'",
    ],
    ids=["token", "web token", "key that is cut off", "header"],
)
@pytest.mark.parametrize("before", [0, 20, 50, 70, 140, 150])
def test_a_secret_is_masked_before_a_text_is_cut(tmp_path, secret, before):
    path = tmp_path / "rows.jsonl"
    text = f"{'x ' * (before // 2)}{secret} so"
    rows = [{"prompt": f"{n} {text}", "chosen": f"{text} a{n}", "rejected": f"{text} b{n}"} for n in range(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = tiebreak.check(DataConfig(train=str(path)), quiet=True).as_dict()
    told = json.dumps(report)
    parts = [secret[n : n + 6] for n in range(40 if "BEGIN" in secret or "curl" in secret else 4, len(secret) - 8, 6)]
    assert not [part for part in parts if part in told]
    (file,) = open_data(DataConfig(train=str(path)))
    assert not [part for part in parts if part in json.dumps(file.as_dict(9))]


def test_a_column_that_the_prompt_may_need_is_a_warning(report):
    found = {finding["code"]: finding for finding in report["findings"]}["unread_column"]
    assert (found["severity"], found["count"], found["of"]) == ("warning", 1, "files")
    assert found["examples"][0]["excerpt"] == "not read: context"


def test_the_screen_shows_it_under_the_file(report, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    print_audit(report)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][:2] == ["record", "1"]
    assert lines[2] == ["read", "prompt,", "response_1,", "response_2,", "winner"]
    assert lines[3] == ["not", "read", "context,", "id"]


def test_the_page_shows_it_and_escapes_it(report):
    page = render_audit_page(report)
    assert "How it was read" in page
    assert "Why is &lt;b&gt;it&lt;/b&gt; so?" in page
    assert "<b>it</b>" not in page


def test_what_init_writes_begins_with_it(report):
    text = tiebreak.init(DataConfig(train=report["files"][0]["path"]), quiet=True)
    assert "record 1: 'Why is <b>it</b> so?' → 'Because of" in text
    assert "not read: context, id" in text


def test_training_says_it(report):
    said = list(_reading_of(report["files"][0]))
    assert "is read as 'Why is <b>it</b> so?' → " in said[0]
    assert said[1].endswith("not read: context, id")
