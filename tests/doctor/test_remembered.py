"""What the doctor found at an earlier start is told again word for word, and only of the same files and settings."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiebreak.config import DataConfig
from tiebreak.doctor import remembered as module
from tiebreak.doctor.examination import audit
from tiebreak.doctor.remembered import remembered
from tiebreak.doctor.triage import heed
from tiebreak.errors import DataError
from tiebreak.files import as_json
from tiebreak.progress import Noting, Silent

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll", "larch"]


def said(seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=12))


def row(number: int, **changes) -> dict:
    texts = {"prompt": f"Question {number}: {said(number)}?", "chosen": f"{said(10_000 + number)}."}
    return texts | {"rejected": f"{said(20_000 + number)}."} | changes


def write(path, rows):
    path.write_text("".join(one if isinstance(one, str) else json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


GOOD = [row(number) for number in range(120)]
PLANTED = {
    "contradiction": [row(500, chosen="a b c", rejected="d e f"), row(500, chosen="d e f", rejected="a b c")],
    "duplicate": [row(3), row(4), row(4)],
    "inverted_score": [row(503, score_chosen=1, score_rejected=2), row(504, soft_label=0.2)],
    "secret": [row(507, chosen=f"My key is sk-proj-{'aB3dE5fG7hJ9kL1mN3pQ' * 2}.")],
    "hidden_text": [row(509, rejected="left\u202eright")],
    "personal_data": [row(508, prompt="Write to ingrid.vale@brightwater-mills.co.uk now.")],
    "broken": ["{\n", '{"prompt": "p", "chosen": "", "rejected": "b"}\n'],
    "surrogate": ['{"prompt": "\\ud83d", "chosen": "a\\udc00", "rejected": "b"}\n'],
}


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Examine as a start does; return the report, what was said, and whether pairs were looked at."""

    def start(**changes):
        asked = []
        monkeypatch.setattr(module, "audit", lambda *args, **more: asked.append(1) or audit(*args, **more))
        heard = Heard()
        data = DataConfig(**{"train": str(tmp_path / "p.jsonl"), "store": str(tmp_path / "store")} | changes)
        return remembered(data, heard), heard.said, bool(asked)

    return start


def told(report, data: DataConfig) -> tuple[list[str], str]:
    """What a start warns of, and why it stops."""
    noting = Noting(Silent())
    try:
        heed(report, data, noting)
    except DataError as error:
        return noting.warnings, str(error)
    return noting.warnings, ""


def test_a_second_start_looks_at_no_pair_says_so_and_tells_the_same(started, tmp_path):
    write(tmp_path / "p.jsonl", [*GOOD, *(one for planted in PLANTED.values() for one in planted)])
    first, said, looked = started()
    assert (said, looked) == ([], True)
    again, [said], looked = started()
    assert not looked
    assert said.startswith("findings of the doctor: from an earlier start with the same data and settings (")
    assert again.findings == first.findings
    assert as_json(again.as_dict()) == as_json(first.as_dict())
    data = DataConfig(train=str(tmp_path / "p.jsonl"), store=str(tmp_path / "store"))
    assert as_json(audit(data).report.as_dict()) == as_json(again.as_dict())
    assert told(again, data) == told(first, data)
    assert told(again, data)[1]


@settings(max_examples=25, deadline=None)
@given(
    codes=st.lists(st.sampled_from([*PLANTED]), max_size=4, unique=True),
    num=st.integers(4, 60),
    pairing=st.sampled_from(["best_worst", "none"]),
    heldout=st.booleans(),
)
def test_it_is_the_same_report_whatever_is_found(tmp_path_factory, codes, num, pairing, heldout):
    folder = tmp_path_factory.mktemp("data")
    write(folder / "p.jsonl", [*GOOD[:num], *(one for code in codes for one in PLANTED[code])])
    more = {"heldout": str(write(folder / "h.jsonl", [row(n) for n in range(600, 620)]))} if heldout else {}
    data = DataConfig(train=str(folder / "p.jsonl"), pairing=pairing, store=str(folder / "store"), **more)
    fresh = audit(data).report
    first, again = remembered(data), remembered(data)
    assert as_json(fresh.as_dict()) == as_json(first.as_dict()) == as_json(again.as_dict())
    assert fresh.findings == again.findings
    assert json.loads(json.dumps(fresh.measurements)) == again.measurements
    assert told(fresh, data) == told(again, data)


def test_whoever_accepts_a_finding_or_takes_another_limit_is_not_examined_again(started, tmp_path):
    write(tmp_path / "p.jsonl", [*GOOD, *PLANTED["contradiction"]])
    started()
    for changes in (
        {"allow": ("contradiction",)},
        {"max_length": 99},
        {"max_pairs": 9},
        {"truncation": "prompt_start"},
    ):
        again, _, looked = started(**changes)
        assert not looked
        data = DataConfig(train=str(tmp_path / "p.jsonl"), **changes)
        assert as_json(again.as_dict()) == as_json(audit(data).report.as_dict())
    for changes in ({"heldout_share": 0.2}, {"pairing": "none"}, {"max_dropped_share": 0.3}):
        assert started(**changes)[2]


def test_other_bytes_are_looked_at(started, tmp_path):
    write(tmp_path / "p.jsonl", GOOD)
    started()
    write(tmp_path / "p.jsonl", [*GOOD, row(999)])
    again, _, looked = started()
    assert looked
    assert again.counts["num_pairs"] == len(GOOD) + 1
