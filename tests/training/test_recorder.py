"""Where the numbers of training go."""

from __future__ import annotations

import pytest

from tiebreak.errors import RunError
from tiebreak.runs import Run
from tiebreak.training import recorder
from tiebreak.training.recorder import Recorder


class Talking:
    """A tracker that prints, as some do."""

    requires_logging_directory = False

    def __init__(self, name):
        print("made")

    def start(self):
        print("started")

    def store_init_configuration(self, _):
        print("configured")

    def log(self, values, step):
        print("logged")

    def finish(self):
        print("finished")


def test_what_a_tracker_prints_is_prose_and_no_result(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(recorder.LOGGER_TYPE_TO_CLASS, "talking", Talking)
    with Recorder(Run(tmp_path), ["talking"]) as numbers:
        numbers.write({"step": 1, "loss": 0.5})
    out, err = capsys.readouterr()
    assert out == ""
    assert err.split() == ["made", "started", "configured", "logged", "finished"]


@pytest.mark.parametrize("place", range(0, 60, 7))
def test_rows_that_a_flipped_bit_changed_are_named_and_not_gone_on_with(place, tmp_path):
    """Numbers of steps that were taken go into report, card and gate: no attempt may end with others."""
    with Recorder(Run(tmp_path)) as numbers:
        numbers.rewind(0)
        for step in range(4):
            numbers.write({"step": step, "heldout/rewards/margins": 0.25})
        size, digest = numbers.num_bytes, numbers.sha256
        numbers.write({"step": 4, "loss": 1.0})
    file = Run(tmp_path).metrics_file
    whole = file.read_bytes()
    with Recorder(Run(tmp_path)) as numbers:
        numbers.rewind(size, digest)
        assert (numbers.num_bytes, numbers.sha256) == (size, digest)
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with Recorder(Run(tmp_path)) as numbers, pytest.raises(RunError, match=r"metrics\.jsonl: is not what was written"):
        numbers.rewind(size, digest)
    file.unlink()  # as the message says
    with Recorder(Run(tmp_path)) as numbers:
        numbers.rewind(size, digest)
        assert numbers.num_bytes == 0
