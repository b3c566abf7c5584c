"""The addresses of jobs: what a client says is told in its own words, and said twice it is one job."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from fastapi import FastAPI

from job_service import model_settings, service
from tiebreak.errors import ConfigError
from tiebreak.service import fine_tuning, jobs, keys, retention, shelf, translate
from tiebreak.service.door import Service, answer_errors
from tiebreak.service.store import now


@pytest.fixture
def made(tmp_path):
    """A service that offers a model which nobody loads, and what posts a body to it, or asks where there is none."""
    here = service(tmp_path / "service", tmp_path)
    key, token = keys.add(here.store, "somebody")
    here.key = key.id
    app = FastAPI()
    app.state.service = Service(here.store, here.settings, here.models, None)
    answer_errors(app)
    app.include_router(fine_tuning.routes(), prefix="/v1")

    def post(body=None, path="", **headers):
        async def sent():
            head = {"authorization": f"Bearer {token}", **headers}
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://x/v1", headers=head) as client:
                if body is None:
                    return await client.get(f"/fine_tuning/jobs{path}")
                return await client.post(f"/fine_tuning/jobs{path}", json=body)

        return asyncio.run(sent())

    return here, post


NUMBERS = {"n_epochs": 3, "batch_size": 5, "learning_rate_multiplier": 7.0, "beta": 0.7}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("kind", ["dpo", "supervised", None])
def test_a_number_that_the_operator_s_settings_do_not_admit_is_told_by_the_client_s_field(
    made, monkeypatch, name, kind
):
    if name == "beta" and kind != "dpo":
        return
    here, post = made
    numbers = {other: value for other, value in NUMBERS.items() if other != "beta" or kind == "dpo"}
    section, _, setting = translate.SETTINGS[name].partition(".")
    build, rate = translate.build_config, model_settings(here.store.folder)["training"]["learning_rate"]
    wrong = NUMBERS[name] * (rate if name == "learning_rate_multiplier" else 1)

    def strict(tree, where):
        if tree[section][setting] == wrong:
            raise ConfigError(f"{where}: {section}.{setting}: found {wrong}; input should be less")
        return build(tree, where=where)

    monkeypatch.setattr(translate, "build_config", strict)
    body = {"model": "tiny", "training_file": here.upload(b"{}\n")}
    block = {"hyperparameters": numbers}
    answer = post(body | (block if kind is None else {"method": {"type": kind, kind: block}}))
    param = f"hyperparameters.{name}" if kind is None else f"method.{kind}.hyperparameters.{name}"
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert error["message"].startswith(f"{param}: found {NUMBERS[name]:g}")
    assert section not in error["message"].replace(param, "")


def test_a_rate_that_no_run_takes_is_told_by_what_it_makes(made):
    here, post = made
    told = {"type": "dpo", "dpo": {"hyperparameters": {"learning_rate_multiplier": 1000, "n_epochs": 2}}}
    error = post({"model": "tiny", "training_file": here.upload(b"{}\n"), "method": told}).json()["error"]
    assert error["param"] == "method.dpo.hyperparameters.learning_rate_multiplier"
    assert error["message"] == (
        "method.dpo.hyperparameters.learning_rate_multiplier: found 1000, a learning rate of 5 here; input should be "
        "less than 1"
    )


@pytest.mark.parametrize("end", ["deleted", "expired"])
def test_a_create_that_is_sent_again_is_the_job_that_exists_also_where_its_file_is_gone(made, end):
    here, post = made
    file = here.upload(b"{}\n")
    body = {"model": "tiny", "training_file": file, "method": {"type": "dpo"}}
    first = post(body)
    assert first.status_code == 200
    if end == "deleted":
        shelf.delete(here.store, shelf.find(here.store, file))
    else:
        here.store.change("update files set expires = ?", now())
        retention.sweep(here.store, here.settings)
    again = post(body, **{"x-stainless-retry-count": "1"})
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert post(body).json()["error"]["code"] == "file_not_found"
    assert post(body | {"seed": 5}, **{"x-stainless-retry-count": "1"}).json()["error"]["code"] == "file_not_found"


def test_events_that_are_read_in_pages_while_a_job_runs_have_no_gap_and_no_double(made):
    here, post = made
    job = post({"model": "tiny", "training_file": here.upload(b"{}\n"), "method": {"type": "dpo"}}).json()["id"]
    for number in range(30):
        jobs.note(here.store, job, f"Step {number}", once=f"step-{number}")
    before = [row["id"] for row in here.store.rows("select id from events where job = ? order by seq desc", job)]
    seen, more = [], {"has_more": True}
    while more["has_more"]:
        behind = f"&after={seen[-1]}" if seen else ""
        more = post(path=f"/{job}/events?limit=7{behind}").json()
        seen += [event["id"] for event in more["data"]]
        for number in range(9):  # more of them than a page holds, also some that were told
            jobs.note(here.store, job, "Later", once=f"later-{len(seen)}-{number}")
            jobs.note(here.store, job, f"Step {number}", once=f"step-{number}")
    assert seen == before


def test_a_key_that_is_revoked_asks_no_more_and_its_jobs_go_on(made):
    here, post = made
    body = {"model": "tiny", "training_file": here.upload(b"{}\n"), "method": {"type": "dpo"}}
    job = post(body).json()["id"]
    keys.revoke(here.store, "somebody")
    for answer in (post(body), post({}, path=f"/{job}/cancel"), post(path=f"/{job}")):
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    supervisor = here.supervisor()
    supervisor.look()
    assert jobs.find(here.store, job).state == jobs.VALIDATING
    assert (here.store.job_folder(job) / "config.yaml").exists()
    supervisor.close()
