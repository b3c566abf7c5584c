"""Files in parts, as `client.uploads.upload_file_chunked` sends them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import threading

import httpx2
import openai
import pytest

from served import fill, served
from tiebreak.service import keys, parts, retention, uploads
from tiebreak.service.store import now

MB = 1 << 20


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "service"
    routers = [uploads.routes(), parts.routes(patience=1.0)]
    with served(folder, routers, limits={"file_mb": 80}, quotas={"gb": 0.3}) as here:
        yield here


@pytest.fixture
def client(service):
    return service.client(_strict_response_validation=True)


def begun(client, size=6, **told):
    return client.uploads.create(bytes=size, filename="a.jsonl", mime_type="text/jsonl", purpose="fine-tune", **told)


def on_disk(service) -> set[str]:
    return {path.name for path in service.store.files_folder.iterdir()}


@pytest.fixture
def nothing_left(service):
    """When the test has ended, no part and no half of a file is there that was not before."""
    before = {name for name in on_disk(service) if not name.startswith("file-")}
    yield
    assert {name for name in on_disk(service) if not name.startswith("file-")} == before


def test_the_client_sends_a_file_in_parts(service, client, tmp_path, nothing_left):
    content = random.Random(1).randbytes(3 * MB + 12_345)
    source = tmp_path / "pairs.jsonl"
    source.write_bytes(content)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    made = client.uploads.upload_file_chunked(
        file=source, mime_type="text/jsonl", purpose="fine-tune", part_size=MB, md5=md5
    )
    assert (made.status, made.bytes, made.file.filename) == ("completed", len(content), "pairs.jsonl")
    assert client.files.content(made.file.id).read() == content
    row = service.store.row("select * from files where id = ?", made.file.id)
    assert row["sha256"] == hashlib.sha256(content).hexdigest()
    assert client.files.retrieve(made.file.id) == made.file


def test_the_asynchronous_client_does_too(service, nothing_left):
    async def send():
        async with openai.AsyncOpenAI(base_url=service.address, api_key=service.token) as client:
            return await client.uploads.upload_file_chunked(
                file=b"abc" * 1000, filename="a", bytes=3000, mime_type="text/plain", purpose="fine-tune", part_size=999
            )

    assert asyncio.run(send()).file.bytes == 3000


def test_a_part_of_64_mb_is_taken_and_a_larger_one_is_not(service, client, nothing_left):
    upload = begun(client, 64 * MB)
    part = client.uploads.parts.create(upload_id=upload.id, data=b"x" * 64 * MB)
    with pytest.raises(openai.APIStatusError) as refusal:
        client.uploads.parts.create(upload_id=upload.id, data=b"x" * (64 * MB + 1))
    assert (refusal.value.status_code, refusal.value.param) == (413, "data")
    file = client.uploads.complete(upload.id, part_ids=[part.id]).file
    client.files.delete(file.id)


def test_parts_make_a_file_in_the_order_that_is_said_and_others_go(client, nothing_left):
    upload = begun(client, expires_after={"anchor": "created_at", "seconds": 3600})
    one, two, three = (client.uploads.parts.create(upload_id=upload.id, data=data) for data in (b"abc", b"def", b"gh"))
    assert (one.upload_id, one.object) == (upload.id, "upload.part")
    made = client.uploads.complete(upload.id, part_ids=[two.id, one.id])
    assert client.files.content(made.file.id).read() == b"defabc"
    assert made.file.expires_at - made.file.created_at == 3600
    assert client.uploads.complete(upload.id, part_ids=[two.id, one.id]) == made
    with pytest.raises(openai.BadRequestError) as refusal:
        client.uploads.parts.create(upload_id=upload.id, data=b"x")
    assert refusal.value.code == "invalid_state"
    with pytest.raises(openai.BadRequestError):
        client.uploads.cancel(upload.id)
    assert three.id not in (one.id, two.id)


def test_an_upload_that_is_completed_many_times_at_once_is_copied_once(service, client, nothing_left):
    size = 30 * MB
    upload = begun(client, size)
    part = client.uploads.parts.create(upload_id=upload.id, data=b"x" * size)
    before, most, over = (
        sum(path.stat().st_size for path in service.store.files_folder.iterdir()),
        [0],
        threading.Event(),
    )

    def watch():
        while not over.wait(0.005):
            found = 0
            for path in service.store.files_folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    found += path.stat().st_size
            most.append(found)

    watching = threading.Thread(target=watch)
    watching.start()
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(client.uploads.complete(upload.id, part_ids=[part.id])))
        for _ in range(24)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    watching.join()
    assert [one.file.id for one in made] == [made[0].file.id] * 24
    assert max(most) - before <= size + MB  # its parts are there already
    client.files.delete(made[0].file.id)


def test_what_does_not_make_the_file_is_refused_and_may_be_mended(client, nothing_left):
    upload, other = begun(client), begun(client)
    one, two = (client.uploads.parts.create(upload_id=upload.id, data=data) for data in (b"abc", b"def"))
    foreign = client.uploads.parts.create(upload_id=other.id, data=b"def")
    for ids in ([one.id], [one.id, one.id], [one.id, foreign.id], [one.id, "part_none"], []):
        with pytest.raises(openai.BadRequestError) as refusal:
            client.uploads.complete(upload.id, part_ids=ids)
        assert refusal.value.param == "part_ids"
    for md5 in ("0" * 32, "none", "é" * 32):
        with pytest.raises(openai.BadRequestError) as refusal:
            client.uploads.complete(upload.id, part_ids=[one.id, two.id], md5=md5)
        assert refusal.value.param == "md5"
    right = hashlib.md5(b"abcdef", usedforsecurity=False).hexdigest().upper()
    assert client.uploads.complete(upload.id, part_ids=[one.id, two.id], md5=right).status == "completed"
    client.uploads.cancel(other.id)


def test_a_cancelled_upload_takes_and_makes_nothing_more(client, nothing_left):
    upload = begun(client)
    part = client.uploads.parts.create(upload_id=upload.id, data=b"abcdef")
    assert client.uploads.cancel(upload.id).status == "cancelled"
    assert client.uploads.cancel(upload.id).status == "cancelled"
    for ask in (
        lambda: client.uploads.parts.create(upload_id=upload.id, data=b"x"),
        lambda: client.uploads.complete(upload.id, part_ids=[part.id]),
    ):
        with pytest.raises(openai.BadRequestError, match="cancelled"):
            ask()


def test_an_upload_expires_after_an_hour_and_its_parts_are_swept(service, client, nothing_left):
    upload = begun(client)
    assert upload.expires_at - upload.created_at == 3600
    part = client.uploads.parts.create(upload_id=upload.id, data=b"abcdef")
    service.store.change("update uploads set expires = ? where id = ?", now(), upload.id)
    for ask in (
        lambda: client.uploads.parts.create(upload_id=upload.id, data=b"x"),
        lambda: client.uploads.complete(upload.id, part_ids=[part.id]),
        lambda: client.uploads.cancel(upload.id),
    ):
        with pytest.raises(openai.BadRequestError, match="expired"):
            ask()
    assert [(one.kind, one.bytes) for one in retention.sweep(service.store, service.settings)] == [("upload", 6)]
    assert service.store.row("select status from uploads where id = ?", upload.id)[0] == "expired"


def test_the_same_completion_sent_twice_at_once_makes_one_file(service, client, nothing_left):
    for _ in range(5):
        upload = begun(client, 4 * MB)
        ids = [client.uploads.parts.create(upload_id=upload.id, data=b"x" * MB).id for _ in range(4)]
        made, faults = [], []

        def complete(upload=upload, ids=ids, made=made, faults=faults):
            try:
                made.append(client.uploads.complete(upload.id, part_ids=ids).file.id)
            except openai.OpenAIError as error:
                faults.append(error)

        threads = [threading.Thread(target=complete) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []
        assert len({*made}) == 1
        client.files.delete(made[0])


def test_parts_count_for_the_quota_of_bytes(service, nothing_left):
    client = service.client(keys.add(service.store, "small", {"gb": 3 / 1024})[1])
    upload = begun(client, 2 * MB)
    for _ in range(3):
        client.uploads.parts.create(upload_id=upload.id, data=b"x" * MB)
    for ask in (
        lambda: client.uploads.parts.create(upload_id=upload.id, data=b"x"),
        lambda: begun(client, 4 * MB),
        lambda: client.files.create(file=b"x", purpose="fine-tune"),
    ):
        with pytest.raises(openai.RateLimitError) as refusal:
            ask()
        assert refusal.value.code == "insufficient_quota"
    client.uploads.cancel(upload.id)
    client.files.create(file=b"x", purpose="fine-tune")


def test_an_upload_that_is_cancelled_on_a_full_disk_gives_its_parts_up_and_no_other_key_s(
    service, client, nothing_left, monkeypatch
):
    upload = begun(client)
    part = client.uploads.parts.create(upload_id=upload.id, data=b"abc")
    path = service.store.file_path(part.id)
    other = service.client(keys.add(service.store, "a stranger")[1])
    with monkeypatch.context() as patch:
        fill(patch, room=lambda: not path.exists())
        with pytest.raises(openai.NotFoundError):
            other.uploads.cancel(upload.id)
        assert path.exists()
        assert client.uploads.cancel(upload.id).status == "cancelled"
    assert not path.exists()


def test_an_upload_that_took_too_long_makes_room_on_a_full_disk(service, client, nothing_left, monkeypatch):
    upload = begun(client)
    part = client.uploads.parts.create(upload_id=upload.id, data=b"abc")
    service.store.change("update uploads set expires = ? where id = ?", now(), upload.id)
    with pytest.raises(openai.BadRequestError, match="is expired and cannot be added to"):
        client.uploads.parts.create(upload_id=upload.id, data=b"abc")
    with pytest.raises(openai.BadRequestError, match="is expired and cannot be completed"):
        client.uploads.complete(upload.id, part_ids=[part.id])
    with pytest.raises(openai.BadRequestError, match="is expired and cannot be cancelled"):
        client.uploads.cancel(upload.id)
    path = service.store.file_path(part.id)
    with monkeypatch.context() as patch:
        fill(patch)
        [told] = retention.sweep(service.store, service.settings)
        assert "cannot be removed" in told.why
        fill(patch, room=lambda: not path.exists())
        retention.sweep(service.store, service.settings)
    assert not path.exists()
    retention.sweep(service.store, service.settings)
    assert service.store.row("select status from uploads where id = ?", upload.id)["status"] == "expired"


def test_a_key_has_a_hundred_uploads_at_once_and_those_that_ended_are_forgotten(service):
    key, token = keys.add(service.store, "many")
    client = service.client(token, max_retries=0)
    uploads_ = [begun(client) for _ in range(100)]
    with pytest.raises(openai.RateLimitError) as refusal:
        begun(client)
    assert refusal.value.code == "rate_limit_exceeded"
    client.uploads.cancel(uploads_[0].id)
    last = begun(client)
    sql = "select count(*) from uploads where key = ?"
    assert service.store.row(sql, key.id)[0] == 101
    service.store.change("update uploads set expires = ? where key = ?", now(), key.id)
    retention.sweep(service.store, service.settings)
    assert service.store.row(sql, key.id)[0] == 101
    service.store.change("update uploads set expires = ? where key = ?", now() - retention.GRACE, key.id)
    assert ("upload", "101 rows") in [(one.kind, one.id) for one in retention.sweep(service.store, service.settings)]
    assert service.store.row(sql, key.id)[0] == 0
    with pytest.raises(openai.NotFoundError):
        client.uploads.cancel(last.id)


def test_an_upload_of_another_key_is_not_there(service, client):
    upload = begun(client)
    other = service.client(keys.add(service.store, "another")[1])
    for name in (upload.id, "upload_none", "../x", "%2e%2e"):
        for ask in (
            lambda name=name: other.uploads.parts.create(upload_id=name, data=b"x"),
            lambda name=name: other.uploads.complete(name, part_ids=["part_1"]),
            lambda name=name: other.uploads.cancel(name),
        ):
            with pytest.raises(openai.NotFoundError):
                ask()
    client.uploads.cancel(upload.id)


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("bytes", -1, 400),
        ("bytes", 0, 400),
        ("bytes", "6", 400),
        ("bytes", 80 * MB + 1, 413),
        ("bytes", 10**30, 413),
        ("filename", "../a", 400),
        ("filename", "", 400),
        ("filename", "a\nb", 400),
        ("filename", None, 400),
        ("mime_type", "a\r\nb: c", 400),
        ("mime_type", "", 400),
        ("purpose", "assistants", 400),
        ("expires_after", {"anchor": "now", "seconds": 3600}, 400),
        ("expires_after", {"anchor": "created_at", "seconds": 1}, 400),
        ("expires_after", {"anchor": "created_at"}, 400),
        ("model", "x", 400),
    ],
)
def test_what_an_upload_cannot_be_is_refused(service, field, value, status):
    body = {"bytes": 6, "filename": "a", "mime_type": "text/plain", "purpose": "fine-tune"} | {field: value}
    headers = {"authorization": f"Bearer {service.token}"}
    answer = httpx2.post(f"{service.address}/uploads", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"].startswith(field)


def test_a_surrogate_in_json_is_refused_and_no_fault_of_the_server(service):
    body = b'{"bytes": 6, "filename": "\\ud800", "mime_type": "text/plain", "purpose": "fine-tune"}'
    headers = {"authorization": f"Bearer {service.token}", "content-type": "application/json"}
    answer = httpx2.post(f"{service.address}/uploads", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "filename"
    body = {"bytes": 6, "filename": "a", "mime_type": "text/plain", "purpose": "fine-tune"}
    upload = httpx2.post(f"{service.address}/uploads", json=body, headers=headers).json()["id"]
    for asked in (b'{"part_ids": ["\\ud800"]}', b'{"part_ids": ["part_1"], "md5": "\\ud800"}'):
        answer = httpx2.post(f"{service.address}/uploads/{upload}/complete", content=asked, headers=headers)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "part_ids"


def test_an_empty_part_is_refused(client, nothing_left):
    upload = begun(client)
    with pytest.raises(openai.BadRequestError, match="empty"):
        client.uploads.parts.create(upload_id=upload.id, data=("a", b""))
    client.uploads.cancel(upload.id)


def test_what_fails_while_parts_are_joined_leaves_them_for_another_try(service, client, nothing_left):
    upload = begun(client)
    ids = [client.uploads.parts.create(upload_id=upload.id, data=data).id for data in (b"abc", b"def")]
    away = service.store.folder / "away"
    service.store.file_path(ids[1]).rename(away)
    with pytest.raises(openai.InternalServerError):
        service.client(max_retries=0).uploads.complete(upload.id, part_ids=ids)
    away.rename(service.store.file_path(ids[1]))
    assert client.uploads.complete(upload.id, part_ids=ids).file.bytes == 6
