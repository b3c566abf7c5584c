"""The command line in this process."""

from __future__ import annotations

import random
import sys

import pytest

from tiebreak.__main__ import main
from tiebreak.files import write_jsonl
from tiebreak.runs import Run
from tiebreak.verbs import train
from tiny import settings

WORDS = ["the", "cat", "sat", "on", "mat", "and", "dog", "ran", "to", "park", "user"]


@pytest.fixture(scope="session")
def finished(tiny_model, tmp_path_factory) -> Run:
    """A finished run of the tiny model; to be read, or copied."""
    folder, draw = tmp_path_factory.mktemp("finished"), random.Random(0)
    rows = []
    for _ in range(40):
        prompt, tail = (" ".join(draw.choices(WORDS, k=draw.randint(2, 6))) for _ in range(2))
        rows.append({"prompt": prompt, "chosen": f"yes {tail}", "rejected": f"no {tail}"})
    write_jsonl(folder / "pairs.jsonl", rows)
    return train.train(
        settings(
            tiny_model,
            data__train=str(folder / "pairs.jsonl"),
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
