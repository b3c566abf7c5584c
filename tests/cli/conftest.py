"""The command line in this process."""

from __future__ import annotations

import sys

import pytest

from tiebreak.__main__ import main
from tiebreak.runs import Run
from tiebreak.verbs import train
from tiny import drawn_pairs, settings


@pytest.fixture(scope="session")
def finished(tiny_model, tmp_path_factory) -> Run:
    """A finished run of the tiny model; to be read, or copied."""
    folder = tmp_path_factory.mktemp("finished")
    return train.train(
        settings(
            tiny_model,
            data__train=drawn_pairs(folder),
            data__heldout_share=0.3,
            training__learning_rate=5e-3,
            evaluation__num_samples=2,
            evaluation__max_new_tokens=4,
            evaluation__probes=1,
            output__dir=str(folder / "run"),
            output__trackers=[],
        )
    )


@pytest.fixture
def cli(here, monkeypatch, capsys):
    """Run the command line in this process; return (exit code, stdout, stderr)."""

    def call(*words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tiebreak", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    return call
