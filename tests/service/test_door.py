"""What every request passes: bodies that cost much or come slowly, names said twice, full disks."""

from __future__ import annotations

import json
import time

import httpx2
import psutil
import pytest

from served import served
from tiebreak.service import answering, door, fine_tuning, jobs, parts, translate, uploads
from tiebreak.service.refusals import Refusal

CHAT, JOBS = "/chat/completions", "/fine_tuning/jobs"
MB = 1 << 20


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    routers = [room.routes() for room in (answering, fine_tuning, parts, uploads)]
    with served(tmp_path_factory.mktemp("served") / "service", routers) as here:
        yield here


def post(service, path, body, token=None):
    told = {"content-type": "application/json", "authorization": f"Bearer {token or service.token}"}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx2.post(f"{service.address}{path}", content=content, headers=told, timeout=60)


def get(service, path):
    return httpx2.get(f"{service.address}{path}", headers={"authorization": f"Bearer {service.token}"}, timeout=60)


def _many(count):
    return b'{"model": "tiny", "messages": [' + b"1," * count + b"1]}"


def _fields(count, text='"a"'):
    return ", ".join(f'"f{number}": {text}' for number in range(count)).encode()


SAID = b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}], '
JOB = b'{"model": "tiny", "training_file": "a", '
COSTLY = {
    "a million numbers": (CHAT, _many(1_000_000), None),
    "as many as are read": (CHAT, _many(150_000), "messages.0"),
    "stops": (CHAT, SAID + b'"stop": [' + b"1," * 150_000 + b"1]}", "stop.0"),
    "deep": (CHAT, b'{"model": ' + b"[" * 2_000_000 + b"}", None),
    "empty lists": (CHAT, b'{"model": [' + b"[]," * 1_300_000 + b"1]}", None),
    "fields": (CHAT, SAID + _fields(100_000) + b"}", None),
    "metadata": (CHAT, SAID + b'"metadata": {' + _fields(100_000, "1") + b"}}", "metadata"),
    "a long text": (CHAT, b'{"model": "' + b"a" * 3 * MB + b'", "messages": []}', "model"),
    "a text that does not end": (CHAT, b'{"model": "' + rb"\"" * 1_500_000, None),
    "integrations": (JOBS, JOB + b'"integrations": [' + b"1," * 150_000 + b"1]}", "integrations.0"),
    "metadata of a job": (JOBS, JOB + b'"metadata": {' + _fields(30_000, "1") + b"}}", "metadata"),
    "parts": ("/uploads/upload_a/complete", b'{"part_ids": [' + b"1," * 150_000 + b"1]}", "part_ids.0"),
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_body_of_a_few_megabytes_is_refused_within_a_second_and_takes_no_memory(service, name):
    path, body, param = COSTLY[name]
    process = psutil.Process()
    post(service, path, {})
    before, began = process.memory_info().rss, time.process_time()
    answer = post(service, path, body)
    took = time.process_time() - began
    assert answer.status_code == 400
    assert len(answer.text) < 1000
    if param is not None:
        assert answer.json()["error"]["param"] == param
    assert took < 1.0
    assert process.memory_info().rss - before < 100 * MB


def test_without_a_key_no_body_is_read(service):
    for path in (CHAT, JOBS, "/uploads", "/uploads/upload_a/complete"):
        for body in (b"{", _many(1_000_000), b"{}", b""):
            answer = post(service, path, body, token="tbk-none")
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


def test_a_body_is_as_long_as_its_address_needs(service):
    padded = b'{"model": "tiny"' + b" " * 600 * 1024 + b"}"
    assert post(service, JOBS, padded).status_code == 413
    assert post(service, CHAT, padded).json()["error"]["param"] == "messages"
    assert post(service, CHAT, b" " * (4 * MB + 1)).status_code == 413


def test_a_conversation_of_many_texts_is_not_taken_for_many_values():
    text = 'a, [b], {c}, "d" and \\\\' * 100
    door.require_plain(json.dumps({"messages": [{"role": "user", "content": text}] * 1600}).encode())


def test_a_name_that_is_said_twice_is_refused_by_its_name(service):
    answer = post(service, JOBS, b'{"model": "tiny", "model": "other", "training_file": "a"}')
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
    answer = post(service, CHAT, b'{"model": "tiny", "messages": [{"role": "user", "content": "a", "role": "user"}]}')
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "role")
    for path, param in (
        (f"{JOBS}?limit=1&limit=2", "limit"),
        (f"{JOBS}?metadata[a]=1&metadata[a]=2", "metadata[a]"),
        (f"{JOBS}?metadata[=1", "metadata["),
        (f"{JOBS}?metadata[a=1", "metadata[a"),
        ("/files?after=a&after=b", "after"),
        ("/models?api-version=1&api-version=2", "api-version"),
    ):
        answer = get(service, path)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), path


def test_a_body_that_comes_slowly_is_given_up(service, monkeypatch):
    monkeypatch.setattr(door, "BODY_SECONDS", 0.5)
    with service.connect() as slow:
        head = f"POST /v1{JOBS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.token}\r\n"
        slow.sendall(head.encode() + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        since, got = time.monotonic(), b""
        while more := slow.recv(65536):
            got += more
            if b"}}" in got:
                break
    assert got.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - since < 5


def test_a_file_that_is_deleted_while_a_job_is_made_of_it_is_named(service, tmp_path):
    file = service.client().files.create(file=b"{}", purpose="fine-tune")
    body = {"model": "tiny", "training_file": file.id}
    job = jobs.create(service.store, service.key.id, body, {})
    service.client().files.delete(file.id)
    with pytest.raises(Refusal) as refusal:
        translate.lay_out(service.store, job)
    assert (refusal.value.status, refusal.value.param) == (400, "training_file")
