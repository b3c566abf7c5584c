"""What every request passes: bodies that cost much or come slowly, names said twice, full disks."""

from __future__ import annotations

import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import psutil
import pytest

from served import served
from tiebreak.service import answering, bodies, door, fine_tuning, jobs, parts, translate, uploads
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
    "as many as are read": (CHAT, _many(15_000), "messages.0"),
    "stops": (CHAT, SAID + b'"stop": [' + b"1," * 15_000 + b"1]}", "stop.0"),
    "deep": (CHAT, b'{"model": ' + b"[" * 2_000_000 + b"}", None),
    "empty lists": (CHAT, b'{"model": [' + b"[]," * 1_300_000 + b"1]}", None),
    "fields": (CHAT, SAID + _fields(15_000) + b"}", None),
    "metadata": (CHAT, SAID + b'"metadata": {' + _fields(15_000, "1") + b"}}", "metadata"),
    "a long text": (CHAT, b'{"model": "' + b"a" * 3 * MB + b'", "messages": []}', "model"),
    "a text that does not end": (CHAT, b'{"model": "' + rb"\"" * 1_500_000, None),
    "integrations": (JOBS, JOB + b'"integrations": [' + b"1," * 15_000 + b"1]}", "integrations.0"),
    "metadata of a job": (JOBS, JOB + b'"metadata": {' + _fields(15_000, "1") + b"}}", "metadata"),
    "parts": ("/uploads/upload_a/complete", b'{"part_ids": [' + b"1," * 15_000 + b"1]}", "part_ids.0"),
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


UNREAD = {
    "latin-1": SAID + b'"user": "\xe9"}',
    "utf-16": (SAID + b'"n": 1}').decode().encode("utf-16"),
    "digits": SAID + b'"seed": ' + b"9" * 5000 + b"}",
    "deep": SAID + b'"tools": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "less deep": SAID + b'"tools": ' + b"[" * 15_000 + b"]" * 15_000 + b"}",
    "cut off": SAID,
    "trailing": SAID + b'"n": 1} 5',
    "nothing": b" ",
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_cannot_be_read_as_json_is_told_so_and_by_no_field(service, name):
    answer = post(service, CHAT, UNREAD[name])
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_json", None), error


def test_others_are_answered_while_one_key_sends_large_bodies(service, monkeypatch):
    """They are read in a thread, and of each key one at a time."""
    at_once, most, read = 0, 0, bodies.parsed

    def slowly(*told):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.3)
        at_once -= 1
        return read(*told)

    monkeypatch.setattr(bodies, "parsed", slowly)
    large = {"model": "none", "messages": [{"role": "user", "content": "a" * (bodies.LARGE + 1)}]}
    with ThreadPoolExecutor(6) as threads:
        sent = [threads.submit(post, service, CHAT, large) for _ in range(6)]
        took = []
        while not all(one.done() for one in sent):
            since = time.monotonic()
            assert get(service, "/models").status_code == 200
            took.append(time.monotonic() - since)
    assert [one.result().status_code for one in sent] == [404] * 6
    assert most == 1
    assert sorted(took)[len(took) // 2] < 0.2


def test_in_an_address_of_azure_stands_the_model_where_the_body_has_none(service):
    messages, path = [{"role": "user", "content": "a"}], "/deployments/one/chat/completions"
    for body, status, code in (
        ({"messages": messages}, 404, "model_not_found"),
        ({"messages": messages, "model": "one"}, 404, "model_not_found"),
        ({"messages": messages, "model": "two"}, 400, "invalid_value"),
        ({"messages": messages, "model": None}, 400, "invalid_value"),
    ):
        answer = post(service, path, body)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (status, "model", code)
        assert "'one'" in error["message"]


def test_a_server_for_load_is_told_the_model_that_the_address_said():
    said = b'{ "model":"one",  "n": 1}'
    assert answering.named(said, "one") == said
    assert json.loads(answering.named(b'{"n": 1}', "one")) == {"model": "one", "n": 1}


def test_a_list_by_more_metadata_than_a_job_has_is_refused(service):
    names = [f"metadata[{number}]=a" for number in range(17)]
    assert get(service, f"{JOBS}?{'&'.join(names[:16])}").status_code == 200
    for many in (names, [f"metadata[{number}]=a" for number in range(500)]):
        answer = get(service, f"{JOBS}?{'&'.join(many)}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "metadata")


def test_a_conversation_of_many_texts_is_not_taken_for_many_values():
    text = 'a, [b], {c}, "d" and \\\\' * 100
    bodies.require_few_values(json.dumps({"messages": [{"role": "user", "content": text}] * 1600}).encode())


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


@pytest.mark.parametrize(
    ("sqlite", "status", "code", "waits"),
    [
        (sqlite3.SQLITE_BUSY, 503, "database_busy", "5"),
        (sqlite3.SQLITE_LOCKED_SHAREDCACHE, 503, "database_busy", "5"),
        (sqlite3.SQLITE_CORRUPT, 500, "database_damaged", None),
        (sqlite3.SQLITE_NOTADB, 500, "database_damaged", None),
        (sqlite3.SQLITE_MISMATCH, 500, None, None),
    ],
)
def test_a_database_that_cannot_be_used_is_told_by_what_is_wrong_with_it(
    service, monkeypatch, sqlite, status, code, waits
):
    error = sqlite3.DatabaseError("no")
    error.sqlite_errorcode = sqlite

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(jobs, "find", fail)
    answer = get(service, f"{JOBS}/ftjob-a")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers.get("retry-after") == waits
