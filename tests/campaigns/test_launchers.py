"""Trials as jobs of their own: the same trials, by processes that share the sweep's folder alone."""

from __future__ import annotations

import builtins
import json
import os
import signal
import threading
import time
from types import SimpleNamespace

import psutil
import pytest
import yaml

from tiebreak.campaigns import launchers
from tiebreak.campaigns.campaign import Planned
from tiebreak.campaigns.sweep import sweep
from tiebreak.campaigns.trials import IN_USE, Ended, Trial
from tiebreak.config import load_sweep
from tiebreak.errors import ConfigError, InUse, Preempted
from tiebreak.folders import locked
from tiebreak.progress import Silent
from tiebreak.runs import Run
from tiny import drawn_pairs


def _written(model, folder, **settings):
    told = {
        "model": {"name": str(model), "device": "cpu"},
        "data": {"train": drawn_pairs(folder), "heldout_share": 0.5},
        "adapter": {"rank": 4},
        "evaluation": {"num_samples": 0, "num_draws": 0, "neutral_probe": False, "probes": 0},
        "reference": {"store": "off"},
        "output": {"dir": str(folder / "out"), "trackers": []},
        "sweep": {"grid": {"loss.beta": [0.1, 0.3]}, **settings},
    }
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump(told))
    return path


@pytest.mark.slow
def test_jobs_of_this_machine_share_the_store_and_end_as_trials_do(tiny_model, tmp_path):
    pytest.importorskip("submitit")
    path = _written(tiny_model, tmp_path, launcher="local", slurm={"timeout_min": 5})
    found = sweep(load_sweep(path))
    trials = found.found["trials"]
    assert [one["state"] for one in trials] == ["done", "done"]
    assert [one["num_reference_asked"] > 0 for one in trials] == [True, False]
    assert found.found["reference"]["passes"] == 1.0
    assert found.found["luck"]
    assert {Run(found.folder / one["run"]).config.loss.beta for one in trials} == {0.1, 0.3}


def test_without_submitit_its_launchers_say_what_to_install(tiny_model, tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest, **more):
        if name == "submitit":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    path = _written(tiny_model, tmp_path, launcher="slurm")
    with pytest.raises(ConfigError, match=r"sweep\.launcher slurm: needs submitit; pip install 'tiebreak\[slurm\]'"):
        sweep(load_sweep(path))


class _Job:
    """A job that has ended with an error, or that ends so many looks after it was cancelled."""

    def __init__(self, number="7", error=None, lasts=0):
        self.error, self.job_id, self.lasts, self.cancelled = error, number, lasts, False
        self.paths = SimpleNamespace(stderr="7.err")

    def done(self, force_check=False):
        self.lasts -= self.cancelled
        return self.error is not None or (self.cancelled and self.lasts < 0)

    def exception(self):
        return self.error

    def cancel(self, *, check):
        self.cancelled = not check


class _Heard(Silent):
    def __init__(self):
        self.warned = []

    def warn(self, text):
        self.warned.append(text)


def _launching(monkeypatch, submit):
    monkeypatch.setattr(launchers, "POLL_SECONDS", 0)
    made = object.__new__(launchers.Jobs)
    made._settings = SimpleNamespace(launcher="slurm", at_once=2)
    made._executor, made._progress = SimpleNamespace(map_array=submit), _Heard()
    made._told = lambda trial: trial.name
    return made, [SimpleNamespace(name=name, settings={}) for name in "ab"]


def test_jobs_that_nobody_waits_for_are_cancelled_and_one_that_ends_without_a_word_fails_alone(monkeypatch):
    jobs = [_Job(error=AssertionError()), _Job()]
    made, trials = _launching(monkeypatch, lambda *_: jobs)
    ended = made.launch(trials)
    assert next(ended).says == "its job 7 ended with AssertionError; 7.err"
    ended.close()  # as where Ctrl-C ends the sweep
    assert [one.cancelled for one in jobs] == [False, True]


@pytest.mark.parametrize(("lasts", "told"), [(3, []), (10**6, ["jobs that have not ended yet: 8"])])
def test_the_ends_of_jobs_that_were_cancelled_are_waited_for_and_not_for_ever(monkeypatch, lasts, told):
    jobs = [_Job("7", error=AssertionError()), _Job("8", lasts=lasts)]
    made, trials = _launching(monkeypatch, lambda *_: jobs)
    ended = made.launch(trials)
    next(ended)
    ended.close()
    assert jobs[1].lasts == (-1 if lasts == 3 else lasts - launchers.LAST_POLLS)
    assert [one.partition(";")[0] for one in made._progress.warned] == told


def _of_this_machine(model, folder, **settings):
    """Return jobs of submitit, which are processes of this machine, and a trial that takes a while."""
    pytest.importorskip("submitit")
    asked = load_sweep(_written(model, folder, launcher="local", **settings), ["training.epochs=4000"])
    (asked.folder / "trials").mkdir(parents=True)
    [settings, _] = asked.combinations()
    return launchers.Jobs(asked.settings, asked.folder, _Heard()), Trial(
        settings, Planned("it", asked.config(settings, "it"))
    )


def _ended_by(made, trial, ending):
    """Return the run of a trial after `ending` was called with its job's number, once it had taken a step."""
    run = Run(trial.planned.config.output.dir)
    launched = []
    real = made._submitted

    def submitted(told):
        launched.extend(real(told))
        return launched

    made._submitted = submitted

    def once_it_trains():
        while not any(run.checkpoints_folder.glob("step-*")):
            time.sleep(0.05)
        ending(int(launched[0].job_id))

    thread = threading.Thread(target=once_it_trains)
    thread.start()
    try:
        ended = list(made.launch([trial]))
    finally:
        thread.join()
    return run, ended


@pytest.mark.slow
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_jobs_of_this_machine_that_are_cancelled_save_the_step_that_they_are_at(tiny_model, tmp_path, first):
    made, trial = _of_this_machine(tiny_model, tmp_path)

    def interrupt(number):
        if first == signal.SIGINT:  # Ctrl-C reaches what stands between as well
            for one in (psutil.Process(number), *psutil.Process(number).children()):
                one.send_signal(first)
        os.kill(os.getpid(), first)

    with pytest.raises(Preempted):
        _ended_by(made, trial, interrupt)
    run = Run(trial.planned.config.output.dir)
    assert run.manifest["status"] == "interrupted"


@pytest.mark.slow
def test_a_job_whose_time_is_over_saves_its_step_before_it_ends(tiny_model, tmp_path):
    made, trial = _of_this_machine(tiny_model, tmp_path, slurm={"timeout_min": 1})

    def over(number):
        for one in psutil.Process(number).children():
            one.send_signal(signal.SIGUSR2)

    run, [ended] = _ended_by(made, trial, over)
    assert run.manifest["status"] == "interrupted"
    assert ended.state == "failed"


@pytest.mark.parametrize("named", ["USR1", "USR2", "XCPU"])
def test_submitit_hears_of_a_job_that_saved_by_the_signal_that_it_was_told_to_use(
    tiny_model, tmp_path, monkeypatch, named
):
    submitit = pytest.importorskip("submitit")
    asking, heard = signal.Signals[f"SIG{named}"], []
    monkeypatch.setattr(submitit.JobEnvironment, "USR_SIG", named)
    monkeypatch.setattr(launchers.Here, "launch", lambda *_: signal.raise_signal(asking))
    before = signal.signal(asking, lambda number, _: heard.append(number))
    made, trial = _of_this_machine(tiny_model, tmp_path)
    try:
        with pytest.raises(Preempted):
            launchers.job(made._told(trial))
    finally:
        signal.signal(asking, before)
    assert heard == [asking]


@pytest.mark.parametrize("named", ["TERM", "HUP", "CONT", "SIGUSR1", "", "nonsense"])
def test_a_signal_at_which_no_run_saves_is_refused_before_a_job_is_submitted(tiny_model, tmp_path, monkeypatch, named):
    submitit = pytest.importorskip("submitit")
    monkeypatch.setattr(submitit.JobEnvironment, "USR_SIG", named)
    with pytest.raises(ConfigError, match=f"SUBMITIT_PREEMPT_SIGNAL is '{named}'; set it to one of .*USR1, USR2"):
        _of_this_machine(tiny_model, tmp_path)


@pytest.mark.parametrize(
    ("visible", "given"), [(None, [None] * 3), ("", [None] * 3), ("2, 5", ["2", "5", "2"]), ("GPU-a", ["GPU-a"] * 3)]
)
def test_jobs_of_this_machine_take_its_cards_in_turns(monkeypatch, visible, given):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    seen = []
    made, _ = _launching(monkeypatch, lambda _, told, cards: seen.extend(cards) or [])
    made._settings.launcher = "local"
    made._submitted("abc")
    assert seen == given


def test_what_slurm_refuses_is_told_in_its_words(tiny_model, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    place = tmp_path / "bin"
    place.mkdir()
    for name in ("srun", "sbatch"):
        (place / name).write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpuu' >&2\nexit 1\n")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    path = _written(tiny_model, tmp_path, launcher="slurm", slurm={"slurm_partition": "gpuu"})
    with pytest.raises(ConfigError, match=r"sweep\.launcher slurm: .*invalid partition specified: gpuu.*sweep\.slurm"):
        sweep(load_sweep(path))


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_the_jobs_also_while_they_are_submitted(monkeypatch, asked):
    jobs = [_Job(), _Job()]

    def submit(*_):
        signal.raise_signal(asked)
        return jobs

    made, trials = _launching(monkeypatch, submit)
    before = signal.getsignal(asked)
    with pytest.raises(Preempted, match=f"stopped by {asked.name}"):
        next(made.launch(trials))
    assert [one.cancelled for one in jobs] == [True, True]
    assert signal.getsignal(asked) is before


def test_a_run_that_another_process_has_is_no_result_of_its_trial(tiny_model, tmp_path):
    asked = load_sweep(_written(tiny_model, tmp_path))
    [settings, _] = asked.combinations()
    trial = Trial(settings, Planned("it", asked.config(settings, "it")))
    made = object.__new__(launchers.Jobs)
    made._settings, made._folder = asked.settings, asked.folder
    with locked(Run(trial.planned.config.output.dir).path):
        ended = Ended.from_dict(json.loads(launchers.job(made._told(trial))))
    assert (ended.state, ended.probes) == (IN_USE, ())
    assert "in use by" in ended.says


def test_a_sweep_goes_on_beside_a_run_in_use_and_is_not_done_without_it(tiny_model, tmp_path, monkeypatch):
    asked = load_sweep(_written(tiny_model, tmp_path, grid={"loss.beta": [0.1, 0.3, 0.5]}))
    launched, others = [], {0.3: (IN_USE, "x: in use by host pid 3")}

    def launch(trials):
        launched.append([trial.settings["loss.beta"] for trial in trials])
        for trial in trials:
            state, says = others.get(trial.settings["loss.beta"], ("done", None))
            yield Ended(trial.name, dict(trial.settings), state, (), 1.0, 0, says)

    monkeypatch.setattr("tiebreak.campaigns.sweep.launcher_of", lambda *_: SimpleNamespace(launch=launch))
    for _ in range(2):
        with pytest.raises(InUse, match=r"beta=0\.3: not tried yet, .* \(x: in use by host pid 3\)"):
            sweep(asked)
    assert launched == [[0.1], [0.3, 0.5], [0.3]]
    noted = launchers.journal_of(asked.folder).ended
    assert [(one.name, one.state) for one in noted] == [("beta=0.1", "done"), ("beta=0.5", "done")]
