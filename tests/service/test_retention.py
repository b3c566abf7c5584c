"""What has had its time goes, what is needed stays, and a dry run says what would go and touches nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from served import settings_of, wait
from tiebreak.service import catalog, jobs, parts, retention, shelf, translate
from tiebreak.service.store import Store, now, open_store

DAY = 86_400
SETTINGS = settings_of(limits={"retention_days": 30})


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "service")


def tree(store) -> dict[str, bytes]:
    return {
        str(path.relative_to(store.folder)): path.read_bytes()
        for inner in (store.files_folder, store.jobs_folder)
        for path in inner.rglob("*")
        if path.is_file()
    }


def kept(store, content=b"x" * 100, expires=None):
    source = store.folder / "source"
    source.write_bytes(content)
    file = shelf.keep(store, "key-1", "fine-tune", "a.jsonl", source, expires=expires)
    source.unlink()
    return file


def made(store, *, ended_days_ago=None, model="tiny", training=None):
    """A job with all that its folder holds; one that ended has a model with a name."""
    training = training or kept(store)
    body = {"model": model, "training_file": training.id}
    job = jobs.create(store, "key-1", body, {"seed": 1, "method": "dpo", "hyperparameters": {}})
    translate.lay_out(store, job)
    folder = store.job_folder(job.id)
    for name in ("config.yaml", "worker.log", "run/run.json", "run/checkpoints/step-00000001/policy/a.safetensors",
                 "artefact/model.safetensors", "artefact/README.md"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"y" * 10)
    if ended_days_ago is not None:
        jobs.move(store, job.id, jobs.OPEN, jobs.SUCCEEDED)
        store.change("update jobs set finished = ? where id = ?", now() - ended_days_ago * DAY - 10, job.id)
        catalog.add(store, SETTINGS, jobs.find(store, job.id), folder / "artefact")
    return jobs.find(store, job.id)


def swept(store, **told):
    """Sweep, and require that a dry run before it said the same and changed nothing."""
    before, database = tree(store), [*store.connection.iterdump()]
    said = retention.sweep(store, SETTINGS, dry_run=True, **told)
    assert retention.expired(store, SETTINGS, **told) == said
    assert tree(store) == before
    assert [*store.connection.iterdump()] == database
    done = retention.sweep(store, SETTINGS, **told)
    assert done == said
    assert retention.sweep(store, SETTINGS, **told) == []
    freed = sum(map(len, before.values())) - sum(map(len, tree(store).values()))
    return done, freed


def test_what_is_in_use_stays(store):
    made(store)
    made(store, ended_days_ago=29)
    kept(store, expires=now() + 100)
    before = tree(store)
    assert swept(store) == ([], 0)
    assert tree(store) == before


def test_a_file_goes_when_it_has_expired_and_its_row_stays(store):
    stays, goes = kept(store), kept(store, expires=now())
    done, freed = swept(store)
    assert [(one.kind, one.id, one.bytes) for one in done] == [("file", goes.id, 100)]
    assert freed == 100
    assert store.row("select deleted from files where id = ?", goes.id)["deleted"] is not None
    assert shelf.find(store, stays.id) == stays


def test_a_job_keeps_reading_a_file_that_went(store):
    file = kept(store, b"pairs", expires=now() + 100)
    job = made(store, training=file)
    store.change("update files set expires = ?", now())
    done, _ = swept(store)
    assert [(one.kind, one.bytes) for one in done] == [("file", 0)]
    assert (store.job_folder(job.id) / "training.jsonl").read_bytes() == b"pairs"


def test_of_an_old_job_stays_the_model_that_has_a_name(store):
    job = made(store, ended_days_ago=31)
    done, freed = swept(store)
    assert [(one.kind, one.id, one.bytes) for one in done] == [("job", job.id, 40)]
    assert freed == 40 + 100  # its second name of the training file, which frees nothing
    folder = store.job_folder(job.id)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == [
        "artefact", "artefact/README.md", "artefact/model.safetensors",
    ]  # fmt: skip
    assert jobs.find(store, job.id, "key-1").state == jobs.SUCCEEDED


@pytest.mark.parametrize("state", [jobs.FAILED, jobs.CANCELLED])
def test_an_old_job_without_a_model_goes_whole(store, state):
    job = made(store)
    jobs.move(store, job.id, jobs.OPEN, state)
    store.change("update jobs set finished = ?", now() - 31 * DAY)
    swept(store)
    assert not store.job_folder(job.id).exists()


def test_models_of_checkpoints_inside_of_the_run_stay_alone(store):
    job = made(store, ended_days_ago=31)
    inner = store.job_folder(job.id) / "run" / "checkpoints" / "step-00000001" / "policy"
    store.change("update models set folder = ?", str(inner))
    swept(store)
    folder = store.job_folder(job.id)
    assert [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()] == [
        "run/checkpoints/step-00000001/policy/a.safetensors"
    ]


def test_a_deleted_model_goes_unless_a_job_is_trained_from_it(store):
    base = made(store, ended_days_ago=1)
    learner = made(store, model=catalog.name_of(SETTINGS, base))
    store.change("update models set deleted = ?", now())
    assert swept(store) == ([], 0)
    store.change("update jobs set finished = ? where id = ?", now() - 31 * DAY, base.id)
    swept(store)
    assert (store.job_folder(base.id) / "artefact" / "model.safetensors").exists()
    assert not (store.job_folder(base.id) / "run").exists()
    jobs.cancel(store, learner)
    done, freed = swept(store)
    assert [(one.kind, one.id, one.bytes) for one in done] == [("model", catalog.name_of(SETTINGS, base), 20)]
    assert freed == 20
    assert not (store.job_folder(base.id) / "artefact").exists()


def test_a_deleted_model_stays_as_long_as_one_with_a_name_was_begun_with_it(store):
    """An adapter may lie on top of it, or on top of what that lies on."""
    first = made(store, ended_days_ago=1)
    second = made(store, ended_days_ago=1, model=catalog.name_of(SETTINGS, first))
    third = made(store, ended_days_ago=1, model=catalog.name_of(SETTINGS, second))
    store.change("update models set deleted = ? where job != ?", now(), third.id)
    assert swept(store) == ([], 0)
    store.change("update models set deleted = ?", now())
    assert [one.kind for one in swept(store)[0]] == ["model"] * 3


def test_a_folder_of_the_service_that_was_moved_loses_no_model(store, tmp_path, monkeypatch):
    """Its tables may name folders as they were called from elsewhere."""
    job = made(store, ended_days_ago=31)
    store.change("update models set folder = ?", f"service/jobs/{job.id}/artefact")
    elsewhere = tmp_path / "a" / "b"
    elsewhere.mkdir(parents=True)
    store.folder.rename(elsewhere / "moved")
    monkeypatch.chdir(elsewhere)
    moved = Store(Path("moved"))
    swept(moved)
    assert (moved.job_folder(job.id) / "artefact" / "model.safetensors").exists()
    assert not (moved.job_folder(job.id) / "run").exists()


def test_an_upload_that_was_not_completed_goes_with_its_parts(store):
    row = {"key": "key-1", "purpose": "fine-tune", "filename": "a", "bytes": 9, "mime_type": "a/b", "created": now()}
    for name, expires in (("upload_old", now()), ("upload_new", now() + 100)):
        store.insert("uploads", row | {"id": name, "status": parts.PENDING, "expires": expires})
        part = {"id": name.replace("upload", "part"), "upload": name, "bytes": 3, "sha256": "", "created": now()}
        store.insert("parts", part)
        store.file_path(part["id"]).write_bytes(b"abc")
    done, freed = swept(store)
    assert [(one.kind, one.id, one.bytes) for one in done] == [("upload", "upload_old", 3)]
    assert freed == 3
    assert store.file_path("part_new").exists()


def test_leftovers_go_after_an_hour_or_at_once_where_nobody_can_be_writing(store):
    file = kept(store)
    shelf.path_of(store, kept(store)).rename(store.file_path("file-unknown"))
    store.change("delete from files where id != ?", file.id)
    made_by_a_user = store.files_folder / "notes.txt"
    job = store.jobs_folder / "ftjob-unknown"
    for path in (shelf.new_part(store), store.file_path("part_unknown"), made_by_a_user, job / "run" / "a"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"z" * 5)
    assert swept(store) == ([], 0)
    old = time.time() - 3700
    os.utime(job, (old, old))
    os.utime(store.file_path("part_unknown"), (old, old))
    done, freed = swept(store)
    assert sorted(one.id for one in done) == ["ftjob-unknown", "part_unknown"]
    assert freed == 10
    done, freed = swept(store, alone=True)
    assert [one.kind for one in done] == ["leftover"] * 2
    assert freed == 105
    assert made_by_a_user.exists()
    assert shelf.path_of(store, file).exists()


def test_links_lead_nowhere_when_something_is_removed(store, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"x")
    job = made(store, ended_days_ago=31)
    (store.job_folder(job.id) / "run" / "link").symlink_to(outside)
    whole = made(store, ended_days_ago=31)
    store.change("update models set folder = ?, deleted = 1 where job = ?", str(outside), whole.id)
    (store.files_folder / ".part-link").symlink_to(outside)
    for _ in range(2):
        retention.sweep(store, SETTINGS, alone=True)
    assert (outside / "precious").read_bytes() == b"x"
    assert not (store.files_folder / ".part-link").is_symlink()


def test_what_cannot_be_removed_is_said_and_keeps_nothing_else(store, monkeypatch):
    stuck, other = made(store, ended_days_ago=31), made(store, ended_days_ago=31)
    expired = kept(store, expires=now())
    remove = retention.shutil.rmtree

    def refusing(path, **told):
        if stuck.id in str(path):
            raise PermissionError(13, "no", str(path))
        remove(path, **told)

    monkeypatch.setattr(retention.shutil, "rmtree", refusing)
    done = {one.id: one for one in retention.sweep(store, SETTINGS)}
    assert "cannot be removed" in done[stuck.id].why
    assert not (store.job_folder(other.id) / "run").exists()
    assert not shelf.path_of(store, expired).exists()
    monkeypatch.undo()
    assert [one.id for one in retention.sweep(store, SETTINGS)] == [stuck.id]


def test_a_server_sweeps_when_it_starts_and_while_it_runs(store):
    part, file = shelf.new_part(store), kept(store, expires=now() + 100)
    with retention.sweeping(store, SETTINGS, every=0.05):
        assert not part.exists()
        assert shelf.path_of(store, file).exists()
        store.change("update files set expires = ?", now())
        wait(lambda: not shelf.path_of(store, file).exists())


def test_what_went_has_a_form_for_json():
    gone = retention.Gone("file", "file-1", 3, "expired")
    assert gone.as_dict() == {"kind": "file", "id": "file-1", "bytes": 3, "why": "expired"}
