"""Which models and checkpoints a client may ask for by name, and whose they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from job_service import model_settings
from tiebreak.config import build_config
from tiebreak.config.service import ServeConfig
from tiebreak.errors import RunError
from tiebreak.service import catalog, jobs, translate
from tiebreak.service.contract import JobRequest
from tiebreak.service.refusals import Refusal
from tiebreak.service.store import open_store, settle

BODY = {"model": "tiny", "training_file": "file-1"}
MODELS = {"tiny": build_config(model_settings("x"))}
RESOLVED = {"seed": 0, "method": "dpo", "hyperparameters": {}}


@pytest.fixture
def made(tmp_path):
    """A store with a job of one key, whose run keeps the weights of step 4."""
    store = open_store(tmp_path / "service")
    job = jobs.create(store, "key-one", BODY, RESOLVED)
    store.change("update jobs set state = 'running'")
    catalog.weights_at(store, job.id, 4).mkdir(parents=True)
    store.insert("checkpoints", {"id": "ftckpt_1", "job": job.id, "step": 4, "metrics": "{}", "at": 1})
    return store, jobs.find(store, job.id)


def settings(**told) -> ServeConfig:
    return ServeConfig.model_validate({"models": {"tiny": {"model": {"name": "x"}}}} | told)


def _asks(store, job, told, key="key-one"):
    return catalog.find(store, MODELS, told, key, catalog.checkpoint_name(told, job, 4))


def test_a_checkpoint_answers_while_its_job_runs_and_as_long_as_its_model_is_there(made):
    store, job = made
    assert _asks(store, job, settings()).step == 4
    catalog.add(store, settings(), job, store.job_folder(job.id) / "artefact")
    assert _asks(store, job, settings()).step == 4
    store.change("update models set deleted = 1")
    with pytest.raises(Refusal, match="does not exist"):
        _asks(store, job, settings())


def test_a_model_that_is_withheld_is_withheld_with_its_checkpoints(made):
    """Its last checkpoint has the weights that did not pass."""
    store, job = made
    with pytest.raises(Refusal, match="does not exist"):
        _asks(store, job, settings(promote="verdict"))
    catalog.add(store, settings(), job, store.job_folder(job.id) / "artefact")
    assert _asks(store, job, settings(promote="verdict")).step == 4


def test_a_checkpoint_of_another_key_is_none(made):
    store, job = made
    with pytest.raises(Refusal, match="does not exist"):
        _asks(store, job, settings(), key="key-two")


def test_what_was_made_of_a_model_that_is_not_offered_any_more_is_not_there_but_may_be_deleted(made):
    store, job = made
    name = catalog.add(store, settings(), job, store.job_folder(job.id) / "artefact")
    withdrawn = {"other": build_config(model_settings("x"))}
    assert [one.name for one in catalog.listed(store, MODELS, settings(), "key-one")] == [name, "tiny"]
    assert [one.name for one in catalog.listed(store, withdrawn, settings(), "key-one")] == ["other"]
    assert not catalog.may_be_asked(store, withdrawn, settings(), job)
    for gone in (name, catalog.checkpoint_name(settings(), job, 4), "tiny"):
        with pytest.raises(Refusal, match="does not exist") as refused:
            catalog.find(store, withdrawn, settings(), "key-one", gone)
        assert (refused.value.status, refused.value.code) == (404, "model_not_found")
    asked = JobRequest.model_validate({"model": name, "training_file": "file-1"})
    with pytest.raises(Refusal) as refused:
        translate.accepted(store, asked, withdrawn, settings(), "key-one")
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, "model", "model_not_found")
    with pytest.raises(Refusal, match="does not exist"):
        catalog.delete(store, withdrawn, settings(), "key-two", name)
    catalog.delete(store, withdrawn, settings(), "key-one", name)
    assert [one.name for one in catalog.listed(store, MODELS, settings(), "key-one")] == ["tiny"]


def test_a_model_is_found_where_the_service_was_moved_to(made, tmp_path):
    store, job = made
    name = catalog.add(store, settings(), job, store.job_folder(job.id) / "artefact")
    store.connection.close()
    moved = (tmp_path / "service").rename(tmp_path / "elsewhere")
    again = open_store(moved)
    found = catalog.find(again, MODELS, settings(), "key-one", name)
    assert found.folder == moved / "jobs" / job.id / "artefact"


def test_a_service_is_moved_only_when_its_jobs_have_ended(made, tmp_path):
    store, job = made
    settle(store)
    store.connection.close()
    moved = open_store((tmp_path / "service").rename(tmp_path / "elsewhere"))
    with pytest.raises(RunError, match="serve it there until they have"):
        settle(moved)
    jobs.cancel(moved, jobs.find(moved, job.id))
    settle(moved)
    settle(moved)


def test_a_service_is_where_it_is_whatever_folder_it_was_started_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_store(Path("service")).folder == tmp_path / "service"
