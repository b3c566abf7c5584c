"""The command line in this process."""

from __future__ import annotations

import sys

import pytest

from tiebreak.__main__ import main


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
