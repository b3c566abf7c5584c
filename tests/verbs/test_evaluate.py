"""Measuring a run on other pairs: they are read as the run reads its own, where they are told alike."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from typer.testing import CliRunner

from tiebreak.cli.app import app
from tiebreak.config import DataConfig
from tiebreak.data.reader import read_pairs
from tiebreak.errors import DataError
from tiebreak.verbs import train
from tiebreak.verbs.evaluate import as_the_run_reads, evaluate
from tiny import settings

TURNED = {"prompt": "prompt", "chosen": "rejected", "rejected": "chosen"}
OTHER = {"prompt": "q", "chosen": "good", "rejected": "bad"}


@pytest.fixture
def saved(tmp_path):
    def save(row, name="other.jsonl"):
        path = tmp_path / name
        path.write_text(json.dumps(row) + "\n")
        return str(path)

    return save


def read(data, path):
    how = as_the_run_reads(data, path)
    (pair,) = read_pairs(path, how.format, columns=how.columns).pairs
    return pair.chosen.content, pair.rejected.content


def test_the_columns_of_the_run_are_those_of_a_file_that_has_them(saved):
    row = {"prompt": "Why?", "chosen": "first", "rejected": "second"}
    assert read(DataConfig(), saved(row)) == ("first", "second")
    assert read(DataConfig(columns=TURNED), saved(row)) == ("second", "first")
    mixed = DataConfig(train=[{"path": "x", "columns": TURNED}, {"path": "y"}])
    assert read(mixed, saved(row)) == ("second", "first")


def test_a_file_without_these_columns_is_read_by_its_own_rows(saved):
    row = {"prompt": "Why?", "chosen": "first", "rejected": "second"}
    assert read(DataConfig(columns=OTHER), saved(row)) == ("first", "second")
    assert read(DataConfig(format="votes"), saved(row)) == ("first", "second")
    mapped = {"prompt": "q", "completion_a": "x", "completion_b": "y", "winner": "w", "winner.first": "0",
              "winner.second": "1"}  # fmt: skip
    assert read(DataConfig(columns=mapped), saved(row)) == ("first", "second")
    assert read(DataConfig(columns=mapped), saved({"q": "Why?", "x": "a", "y": "b", "w": 1})) == ("b", "a")


def test_a_file_that_several_sources_of_the_run_would_read_is_no_guess(saved, tmp_path):
    both = DataConfig(train=[{"path": "x", "columns": TURNED}, {"path": "y", "columns": OTHER}])
    row = {"prompt": "Why?", "chosen": "first", "rejected": "second"}
    assert read(both, saved(row)) == ("second", "first")
    path = saved(row | {"q": "Why?", "good": "first", "bad": "second"})
    with pytest.raises(
        DataError, match=r"other\.jsonl: the run reads files in several ways, and more than one"
    ) as told:
        read(both, path)
    commands = [shlex.split(line) for line in re.findall("'(tiebreak convert [^']*)'", str(told.value))]
    for number, words in enumerate(commands):
        words[words.index("OUT.jsonl")] = out = str(tmp_path / f"{number}.jsonl")
        assert CliRunner().invoke(app, words[1:]).exit_code == 0
        assert read(both, out) == [("second", "first"), ("first", "second")][number]
    assert len(commands) == 2


def test_a_finished_run_measures_other_pairs_by_its_own_columns(saved, tiny_model, tmp_path):
    words = ["cat", "dog", "park", "mat", "user", "ran"]
    rows = [{"prompt": f"{one} {other}", "chosen": f"no {one}", "rejected": f"yes {other}"}
            for one in words for other in words]  # fmt: skip
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = settings(
        tiny_model,
        data__train=str(pairs),
        data__columns=TURNED,
        data__heldout_share=0.3,
        training__learning_rate=5e-3,
        evaluation__num_samples=0,
        evaluation__probes=0,
        output__dir=str(tmp_path / "run"),
        output__trackers=[],
    )
    run = train.train(config)
    other = {"prompt": "the cat sat", "chosen": "no mat", "rejected": "yes mat"}
    found = evaluate(run, data=saved(other))
    assert found["data"]["columns"] == TURNED
    assert found["data"]["num_dropped"] == 0
    renamed = {"instruction": "the cat sat", "response_a": "no mat", "response_b": "yes mat", "winner": "b"}
    again = evaluate(run, data=saved(renamed, "others.jsonl"))
    assert (again["data"]["columns"], again["data"]["format"]) == (None, "votes")
    assert again["accuracy"] == found["accuracy"]
