"""Where the numbers of training go."""

from __future__ import annotations

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
