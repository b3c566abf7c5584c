"""From a file of pairs to a chat with the model, by OpenAI's clients, over HTTP, through the command that serves."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import openai
import pytest

from job_service import lines, model_settings
from served_by_command import Operated, operated
from tiebreak.engine.answers.answerer import Chat, Sampling
from tiebreak.errors import one_line
from tiebreak.records import Message, TokenizedThumb
from tiebreak.service.talk import held

PATIENCE = 900  # a worker stands back behind all else that runs
ENDED = ("succeeded", "failed", "cancelled")
DPO = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 2, "batch_size": 4}}}
USER = {"role": "user", "content": "the cat sat"}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def service(tiny_model, tmp_path_factory):
    with operated(tmp_path_factory.mktemp("served"), {"tiny": model_settings(tiny_model)}) as found:
        yield found


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_bytes(lines(range(33)))
    return path


def _until(client, job, *states):
    until = time.monotonic() + PATIENCE
    while (found := client.fine_tuning.jobs.retrieve(job)).status not in states:
        assert time.monotonic() < until, found
        assert found.status not in ENDED, found
        time.sleep(0.1)
    return found


def test_a_job_is_made_followed_paused_resumed_asked_and_forgotten(service: Operated, pairs):
    client = service.client()
    file = client.files.create(file=pairs, purpose="fine-tune")
    assert client.files.wait_for_processing(file.id).status == "processed"
    longer = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 20, "batch_size": "auto"}}}
    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=file.id, method=longer, suffix="story", metadata={"a": "b"}, seed=7
    )
    assert job.status == "validating_files"
    assert job.method.dpo.hyperparameters.to_dict() == {
        "n_epochs": 20, "batch_size": 4, "learning_rate_multiplier": 1.0, "beta": 0.2,
    }  # fmt: skip
    client.files.delete(file.id)  # the job has what it needs

    _until(client, job.id, "running")
    until = time.monotonic() + PATIENCE
    while not client.fine_tuning.jobs.checkpoints.list(job.id).data:
        assert time.monotonic() < until
        time.sleep(0.1)
    client.fine_tuning.jobs.pause(job.id)
    _until(client, job.id, "paused")
    assert client.fine_tuning.jobs.pause(job.id).status == "paused"
    assert client.fine_tuning.jobs.resume(job.id).status in ("queued", "running")
    with pytest.raises(openai.BadRequestError, match="cannot be resumed"):
        client.fine_tuning.jobs.resume(job.id)
    done = _until(client, job.id, "succeeded")
    assert done.fine_tuned_model == f"ft:tiny:tiebreak:story:{job.id[-8:]}"
    assert done.trained_tokens > 0
    assert done.finished_at >= done.created_at

    _events_are_whole(client, job.id)
    _checkpoints_can_be_asked(client, job.id)
    _results_are_files(client, done)
    _chat_is_the_model_that_was_trained(service, client, done)

    assert client.models.retrieve(done.fine_tuned_model).owned_by == "tiebreak"
    assert [one.id for one in client.models.list()] == [done.fine_tuned_model, "tiny"]
    assert client.models.delete(done.fine_tuned_model).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=done.fine_tuned_model, messages=[USER])


def _events_are_whole(client, job):
    """Pages of two hold each event once, and each step is told once."""
    paged = list(client.fine_tuning.jobs.list_events(job, limit=2))
    assert [one.id for one in paged] == [one.id for one in client.fine_tuning.jobs.list_events(job, limit=100)]
    assert len({one.id for one in paged}) == len(paged)
    steps = [one.data["step"] for one in reversed(paged) if one.type == "metrics" and "train_loss" in one.data]
    assert steps == list(range(1, max(steps) + 1))
    said = [one.message for one in reversed(paged)]
    assert said[0] == f"Created fine-tuning job: {job}"
    assert said[-1] == "The job has successfully completed"
    assert any(one.startswith("The verdict is") for one in said)
    assert "The job has been resumed." in said


def _checkpoints_can_be_asked(client, job):
    found = client.fine_tuning.jobs.checkpoints.list(job)
    assert found.data
    assert found.data == [*client.fine_tuning.jobs.checkpoints.list(job, limit=1)]
    assert [one.step_number for one in found.data] == sorted((one.step_number for one in found.data), reverse=True)
    for one in found.data:
        answer = client.chat.completions.create(
            model=one.fine_tuned_model_checkpoint, messages=[USER], max_tokens=3, temperature=0
        )
        assert answer.usage.completion_tokens <= 3
        assert one.metrics.step == one.step_number


def _results_are_files(client, job):
    named = {client.files.retrieve(one).filename: one for one in job.result_files}
    assert sorted(named) == ["evaluation.json", "report.html", "step_metrics.csv"]
    rows = list(csv.reader(io.StringIO(client.files.content(named["step_metrics.csv"]).text)))
    assert rows[0][0] == "step"
    assert all(cell == "" or float(cell) is not None for row in rows[1:] for cell in row)
    assert json.loads(client.files.content(named["evaluation.json"]).text)["verdict"] in (
        "pass",
        "fail",
        "inconclusive",
    )
    assert client.files.content(named["report.html"]).text.startswith("<!doctype html>")


def _chat_is_the_model_that_was_trained(service, client, job):
    """The log-probabilities of an answer are those of the scorer, on the artefact."""
    told = {"model": job.fine_tuned_model, "messages": [USER], "max_tokens": 8, "temperature": 0}
    [choice] = client.chat.completions.create(**told, logprobs=True, top_logprobs=2).choices
    folder = service.store.row("select folder from models where name = ?", job.fine_tuned_model)["folder"]
    model = held({"kind": "base", "settings": {"name": folder, "device": "cpu"}}).model
    chat = Chat((Message("user", "the cat sat"),))
    [answer] = model.answer([chat], Sampling(8))
    assert choice.message.content == answer.text
    prompt = model.prompt_ids(chat, Sampling(8))
    ids = (*answer.ids, *model.eos_ids[:1]) if answer.finished else answer.ids
    scored = model.score([TokenizedThumb("one", "prompt", prompt, ids, True)]).values.tolist()
    assert [one.logprob for one in choice.logprobs.content] == pytest.approx(scored[: len(answer.ids)], abs=1e-4)
    stream = client.chat.completions.create(**told, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == answer.text


def test_the_asynchronous_client_does_the_same(service: Operated, pairs):
    async def story():
        async with openai.AsyncOpenAI(base_url=service.url, api_key=service.token) as client:
            file = await client.files.create(file=pairs, purpose="fine-tune")
            job = await client.fine_tuning.jobs.create(model="tiny", training_file=file.id, method=DPO)
            until = time.monotonic() + PATIENCE
            while (job := await client.fine_tuning.jobs.retrieve(job.id)).status not in ENDED:
                assert time.monotonic() < until
                await asyncio.sleep(0.1)
            assert job.status == "succeeded", job.error
            events = [event async for event in client.fine_tuning.jobs.list_events(job.id, limit=3)]
            assert events[0].message == "The job has successfully completed"
            told = {"model": job.fine_tuned_model, "messages": [USER], "max_tokens": 4}
            answers = await asyncio.gather(*(client.chat.completions.create(**told, seed=one) for one in range(3)))
            assert all(one.object == "chat.completion" for one in answers)

    asyncio.run(story())


def test_azures_client_does_the_same(service: Operated, pairs):
    client = openai.AzureOpenAI(
        azure_endpoint=service.url.removesuffix("/v1"), api_key=service.token, api_version="2025-04-01-preview"
    )
    file = client.files.create(file=pairs, purpose="fine-tune")
    created = client.fine_tuning.jobs.with_raw_response.create(model="tiny", training_file=file.id, method=DPO)
    assert created.http_response.status_code == 201
    assert created.headers["location"].startswith(f"/openai/fine_tuning/jobs/{created.parse().id}?api-version=")
    assert created.parse().status == "pending"
    job = _until(client, created.parse().id, "succeeded")
    answer = client.chat.completions.create(model=job.fine_tuned_model, messages=[USER], max_tokens=4)
    assert answer.model == job.fine_tuned_model
    client.delete(f"/fine_tuning/jobs/{job.id}", cast_to=type(None))
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.retrieve(job.id)


def test_demonstrations_are_trained_on_and_a_model_is_trained_further(service: Operated, tmp_path):
    client = service.client()
    said = [(f"{number} the cat", f"yes {number % 5}") for number in range(40)]
    rows = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": told}]}
        for asked, told in said
    ]
    path = tmp_path / "shown.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    file = client.files.create(file=path, purpose="fine-tune")
    first = client.fine_tuning.jobs.create(model="tiny", training_file=file.id)
    assert first.method.type == "supervised"
    first = _until(client, first.id, "succeeded")
    path.write_bytes(lines(range(33)))
    file = client.files.create(file=path, purpose="fine-tune")
    second = client.fine_tuning.jobs.create(model=first.fine_tuned_model, training_file=file.id, method=DPO)
    second = _until(client, second.id, "succeeded")
    assert second.fine_tuned_model.startswith("ft:tiny:tiebreak::")
    run = service.store.job_folder(second.id) / "run"
    assert str(service.store.job_folder(first.id)) in (run / "config.yaml").read_text(encoding="utf-8")


def test_a_strict_client_reads_every_answer_but_paused(service: Operated, pairs):
    client = service.client(_strict_response_validation=True)
    file = client.files.create(file=pairs, purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600})
    job = client.fine_tuning.jobs.create(model="tiny", training_file=file.id, method=DPO, validation_file=None)
    client.fine_tuning.jobs.retrieve(job.id)
    [*client.fine_tuning.jobs.list(limit=1)][:3]
    client.fine_tuning.jobs.list_events(job.id)
    client.fine_tuning.jobs.checkpoints.list(job.id)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    client.files.list(limit=1)
    client.models.list()
    with pytest.raises(openai.BadRequestError, match="cancelled and cannot be paused") as refused:
        client.fine_tuning.jobs.pause(job.id)
    assert refused.value.code == "invalid_state"
    assert refused.value.request_id.startswith("req_")


def test_the_client_for_node_does_the_same(service: Operated, pairs, tmp_path):
    node = shutil.which("node")
    package = Path(os.environ.get("TIEBREAK_NODE_MODULES", ROOT / "node_modules")) / "openai"
    if node is None or not package.is_dir():
        pytest.skip(
            "node with its package openai is not here (npm install openai; TIEBREAK_NODE_MODULES names a folder)"
        )
    (tmp_path / "node_modules").symlink_to(package.parent)
    shutil.copy(ROOT / "examples" / "client.mjs", tmp_path)
    told = {"OPENAI_BASE_URL": service.url, "OPENAI_API_KEY": service.token, "MODEL": "tiny"}
    done = subprocess.run(
        [node, "client.mjs", str(pairs)], cwd=tmp_path, env={**os.environ, **told}, capture_output=True, text=True,
        check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, one_line(done.stderr)
    assert "The job has successfully completed" in done.stdout
    assert "ft:tiny:tiebreak::" in done.stdout
