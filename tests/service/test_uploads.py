"""Files over HTTP: streamed, counted, refused in the middle, and never a path."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import socket
import subprocess
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

import httpx2
import openai
import pytest
from openai.types import FileObject

from served import served, served_apart, wait
from tiebreak.service import keys, retention, uploads

MB = 1 << 20
BOUNDARY = "b0undary"


def form(*parts: tuple[str, str | bytes] | tuple[str, str, bytes]) -> bytes:
    """A form, written by hand: (name, text) is a field, (name, filename, bytes) a file."""
    body = b""
    for name, *rest in parts:
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'.encode()
        if len(rest) == 2:
            body += f'; filename="{rest[0]}"\r\nContent-Type: application/octet-stream'.encode()
        content = rest[-1] if isinstance(rest[-1], bytes) else rest[-1].encode()
        body += b"\r\n\r\n" + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


FILE, PURPOSE = ("file", "a.jsonl", b"{}\n"), ("purpose", "fine-tune")
ANCHOR, SECONDS = ("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "3600")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "service"
    with served(folder, [uploads.routes(patience=1.0)], limits={"file_mb": 1}) as here:
        yield here


def post(service, body, token=None, path="/files", **headers):
    told = {"authorization": f"Bearer {token or service.token}"}
    told["content-type"] = f"multipart/form-data; boundary={BOUNDARY}"
    return httpx2.post(f"{service.address}{path}", content=body, headers=told | headers, timeout=30)


def get(service, path, token=None):
    url = service.address.removesuffix("/v1") + path
    return httpx2.get(url, headers={"authorization": f"Bearer {token or service.token}"})


def refused(answer, status, param=None):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert "\n" not in error["message"]
    assert answer.headers["x-request-id"]
    return error["message"]


def count(service) -> int:
    return service.store.row("select count(*) from files")[0]


def head(service, length: int | None = None, more: str = "") -> bytes:
    size = f"Content-Length: {length}" if length is not None else "Transfer-Encoding: chunked"
    return (
        f"POST /v1/files HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {service.token}\r\n{size}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n{more}\r\n"
    ).encode()


def read_all(connection: socket.socket) -> bytes:
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            got += data
    return got


def test_the_client_sends_finds_lists_reads_and_deletes_a_file(service):
    client = service.client()
    strict = service.client(_strict_response_validation=True)
    content = b'{"a": 1}\r\n' * 1000
    file = strict.files.create(
        file=("ein Name.jsonl", content), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 7200}
    )
    assert isinstance(file, FileObject)
    assert (file.bytes, file.filename, file.status) == (len(content), "ein Name.jsonl", "processed")
    assert file.expires_at == file.created_at + 7200
    assert strict.files.retrieve(file.id) == file
    assert client.files.wait_for_processing(file.id) == file
    assert client.files.content(file.id).read() == content
    second = client.files.create(file=b"x", purpose="fine-tune")
    listed = [one.id for one in strict.files.list(limit=1)]
    assert listed[:2] == [second.id, file.id]
    assert [one.id for one in client.files.list(order="asc", after=file.id)] == [second.id]
    assert client.files.delete(file.id).deleted
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(file.id)
    assert not service.store.file_path(file.id).exists()


def test_the_client_of_azure_is_answered_too(service):
    client = openai.AzureOpenAI(
        azure_endpoint=f"http://127.0.0.1:{service.port}", api_key=service.token, api_version="2025-04-01-preview"
    )
    made = client.files.with_raw_response.create(file=b"abc", purpose="fine-tune")
    file = made.parse()
    assert made.status_code == 201
    assert made.headers["location"] == f"/openai/files/{file.id}"
    assert client.files.content(file.id).read() == b"abc"
    assert client.files.delete(file.id).deleted
    client.close()


def test_files_of_another_key_are_not_there(service):
    file = service.client().files.create(file=b"mine", purpose="fine-tune")
    _, token = keys.add(service.store, "another")
    client = service.client(token)
    assert client.files.list().data == []
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError) as refusal:
            ask(file.id)
        with pytest.raises(openai.NotFoundError) as unknown:
            ask("file-none")
        assert refusal.value.message.replace(file.id, "file-none") == unknown.value.message
    keys.revoke(service.store, "another")
    with pytest.raises(openai.AuthenticationError):
        client.files.list()
    assert service.client().files.content(file.id).read() == b"mine"


@pytest.mark.parametrize(
    "parts", [(PURPOSE, ANCHOR, SECONDS, FILE), (FILE, SECONDS, ANCHOR, PURPOSE), (ANCHOR, FILE, PURPOSE, SECONDS)]
)
def test_fields_may_come_in_any_order(service, parts):
    answer = post(service, form(*parts))
    assert answer.status_code == 200
    assert answer.json()["expires_at"] == answer.json()["created_at"] + 3600


def test_fields_may_be_written_as_azures_specification_has_them(service):
    answer = post(
        service, form(PURPOSE, ("expires_after.anchor", "created_at"), ("expires_after.seconds", "4000"), FILE)
    )
    assert answer.json()["expires_at"] == answer.json()["created_at"] + 4000


@pytest.mark.parametrize("seed", range(12))
def test_bytes_are_the_same_however_they_are_cut(service, seed):
    """What looks like a boundary and is none is data, wherever the network cuts."""
    drawn = random.Random(seed)
    pieces = [b"\r\n", b"--", b"\r", b"\n", f"--{BOUNDARY[:-1]}".encode(), f"\r\n--{BOUNDARY[:4]}".encode(), b"\0",
              b"\r\n--", f"{BOUNDARY}--".encode(), b"abc", bytes(range(256)), b"\r\n\r\n"]  # fmt: skip
    content = b"".join(drawn.choice(pieces) for _ in range(drawn.randrange(2000)))
    while (mark := f"\r\n--{BOUNDARY}".encode()) in content:
        content = content.replace(mark, b"")
    body = form(PURPOSE, ("file", "a", content))

    def cut():
        at = 0
        while at < len(body):
            size = drawn.choice([1, 2, 3, 7, 100, 5000])
            yield body[at : at + size]
            at += size

    answer = post(service, cut()).json()
    assert answer["bytes"] == len(content)
    assert service.store.file_path(answer["id"]).read_bytes() == content
    assert (
        service.store.row("select sha256 from files where id = ?", answer["id"])[0]
        == hashlib.sha256(content).hexdigest()
    )


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ((FILE,), "purpose"),
        ((PURPOSE,), "file"),
        ((("purpose", "assistants"), FILE), "purpose"),
        ((FILE, ("purpose", "batch")), "purpose"),
        ((("purpose", b"\xff"), FILE), "purpose"),
        ((("purpose", "x" * 2000), FILE), "purpose"),
        ((PURPOSE, FILE, FILE), "file"),
        ((PURPOSE, PURPOSE, FILE), "purpose"),
        ((PURPOSE, ("file", "text")), "file"),
        ((("purpose", "p.txt", b"fine-tune"), FILE), "purpose"),
        ((PURPOSE, ("model", "x"), FILE), "model"),
        ((PURPOSE, ("\u202e" + "x" * 100, "x"), FILE), "\\u202e" + "x" * 59),
        ((PURPOSE, ANCHOR, FILE), "expires_after.seconds"),
        ((PURPOSE, SECONDS, FILE), "expires_after.anchor"),
        ((PURPOSE, ANCHOR, SECONDS, ("expires_after.seconds", "3600"), FILE), "expires_after.seconds"),
        ((PURPOSE, ("expires_after[anchor]", "now"), SECONDS, FILE), "expires_after.anchor"),
        *(
            ((PURPOSE, ANCHOR, ("expires_after[seconds]", told), FILE), "expires_after.seconds")
            for told in ("3599", "2592001", "-3600", "1e4", "", "٣٦٠٠", "9" * 400, "3600.0")
        ),
        ((PURPOSE, ("file", "../../etc/passwd", b"x")), "file"),
        ((PURPOSE, ("file", "", b"x")), "file"),
        ((PURPOSE, ("file", "x" * 300, b"x")), "file"),
        ((PURPOSE, ("file", "a\u202egnp.exe", b"x")), "file"),
    ],
)
def test_what_a_form_may_not_hold_is_refused_and_nothing_of_it_kept(service, parts, param):
    before = count(service)
    refused(post(service, form(*parts)), 400, param)
    assert count(service) == before
    assert service.parts == []


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{}", "application/json"),
        (b"", f"multipart/form-data; boundary={BOUNDARY}"),
        (b"nonsense", f"multipart/form-data; boundary={BOUNDARY}"),
        (form(PURPOSE, FILE)[:-8], f"multipart/form-data; boundary={BOUNDARY}"),
        (form(PURPOSE, FILE), "multipart/form-data"),
        (form(PURPOSE, FILE), "multipart/form-data; boundary=another"),
        (form(PURPOSE, FILE), f"multipart/form-data; boundary={'b' * 300}"),
        (form(PURPOSE, FILE).replace(b"\r\n\r\n", b"\r\n" + b"x: y\r\n" * 5000 + b"\r\n"), ""),
        (form(PURPOSE, FILE).replace(b"form-data; name", b"form-data; \0name"), ""),
    ],
)
def test_what_is_no_form_is_refused(service, body, kind):
    kind = kind or f"multipart/form-data; boundary={BOUNDARY}"
    answer = post(service, body, **{"content-type": kind})
    assert answer.status_code == 400, answer.text
    assert service.parts == []


@pytest.mark.parametrize("seed", range(4))
def test_forms_that_were_damaged_are_taken_or_refused_and_never_a_fault_of_the_server(service, seed):
    drawn, whole = random.Random(seed), form(PURPOSE, ANCHOR, SECONDS, ("file", "a.jsonl", b"{}\n" * 20))
    pieces = [
        b"\r\n",
        b"--",
        b'"',
        b";",
        b"=",
        b"\0",
        b"\xff",
        BOUNDARY.encode(),
        b"filename*=utf-8''x",
        b"name=",
        b":",
    ]
    headers = {"authorization": f"Bearer {service.token}"}
    headers["content-type"] = f"multipart/form-data; boundary={BOUNDARY}"
    with httpx2.Client(headers=headers, timeout=30) as client:
        for _ in range(120):
            body = bytearray(whole)
            for _ in range(drawn.randrange(1, 6)):
                at, size = drawn.randrange(len(body) + 1), drawn.choice([0, 0, 1, 4, 40])
                body[at : at + size] = drawn.choice([b"", drawn.choice(pieces), drawn.randbytes(3)])
            answer = client.post(f"{service.address}/files", content=bytes(body))
            assert answer.status_code in (200, 400), bytes(body)
            assert answer.status_code == 200 or answer.json()["error"]["message"].isprintable()
    assert service.parts == []


def test_encoded_bodies_are_refused(service):
    refused(post(service, form(PURPOSE, FILE), **{"content-encoding": "gzip"}), 400)
    body = form(PURPOSE, FILE).replace(b"Content-Type:", b"Content-Transfer-Encoding: base64\r\nContent-Type:")
    refused(post(service, body), 400, "file")


def test_a_file_may_be_empty_and_a_zip_and_the_doctor_says_later_what_it_thinks(service):
    for content in (b"", b"PK\x03\x04", b"\xff\xfe"):
        assert post(service, form(PURPOSE, ("file", "a", content))).json()["bytes"] == len(content)


def test_a_file_of_the_most_bytes_is_taken_and_of_one_more_is_not(service):
    client = service.client()
    assert client.files.create(file=b"x" * MB, purpose="fine-tune").bytes == MB
    with pytest.raises(openai.APIStatusError) as refusal:
        client.files.create(file=b"x" * (MB + 1), purpose="fine-tune")
    assert refusal.value.status_code == 413
    assert refusal.value.param == "file"
    assert service.parts == []


def test_the_client_sees_why_a_file_is_too_large_and_asks_once(service):
    """It writes all that it has before it reads: the reason reaches it, though the file was not taken in."""
    requests = []
    hooks = {"request": [requests.append]}
    client = service.client(http_client=openai.DefaultHttpxClient(event_hooks=hooks))
    with pytest.raises(openai.APIStatusError, match="413"):
        client.files.create(file=b"x" * (100 * MB), purpose="fine-tune")
    assert len(requests) == 1
    assert service.parts == []


def test_a_length_that_is_too_large_is_refused_before_a_byte_of_it_is_sent(service):
    with service.connect() as connection:
        connection.sendall(head(service, 10**12, "Expect: 100-continue\r\n"))
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()


def test_a_file_without_a_length_is_refused_where_it_becomes_too_large_and_the_rest_is_not_read(service):
    start = form(PURPOSE, FILE).partition(b"{}\n")[0]
    sent, chunk = 0, b"10000\r\n" + b"x" * 65536 + b"\r\n"
    began = time.monotonic()
    with service.connect() as connection:
        connection.sendall(head(service) + f"{len(start):x}\r\n".encode() + start + b"\r\n")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() - began < 30:
                connection.sendall(chunk)
                sent += 65536
                time.sleep(0.01)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert time.monotonic() - began < 10
    assert service.parts == []


def test_whoever_has_no_key_is_told_so_and_not_read_any_longer(service):
    client = service.client("tbk-none")
    with pytest.raises(openai.AuthenticationError):
        client.files.create(file=b"x" * (50 * MB), purpose="fine-tune")
    began, sent = time.monotonic(), 0
    with service.connect() as connection:
        connection.sendall(head(service, 10**12).replace(service.token.encode(), b"tbk-none"))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() - began < 20:
                sent += connection.send(b"x" * 65536)
                time.sleep(0.01)
        assert read_all(connection).startswith(b"HTTP/1.1 401 ")
    assert time.monotonic() - began < 10


def test_a_connection_is_used_again_where_a_short_body_was_refused(service):
    body = form(("purpose", "batch"), FILE)
    headers = {"authorization": f"Bearer {service.token}"}
    headers["content-type"] = f"multipart/form-data; boundary={BOUNDARY}"
    connection = HTTPConnection("127.0.0.1", service.port, timeout=20)
    with contextlib.closing(connection):
        connection.connect()
        first = connection.sock
        for _ in range(3):
            connection.request("POST", "/v1/files", body, headers)
            answer = connection.getresponse()
            assert answer.status == 400
            answer.read()
        assert connection.sock is first


def test_an_upload_that_is_cut_off_leaves_nothing(service):
    before, body = count(service), form(PURPOSE, ("file", "a", b"x" * 500_000))
    for share in (0.001, 0.1, 0.5, 0.99):
        with service.connect() as connection:
            connection.sendall(head(service, len(body)) + body[: int(len(body) * share)])
            if share > 0.1:
                wait(lambda: len(service.parts) == 1)
        wait(lambda: service.parts == [])
    assert count(service) == before
    assert post(service, form(PURPOSE, FILE)).status_code == 200


@pytest.mark.parametrize("drip", [b"", b"x"])
def test_an_upload_that_does_not_come_or_only_drips_is_ended(service, drip):
    body = form(PURPOSE, ("file", "a", b"x" * 500_000))
    began = time.monotonic()
    with service.connect() as connection:
        connection.sendall(head(service, len(body)) + body[:20_000])
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while drip and time.monotonic() - began < 3.5:
                connection.sendall(drip)
                time.sleep(0.1)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"x-should-retry: false" in answer.lower()
    assert time.monotonic() - began < 8
    assert service.parts == []


def test_an_upload_that_is_slow_and_steady_is_taken(service):
    body = form(PURPOSE, ("file", "a", b"x" * 100_000))

    def steadily():
        for at in range(0, len(body), 8192):
            yield body[at : at + 8192]
            time.sleep(0.2)

    assert post(service, steadily()).json()["bytes"] == 100_000


def test_a_quota_of_bytes_is_held_while_they_come(tmp_path):
    told = {"limits": {"file_mb": 8}, "quotas": {"gb": 2 / 1024}}
    with served(tmp_path / "service", [uploads.routes()], **told) as service:
        requests = []
        hooks = {"request": [requests.append]}
        client = service.client(http_client=openai.DefaultHttpxClient(event_hooks=hooks))
        file = client.files.create(file=b"x" * MB, purpose="fine-tune")
        with pytest.raises(openai.RateLimitError) as refusal:
            client.files.create(file=b"x" * (MB + 1), purpose="fine-tune")
        assert refusal.value.code == "insufficient_quota"
        assert len(requests) == 2
        assert service.parts == []
        client.files.delete(file.id)
        assert client.files.create(file=b"x" * 2 * MB, purpose="fine-tune").bytes == 2 * MB


def test_many_uploads_at_once_do_not_pass_a_quota_together(tmp_path):
    told = {"limits": {"file_mb": 8}, "quotas": {"gb": 4 / 1024}}
    with served(tmp_path / "service", [uploads.routes()], **told) as service:
        taken = []

        def send():
            with contextlib.suppress(openai.RateLimitError):
                taken.append(service.client().files.create(file=b"x" * MB, purpose="fine-tune"))

        threads = [threading.Thread(target=send) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 <= len(taken) <= 4
        assert count(service) == len(taken)
        assert service.parts == []


@pytest.mark.parametrize(
    "path",
    ["/v1/files/..%2F..%2Fservice.db/content", "/v1/files/%2e%2e/content", "/v1/files/%00/content",
     "/v1/files/file-%0d%0aset-cookie:%20a=b", "/v1/files/" + "a" * 20_000, "/v1/files/%2Fetc%2Fpasswd/content",
     "/v1/files/..%5c..%5cservice.db", "/v1/files/%ff%fe", "/v1/files/' or 1=1 --", "/v1/files/%252e%252e%252f"],
)  # fmt: skip
def test_an_id_is_no_path(service, path):
    answer = get(service, path)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"].isprintable()
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1",
        "limit=10001",
        "limit=x",
        "order=up",
        "after=file-none",
        "after=%00",
        "key=key-1",
        "purpose=" + "x" * 99,
    ],
)
def test_what_a_list_cannot_be_asked_is_refused(service, query):
    answer = get(service, f"/v1/files?{query}")
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == query.partition("=")[0]


@pytest.mark.parametrize(
    "name", ["a b;c.jsonl", "q'uote.jsonl", "schön.jsonl", "日本語.jsonl", "a%0d%0aset-cookie: x=y"]
)
def test_a_name_comes_back_as_it_was_and_its_bytes_as_a_download(service, name):
    file = post(service, form(PURPOSE, ("file", name, b"<script>alert(1)</script>"))).json()
    assert file["filename"] == name
    answer = get(service, f"/v1/files/{file['id']}/content")
    assert answer.content == b"<script>alert(1)</script>"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert re.fullmatch(
        r"attachment; filename(=\"[\w.-]+\"|\*=UTF-8''[\w.%~-]+)", answer.headers["content-disposition"]
    )
    assert "set-cookie" not in answer.headers


def test_a_file_whose_bytes_were_taken_away_is_not_there(service):
    file = post(service, form(PURPOSE, FILE)).json()
    service.store.file_path(file["id"]).unlink()
    refused(get(service, f"/v1/files/{file['id']}/content"), 404, "id")


def full(tmp_path, before: tuple[str, ...]) -> None:
    with served_apart(tmp_path / "service", before=before) as (service, _):
        wait(lambda: answers(service), 60)
        client = service.client()
        for _ in range(3):
            with pytest.raises(openai.InternalServerError) as refusal:
                client.files.create(file=b"x" * (8 * MB), purpose="fine-tune")
            assert refusal.value.status_code == 507
            assert "full" in refusal.value.body["message"]
        assert client.files.list().data == []
        file = client.files.create(file=b"x" * 3 * MB, purpose="fine-tune")
        assert client.files.content(file.id).read() == b"x" * 3 * MB


def answers(service) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return get(service, "/v1/files").status_code == 200
    return False


def test_a_disk_that_is_full_says_so_in_one_line_and_keeps_nothing(tmp_path):
    """A disk of 6 MB: three uploads of 8 MB could not fail alike if any of them left something."""
    mount = 'mkdir -p "$0" && mount -t tmpfs -o size=6m tmpfs "$0" && exec "$@"'
    words = ("/usr/bin/unshare", "-rm", "/bin/sh", "-c", f"PATH=/bin:/usr/bin; {mount}")
    (tmp_path / "service" / "files").mkdir(parents=True)
    try:
        probe = subprocess.run([*words, str(tmp_path / "probe"), "/bin/true"], check=False, capture_output=True)
        possible = probe.returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("nobody may mount a small disk here")
    full(tmp_path, (*words, str(tmp_path / "service" / "files")))


def test_a_limit_on_the_size_of_files_is_as_a_full_disk(tmp_path):
    full(tmp_path, ("/bin/sh", "-c", 'ulimit -f 8192; exec "$@"', "sh"))


def test_a_server_that_is_killed_in_an_upload_leaves_what_retention_takes(tmp_path):
    body = form(PURPOSE, ("file", "a", b"x" * 5 * MB))
    with served_apart(tmp_path / "service") as (service, process):
        wait(lambda: answers(service), 60)
        with service.connect() as connection:
            connection.sendall(head(service, len(body)) + body[: 3 * MB])
            wait(lambda: sum(path.stat().st_size for path in service.store.files_folder.glob(".part-*")) >= 2 * MB)
            process.kill()
            process.wait()
    assert count(service) == 0
    assert [one.kind for one in retention.sweep(service.store, service.settings, alone=True)] == ["leftover"]
    assert service.parts == []


@pytest.mark.parametrize("kills", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_files_are_whole_and_known_whenever_a_server_is_killed(tmp_path, kills):
    """What was answered is there, what is there is whole, and nothing else is after a sweep."""
    drawn, answered = random.Random(3), {}
    for _ in range(kills):
        with served_apart(tmp_path / "service") as (service, process):
            wait(lambda: answers(service), 60)

            before = len(answered)

            def send(service=service):
                headers = {"authorization": f"Bearer {service.token}"}
                headers["content-type"] = f"multipart/form-data; boundary={BOUNDARY}"
                with contextlib.suppress(httpx2.HTTPError), httpx2.Client(headers=headers, timeout=20) as client:
                    while True:
                        content = drawn.randbytes(drawn.choice([0, 100, 50_000, 3 * MB]))
                        made = client.post(f"{service.address}/files", content=form(PURPOSE, ("file", "a", content)))
                        answered[made.json()["id"]] = content

            threads = [threading.Thread(target=send) for _ in range(3)]
            for thread in threads:
                thread.start()
            wait(lambda before=before: len(answered) > before + 3)
            time.sleep(drawn.uniform(0, 0.3))
            process.kill()
            process.wait()
        for thread in threads:
            thread.join()
        retention.sweep(service.store, service.settings, alone=True)
        rows = service.store.rows("select * from files")
        assert (
            {path.name for path in service.store.files_folder.iterdir()} == {row["id"] for row in rows} >= {*answered}
        )
        for row in rows:
            content = service.store.file_path(row["id"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == row["sha256"]
            assert content == answered.get(row["id"], content)
        keys.revoke(service.store, "somebody")
    assert len(answered) > 3 * kills


def peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


@pytest.mark.parametrize("size", [64, pytest.param(512, marks=pytest.mark.slow)])
def test_a_large_file_goes_through_little_memory_and_others_are_answered_meanwhile(tmp_path, size):
    source = tmp_path / "large.jsonl"
    with source.open("wb") as file:
        block = random.Random(1).randbytes(MB)
        for _ in range(size):
            file.write(block)
    with served_apart(tmp_path / "service") as (service, process):
        wait(lambda: answers(service), 60)
        before, took, ends = peak_mb(process.pid), [], threading.Event()

        def ask():
            with httpx2.Client(headers={"authorization": f"Bearer {service.token}"}) as client:
                while not ends.wait(0.02):
                    began = time.monotonic()
                    assert client.get(f"{service.address}/files").status_code == 200
                    took.append(time.monotonic() - began)

        asking = threading.Thread(target=ask)
        asking.start()
        began = time.monotonic()
        made = service.client().files.create(file=source, purpose="fine-tune")
        seconds = time.monotonic() - began
        with service.client().files.with_streaming_response.content(made.id) as answer:
            digest = hashlib.sha256()
            for chunk in answer.iter_bytes(MB):
                digest.update(chunk)
        ends.set()
        asking.join()
        peak, slowest = peak_mb(process.pid), sorted(took)[int(len(took) * 0.95)]
        print(
            json.dumps({"mb": size, "seconds": seconds, "before": before, "peak": peak, "p95": slowest, "n": len(took)})
        )
        assert made.bytes == size * MB
        assert digest.hexdigest() == hashlib.sha256(source.read_bytes()).hexdigest()
        assert peak < 100
        assert peak - before < 24


def test_tables_that_can_grow_no_more_are_a_full_disk_at_every_address_and_deleting_makes_room(tmp_path):
    words = ("/bin/sh", "-c", 'ulimit -f 640; exec "$@"', "sh")
    upload = {"bytes": 1, "filename": "a", "mime_type": "text/plain", "purpose": "fine-tune"}
    with served_apart(tmp_path / "service", before=words) as (service, _):
        wait(lambda: answers(service), 60)
        client = service.client(max_retries=0)
        file = client.files.create(file=b"x" * 1000, purpose="fine-tune")
        for _ in range(300):
            try:
                client.uploads.cancel(client.uploads.create(**upload).id)
            except openai.InternalServerError as error:
                said = error.status_code, error.code
                break
        assert said == (507, "disk_full")
        url = f"{service.address}/files/{file.id}"
        deleted = httpx2.delete(url, headers={"authorization": f"Bearer {service.token}"})
        assert deleted.status_code == 200
        assert client.files.list().data == []
        assert not service.store.file_path(file.id).exists()  # on a disk, that made room
