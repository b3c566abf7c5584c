"""Two processes at once: in one run folder, and on one store of reference log-probabilities."""

from __future__ import annotations

import signal
import socket

from harness import assert_finished_like, assert_resumes

from tiebreak.errors import EXIT_USAGE


def test_a_second_run_in_one_folder_is_refused_with_the_name_of_the_first(case, undisturbed):
    first = case.start()
    first.wait_for(case.run / "checkpoints" / "step-00000002")
    first.signal(signal.SIGSTOP)
    try:
        for words in ((), ("--resume", "never")):
            second = case.train(*words)
            assert second.code == EXIT_USAGE, second.err
            assert f"in use by {socket.gethostname()} pid {first.pid}" in second.error
    finally:
        first.signal(signal.SIGCONT)
    ended = first.wait()
    assert ended.code == 0, ended.err
    assert_finished_like(case, undisturbed)
    assert not (case.folder / "run.unfinished-1").exists()


def test_the_lock_of_a_process_that_died_is_taken_over_with_a_note(case, undisturbed):
    first = case.start(fault="kill@step:begin:5")
    assert first.wait().code == -9
    again = assert_resumes(case, undisturbed)
    notes = [line for line in again.err.splitlines() if f"pid {first.pid}" in line]
    assert len(notes) == 1, again.err
    assert "taken over" in notes[0]


def test_a_run_that_ended_well_leaves_no_owner_behind(finished):
    assert (finished.run / ".lock").read_text() == ""


def test_two_runs_on_one_store_at_once_end_as_if_alone(new_case, tmp_path, undisturbed):
    cases = [new_case(tmp_path / name) for name in ("one", "two")]
    (tmp_path / "store").mkdir()
    for case in cases:
        (case.folder / "store").symlink_to(tmp_path / "store")
    both = [case.start() for case in cases]
    for case, running in zip(cases, both, strict=True):
        ended = running.wait()
        assert ended.code == 0, ended.err
        assert_finished_like(case, undisturbed)
    assert not list((tmp_path / "store").rglob("*.corrupt"))
    assert not list((tmp_path / "store").glob("*.stale-*"))


def test_of_two_runs_started_together_in_one_folder_one_wins_and_one_is_refused(case, undisturbed):
    both = [case.start() for _ in range(2)]
    codes = sorted(running.wait().code for running in both)
    assert codes == [0, EXIT_USAGE]
    assert_finished_like(case, undisturbed)
