"""Jobs from their creation to their end, on a tiny model, with workers that are processes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from job_service import QUICK, lines, pair, service, weights
from served import fill
from tiebreak.errors import RunError
from tiebreak.service import booking, catalog, jobs, shelf, translate
from tiebreak.service.booking import Next, after
from tiebreak.service.examining import Examined
from tiebreak.service.jobs import PAUSE, Job
from tiebreak.service.launching import LOCK, is_held, sign, signature, take
from tiebreak.service.telling import COLUMNS

# ------------------------------------------------------------------------------------------------------ pure decisions


def _job(key: str = "a", name: str = "ftjob-1", **told) -> Job:
    plain = dict.fromkeys(Job.__dataclass_fields__)
    begin = {"id": name, "key": key, "wanted": "", "attempts": 0, "next_at": 0.0, "read_to": {}}
    return Job(**plain | begin | told)


DONE, ASKED = {"exit": 0, "message": ""}, {"exit": 75, "message": "stopped by SIGTERM"}


@pytest.mark.parametrize(
    ("job", "ended", "progress", "wanted"),
    [
        (_job(), DONE, False, Next("succeeded")),
        (_job(wanted=PAUSE), DONE, False, Next("succeeded")),
        (_job(), {"exit": 1, "message": "no"}, False, Next("failed", 0, "no")),
        (_job(wanted=PAUSE), {"exit": 2, "message": "no"}, True, Next("failed", 0, "no")),
        (_job(wanted=PAUSE), ASKED, False, Next("paused")),
        (_job(wanted=PAUSE, attempts=2), None, False, Next("paused", 2)),
        (_job(worker={"asked": 1.0}, attempts=2), ASKED, False, Next("queued", 2)),
        (_job(), ASKED, False, Next("queued", 1, "stopped by SIGTERM")),
        (_job(attempts=2), None, False, Next("queued", 3, "its worker died")),
        (_job(attempts=3), None, False, Next("failed", 4, "its worker died")),
        (_job(attempts=3), None, True, Next("queued", 1, "its worker died")),
    ],
)
def test_what_follows_from_the_end_of_a_worker(job, ended, progress, wanted):
    assert after(job, ended, 3, progress=progress) == wanted


# ------------------------------------------------------------------------------------------------- one job, to its end


# A worker loads torch, which takes seconds: one job is carried out, and looked at from all sides.
@pytest.fixture(scope="module")
def carried(tmp_path_factory, tiny_model):
    made = service(tmp_path_factory.mktemp("service"), tiny_model)
    job = made.create(suffix="mine")
    return made, made.until(made.supervisor(), job, "succeeded", "failed")


@pytest.fixture(scope="module")
def undisturbed(carried, tmp_path_factory):
    """The run of `tiebreak train` with the settings of the job, in another folder."""
    made, job = carried
    folder = tmp_path_factory.mktemp("undisturbed")
    words = ["train", str(made.folder(job) / "config.yaml"), "--set", f"output.dir={folder / 'run'}", "--quiet"]
    subprocess.run([sys.executable, "-m", "tiebreak", *words], check=True, capture_output=True)
    return folder / "run"


def test_a_job_succeeds_and_its_weights_are_those_of_tiebreak_train(carried, undisturbed):
    made, job = carried
    assert job.state == "succeeded", (job.error, made.log(job))
    assert weights(made.folder(job) / "run" / "policy") == weights(undisturbed / "policy")
    assert weights(made.folder(job) / "artefact") == weights(undisturbed / "policy")
    assert (job.error, job.wanted, job.worker, job.estimated) == (None, "", None, None)
    assert job.created <= job.started <= job.finished


def test_its_events_tell_all_of_it_in_order(carried):
    made, job = carried
    said = made.messages(job)
    named = [event["once"] for event in made.events(job)]
    assert [name for name in named if name and name.startswith("step-")] == [f"step-{n}" for n in range(1, 13)]
    assert said[-3].startswith("The verdict is inconclusive: ")
    assert said[-2:] == [f"New fine-tuned model created: {job.model}", "The job has successfully completed"]
    assert said.index("Files validated, moving job to queued state") < said.index("Fine-tuning job started")
    assert [event["level"] for event in made.events(job) if event["once"] == "verdict"] == ["warn"]
    assert [event["level"] for event in made.events(job) if event["once"] == "found-0"] == ["warn"]


def test_its_model_has_a_name_and_its_results_are_files_of_its_key(carried, undisturbed):
    made, job = carried
    assert job.model == f"ft:tiny:tiebreak:mine:{job.id[-8:]}"
    assert catalog.find(made.store, made.models, made.settings, made.key, job.model).folder == (
        made.folder(job) / "artefact"
    )
    files = [shelf.find(made.store, name, made.key) for name in job.results]
    assert [file.filename for file in files] == ["step_metrics.csv", "report.html", "evaluation.json"]
    assert {file.purpose for file in files} == {"fine-tune-results"}
    table = shelf.path_of(made.store, files[0]).read_text().splitlines()
    assert table[0] == ",".join(COLUMNS)
    assert len(table) == 14
    assert all(float(value) >= 0 for line in table[1:] for value in line.split(",") if value)
    assert json.loads(shelf.path_of(made.store, files[2]).read_text())["verdict"] == "inconclusive"
    told = "".join(shelf.path_of(made.store, file).read_text() for file in files)
    assert str(made.store.folder) not in told
    assert made.models["tiny"].model.name not in told


def test_tokens_are_those_of_every_step(carried):
    made, job = carried
    per_pair = json.loads((made.folder(job) / "run" / "data.json").read_text())
    mean = sum(per_pair[f"{side}_tokens"]["mean"] for side in ("prompt", "chosen", "rejected"))
    assert job.tokens == pytest.approx(2 * per_pair["num_train_pairs"] * mean, rel=0.05)


def _unbooked(carried, folder):
    """A copy of the service whose job's worker has ended well, and nobody has booked it."""
    made, job = carried
    shutil.copytree(made.store.folder, folder)
    copy = service(folder, made.models["tiny"].model.name)
    with copy.store.writing():
        copy.store.change("update jobs set state = 'running', model = null, results = '[]', read_to = '{}'")
        copy.store.change("delete from models")
        for row in copy.store.rows("select id from files where purpose = ?", shelf.RESULTS):
            copy.store.file_path(row["id"]).unlink()
        copy.store.change("delete from files where purpose = ?", shelf.RESULTS)
        copy.store.change("delete from events where once in ('verdict', 'model', 'completed')")
        handle = {"folder": str(copy.folder(job)), "job": job.id, "attempt": 1}
        copy.store.change("update jobs set worker = ?", json.dumps(handle))
    return copy


@pytest.mark.parametrize("fills", ["files", "tables"])
def test_a_job_whose_results_do_not_fit_on_the_disk_says_so_once_holds_up_nobody_and_ends_when_there_is_room(
    carried, tmp_path, monkeypatch, fills
):
    _, job = carried
    copy = _unbooked(carried, tmp_path / "service")
    waits = jobs.create(copy.store, "another", {"model": "tiny", "training_file": "file-1"}, job.resolved)
    jobs.move(copy.store, waits.id, (jobs.VALIDATING,), jobs.QUEUED)
    begun, supervisor = [], copy.supervisor()
    monkeypatch.setattr(supervisor, "_begin", begun.append)
    before = sorted(copy.store.files_folder.iterdir())
    with monkeypatch.context() as patch:
        if fills == "tables":
            fill(patch)
        else:
            write = shelf.append

            def append(file, source, *digests):
                if source.name == "evaluation.json":  # two of three fit
                    raise OSError(errno.ENOSPC, "No space left on device")
                return write(file, source, *digests)

            patch.setattr(shelf, "append", append)
        for _ in range(5):
            supervisor.look()
            time.sleep(supervisor.pace.pauses[0])
        assert copy.job(job).state == "running"
        assert begun[0].id == waits.id
        assert sorted(copy.store.files_folder.iterdir()) == before
    told = [event["level"] for event in copy.events(job) if "is full" in event["message"]]
    assert told == ["warn"] * (fills == "files")  # tables that are full take no event either
    supervisor.look()
    found = copy.job(job)
    assert (found.state, len(found.results), found.model) == ("succeeded", 3, job.model)
    assert [event["message"] for event in copy.events(job)].count("The job has successfully completed") == 1


def test_a_job_that_is_to_wait_is_not_begun_before(carried, tmp_path, monkeypatch):
    copy, (_, job) = _unbooked(carried, tmp_path / "service"), carried
    begun, supervisor = [], copy.supervisor()
    monkeypatch.setattr(supervisor, "_begin", begun.append)
    copy.store.change("update jobs set state = 'queued', worker = null, next_at = ?", time.time() + 60)
    supervisor.look()
    assert begun == []
    copy.store.change("update jobs set next_at = ?", time.time())
    supervisor.look()
    assert [one.id for one in begun] == [job.id]


def test_a_server_that_died_before_it_booked_the_end_books_it_once(carried, tmp_path):
    made, job = carried
    copy = _unbooked(carried, tmp_path / "service")
    for _ in range(3):
        copy.supervisor().look()
    found = copy.job(job)
    assert (found.state, found.model) == ("succeeded", job.model)
    assert copy.messages(job) == made.messages(job)
    assert len(shelf.listed(copy.store, copy.key, purpose=shelf.RESULTS)[0]) == 3
    booking.succeed(copy.store, copy.settings, found)
    assert copy.job(job) == found


def test_checkpoints_are_what_was_measured_and_what_is_kept(carried, tmp_path):
    made, job = carried
    sql = "select step from checkpoints where job = ? order by seq"
    assert [row["step"] for row in made.store.rows(sql.replace("seq", "step"), job.id)] == [4, 8, 10, 12]
    shutil.copytree(made.store.folder, tmp_path / "service")
    copy = service(tmp_path / "service", made.models["tiny"].model.name)
    copy.store.change("delete from checkpoints")
    copy.store.change("update jobs set state = 'running'")
    booking.succeed(copy.store, copy.settings, copy.job(job))
    kept = [int(path.name[5:]) for path in sorted((copy.folder(job) / "run" / "checkpoints").glob("step-*"))]
    assert [row["step"] for row in copy.store.rows(sql, job.id)] == kept == [10, 12]


def test_only_a_model_that_passes_gets_a_name_where_the_operator_wants_that(carried, tmp_path):
    made, job = carried
    shutil.copytree(made.store.folder, tmp_path / "service")
    copy = service(tmp_path / "service", made.models["tiny"].model.name, promote="verdict")
    copy.store.change("update jobs set state = 'running', model = null, results = '[]'")
    copy.store.change("delete from models")
    copy.store.change("delete from events where once in ('verdict', 'model', 'completed')")
    booking.succeed(copy.store, copy.settings, copy.job(job))
    assert (copy.job(job).state, copy.job(job).model) == ("succeeded", None)
    assert copy.messages(job)[-2].startswith("The model got no name")


# --------------------------------------------------------------------------------------------- paused, resumed, ended


# Two workers, one after the other.
def test_a_job_is_paused_resumed_and_cancelled(tmp_path, tiny_model):
    made = service(tmp_path / "service", tiny_model)
    hyper = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 50}}}
    job, supervisor = made.create(method=hyper), made.supervisor()
    waits = made.create(method=hyper)
    made.when(supervisor, lambda: any("Step 5/" in said for said in made.messages(job)))
    assert made.job(waits).state in ("validating_files", "queued")
    jobs.pause(made.store, made.job(job))
    paused = made.until(supervisor, job, "paused", "succeeded", "failed")
    assert (paused.state, paused.worker, paused.wanted, paused.attempts) == ("paused", None, "", 0)
    assert not is_held(made.folder(job) / LOCK)
    assert json.loads((made.folder(job) / "ended.json").read_text())["exit"] == 75
    assert made.messages(job)[-1] == "The job has been paused."
    # The slot is another's meanwhile.
    running = made.until(supervisor, waits, "running")
    jobs.resume(made.store, paused, again=False)
    made.when(supervisor, (made.folder(waits) / "run").exists)
    assert made.job(job).state == "queued"
    jobs.cancel(made.store, running)
    pid = signature(made.folder(waits))["pid"]
    assert made.job(waits).state == "cancelled"
    again = made.until(supervisor, job, "running")
    # No slot is given before the worker is gone.
    assert not is_held(made.folder(waits) / LOCK)
    assert made.job(waits).worker is None
    assert signature(made.folder(waits))["pid"] == pid
    made.when(supervisor, lambda: made.job(job).read_to["bytes"] > again.read_to["bytes"])
    jobs.cancel(made.store, again)
    made.when(supervisor, lambda: made.job(job).worker is None)
    steps = [event["once"] for event in made.events(job) if (event["once"] or "").startswith("step-")]
    assert steps == [f"step-{n}" for n in range(1, len(steps) + 1)]


def test_a_worker_that_dies_again_and_again_fails_the_job(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setenv("TIEBREAK_FAULT", "kill@audit")
    made = service(tmp_path / "service", tiny_model, limits={"attempts": 1})
    job = made.create()
    found = made.until(made.supervisor(), job, "failed", "succeeded")
    assert (found.state, found.error["code"], found.attempts) == ("failed", "worker_lost", 1)
    assert found.error["message"] == "its worker died"
    assert found.read_to["starts"] == 2
    assert [event["level"] for event in made.events(job)][-2:] == ["warn", "error"]


def test_a_run_that_fails_fails_the_job_with_its_line_and_no_place_of_the_machine(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setenv("TIEBREAK_FAULT", "full@save:begin")
    made = service(tmp_path / "service", tiny_model)
    job = made.create()
    found = made.until(made.supervisor(), job, "failed", "succeeded")
    assert (found.state, found.error["code"]) == ("failed", "training_failed")
    assert "No space left on device" in found.error["message"]
    assert str(tmp_path) not in json.dumps(found.error)
    assert made.messages(job)[-1] == f"The job failed: {found.error['message']}"


# ----------------------------------------------------------------------------------------------------- files that fail


def _without_preferred() -> bytes:
    row = pair(0)
    del row["preferred_output"]
    return lines(range(3)) + json.dumps(row).encode() + b"\n"


BAD = {
    "empty": (b"", "training_file", "my pairs.jsonl: the file holds no record"),
    "not UTF-8": (b"\xff\xfe\x81 hello\n", "training_file", "my pairs.jsonl:1: "),
    "a ZIP": (b"PK\x03\x04" + bytes(60), "training_file", "my pairs.jsonl: holds a zip archive"),
    "no preferred_output": (_without_preferred(), "training_file", "my pairs.jsonl:4: "),
}


# The doctor is a process that loads libraries, once for each file; they are looked at beside each other.
@pytest.fixture(scope="module")
def refused(tmp_path_factory, tiny_model):
    made = service(tmp_path_factory.mktemp("refused"), tiny_model, limits={"workers": 2})
    found = {}
    for what, (content, _, _) in BAD.items():
        found[what] = made.create(training_file=made.upload(content, "my pairs.jsonl"))
    ours = [made.upload(lines(range(at, 33)), name) for at, name in ((0, "train.jsonl"), (30, "held out.jsonl"))]
    found["overlap"] = made.create(training_file=ours[0], validation_file=ours[1])
    supervisor = made.supervisor()
    return {what: (made, made.until(supervisor, job, "failed", "queued", "running")) for what, job in found.items()}


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_cannot_be_trained_on_fails_the_job_with_its_line(refused, what):
    made, job = refused[what]
    _, param, begin = BAD[what]
    assert job.state == "failed"
    assert (job.error["code"], job.error["param"]) == (f"invalid_{param}", param)
    assert begin in job.error["message"]
    assert str(made.store.folder) not in json.dumps(job.error)
    assert "Traceback" not in job.error["message"]
    assert "\n" not in job.error["message"]


def test_prompts_on_both_sides_fail_the_job(refused):
    _, job = refused["overlap"]
    assert (job.error["code"], job.error["param"]) == ("invalid_validation_file", "validation_file")
    assert job.error["message"].count("a prompt on both sides of a given split") == 3
    assert "train.jsonl:31" in job.error["message"]


def test_a_model_that_is_not_offered_any_more_fails_the_job_that_waits_for_it(tmp_path, tiny_model):
    made = service(tmp_path / "service", tiny_model)
    job = made.create()
    made.models = {}
    supervisor = made.supervisor()
    supervisor.look()
    found = made.job(job)
    assert (found.state, found.error["code"], found.error["param"]) == ("failed", "model_not_found", "model")
    assert "'tiny' does not exist" in found.error["message"]


def test_a_fault_of_ours_at_one_job_holds_up_no_other(tmp_path, tiny_model, caplog):
    made = service(tmp_path / "service", tiny_model, limits={"workers": 2})
    spoilt, sound = made.create(), made.create()
    supervisor = made.supervisor()
    made.store.change("update jobs set body = '{\"model\": 3}' where id = ?", spoilt.id)
    supervisor.look()
    assert made.job(spoilt).state == "validating_files"
    assert (made.folder(sound) / "config.yaml").exists()
    for _ in range(20):
        supervisor.look()
    assert caplog.text.count("the supervisor could not look at it") == 1
    assert (made.job(spoilt).state, made.job(spoilt).error["code"]) == ("failed", "server_error")
    supervisor.close()


def test_faults_that_passed_do_not_add_up_and_nothing_of_jobs_that_ended_is_kept(tmp_path, tiny_model):
    made = service(tmp_path / "service", tiny_model)
    job = made.create()
    supervisor = made.supervisor()
    sound = made.store.row("select body from jobs where id = ?", job.id)["body"]
    for _ in range(15):
        for body in ("3", sound):
            made.store.change("update jobs set body = ? where id = ?", body, job.id)
            supervisor.look()
            if body is not sound:
                made.store.change("update jobs set state = 'validating_files' where id = ?", job.id)
    assert made.job(job).state != "failed"
    made.store.change("update jobs set body = '3', state = 'queued' where id = ?", job.id)
    supervisor.look()
    assert supervisor._troubles.jobs() == {job.id}
    made.store.change("update jobs set state = 'failed' where id = ?", job.id)
    supervisor.look()
    assert not (supervisor._troubles.jobs() or supervisor._silent)
    supervisor.close()


def test_a_job_that_the_machine_fails_takes_nobodys_turn_is_told_once_and_ends(
    tmp_path, tiny_model, monkeypatch, caplog
):
    made = service(tmp_path / "service", tiny_model, limits={"workers": 1})
    stuck, sound, supervisor = made.create(), made.create(), made.supervisor()
    made.store.change("update jobs set state = 'queued'")
    begun = []

    def begin(job):
        if job.id == stuck.id:
            raise PermissionError(errno.EACCES, "no way in", f"place-{len(begun)}-{time.monotonic()}")
        begun.append(job.id)

    begin.__name__ = "_begin"
    monkeypatch.setattr(supervisor, "_begin", begin)
    monkeypatch.setattr(supervisor, "pace", replace(supervisor.pace, pauses=(0.3,)))
    supervisor.look()
    assert begun == []  # its turn came first
    supervisor.look()
    assert begun == [sound.id]
    made.store.change("update jobs set state = 'paused' where id = ?", sound.id)
    time.sleep(0.4)
    supervisor.look()
    assert made.job(stuck).state == "queued"
    assert caplog.text.count("no way in") == 1
    monkeypatch.setattr("tiebreak.service.troubles.MOST_TROUBLE_SECONDS", 0.1)
    time.sleep(0.4)
    supervisor.look()
    assert (made.job(stuck).state, made.job(stuck).error["code"]) == ("failed", "server_error")
    supervisor.close()


def _sqlite(kind, message, code=None):
    error = kind(message)
    if code is not None:
        error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "state", "told"),
    [
        (_sqlite(sqlite3.IntegrityError, "UNIQUE constraint failed"), "failed", "a fault of the service"),
        (_sqlite(sqlite3.OperationalError, "disk I/O error"), "failed", "the machine of the service fails it"),
        (_sqlite(sqlite3.OperationalError, "full", sqlite3.SQLITE_FULL), "queued", "The disk of the service is full"),
    ],
)
def test_what_stays_wrong_with_a_database_ends_the_job_and_a_full_disk_is_told(
    tmp_path, tiny_model, monkeypatch, caplog, error, state, told
):
    made = service(tmp_path / "service", tiny_model)
    job, supervisor = made.create(), made.supervisor()
    made.store.change("update jobs set state = 'queued'")

    def begin(_):
        raise error

    begin.__name__ = "_begin"
    monkeypatch.setattr(supervisor, "_begin", begin)
    monkeypatch.setattr(supervisor, "pace", replace(supervisor.pace, pauses=(0.0,)))
    monkeypatch.setattr("tiebreak.service.troubles.MOST_TROUBLE_SECONDS", 0.0)
    for _ in range(30):
        supervisor.look()
    assert made.job(job).state == state
    assert told in made.messages(job)[-1]
    assert caplog.text.count(f"{job.id}: ") == 1
    supervisor.close()


def test_a_database_that_stays_locked_is_told_once_in_the_log(tmp_path, tiny_model, monkeypatch, caplog):
    made = service(tmp_path / "service", tiny_model)
    made.create()
    supervisor, looks = made.supervisor(), []

    def locked():
        looks.append(len(looks))
        if len(looks) > 3:
            supervisor._closed.set()
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(supervisor, "look", locked)
    supervisor._run()
    assert (len(looks), caplog.text.count("could not look at the jobs")) == (4, 1)


@pytest.mark.parametrize(("waited", "ends"), [(1.0, False), (100.0, True)])
def test_a_worker_that_hangs_while_it_is_to_pause_is_ended_and_the_job_is_paused(tmp_path, tiny_model, waited, ends):
    made = service(tmp_path / "service", tiny_model)
    job, supervisor = made.create(), made.supervisor(replace(QUICK, saving_seconds=50.0))
    handle = {"folder": str(made.folder(job)), "job": job.id, "attempt": 1}
    changes = json.dumps(handle | {"asked": time.time() - waited})
    made.store.change("update jobs set state = 'running', wanted = 'pause', worker = ?", changes)
    made.folder(job).mkdir(parents=True, exist_ok=True)
    lock = take(made.folder(job) / LOCK)
    hung = subprocess.Popen(["sleep", "300"], start_new_session=True, pass_fds=(lock,))
    sign(lock, hung.pid)
    os.close(lock)
    try:
        supervisor.look()
        if not ends:
            assert (hung.poll(), made.job(job).state) == (None, "running")
            return
        assert hung.wait(20) == -signal.SIGKILL
        found = made.until(supervisor, job, "paused")
        assert (found.worker, found.attempts) == (None, 0)
        assert made.messages(job)[-1].endswith("it will go on from its last checkpoint.")
    finally:
        hung.kill()
        hung.wait()
        supervisor.close()


@pytest.mark.parametrize("error", [AttributeError, OSError, RunError])
def test_a_job_that_was_cancelled_stays_so_whatever_its_worker_does(tmp_path, tiny_model, monkeypatch, error):
    made = service(tmp_path / "service", tiny_model)
    job, supervisor = made.create(), made.supervisor()
    handle = json.dumps({"folder": str(made.folder(job)), "job": job.id, "attempt": 1})
    made.store.change("update jobs set state = 'cancelled', worker = ? where id = ?", handle, job.id)

    def poll(_):
        raise error("no word of it")

    monkeypatch.setattr(supervisor, "launcher", SimpleNamespace(poll=poll))
    monkeypatch.setattr("tiebreak.service.troubles.MOST_TROUBLE_SECONDS", 0.0)
    for _ in range(30):
        supervisor.look()
    assert made.job(job).state == "cancelled"
    supervisor.close()


class _Doctor:
    """A doctor that is at work for one look, and whose word cannot be read as long as there are `errors`."""

    def __init__(self, errors):
        self._errors, self._looks = errors, 0

    @property
    def is_over(self):
        self._looks += 1
        return self._looks > 1

    def result(self, names, allow):
        if self._errors:
            raise self._errors.pop()
        return Examined(None)

    def end(self):
        pass


@pytest.mark.parametrize(
    ("error", "num", "state"), [(AttributeError, 50, "failed"), (AttributeError, 15, "queued"), (OSError, 50, "queued")]
)
def test_looks_that_go_well_in_between_do_not_hide_one_that_never_does(
    tmp_path, tiny_model, monkeypatch, caplog, error, num, state
):
    made = service(tmp_path / "service", tiny_model)
    job, supervisor = made.create(), made.supervisor()
    errors, begun = [error("no word") for _ in range(num)], []
    doctors = iter(lambda: _Doctor(errors), None)
    monkeypatch.setattr("tiebreak.service.supervisor.examine", lambda _: next(doctors))
    monkeypatch.setattr(supervisor, "_begin", begun.append)
    for _ in range(2 * num + 10):
        supervisor.look()
    assert (made.job(job).state, bool(begun)) == (state, state == "queued")
    assert caplog.text.count("no word") == 1
    supervisor.close()


def test_the_thread_begins_ends_and_leaves_its_workers_to_the_next(tmp_path, tiny_model):
    made = service(tmp_path / "service", tiny_model)
    hyper = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 50}}}
    job, first = made.create(method=hyper), made.supervisor()
    first.start()
    deadline = time.monotonic() + 60
    while not (made.folder(job) / "run").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.close()
    pid = signature(made.folder(job))["pid"]
    os.kill(pid, 0)
    second = made.supervisor()
    second.start()
    while "Step 3/" not in " ".join(made.messages(job)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (signature(made.folder(job))["pid"], made.job(job).read_to["starts"]) == (pid, 1)
    jobs.cancel(made.store, made.job(job))
    second.wake()
    while made.job(job).worker is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(("store", "kept"), [("auto", "{job}/prepared"), ("off", "off"), ("mine", "mine")])
def test_what_is_prepared_of_a_clients_file_is_kept_with_its_job_unless_the_operator_says_where(
    tmp_path, tiny_model, store, kept
):
    made = service(tmp_path / "service", tiny_model)
    [(name, base)] = made.models.items()
    base = base.model_copy(update={"data": base.data.model_copy(update={"store": store})})
    job = made.create()
    config = translate.configuration(made.store, {name: base}, made.settings, job)
    assert config.data.store == kept.format(job=made.folder(job))
