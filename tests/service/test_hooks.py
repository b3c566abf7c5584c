"""Webhooks: each job is told once, signed, and again where an address did not take it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest

from served import settings_of, wait
from tiebreak.config.service import WebhookConfig
from tiebreak.errors import ConfigError
from tiebreak.service import hooks, jobs
from tiebreak.service.store import open_store

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "service")


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "hook.secret"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


class Heard(ThreadingHTTPServer):
    """Hears what is sent, and answers as it is told to."""

    daemon_threads = True

    def __init__(self, *answers):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.heard, self.may_answer = [*answers], [], threading.Event()
        self.may_answer.set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/hook?of=us"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.heard.append((self.path, dict(self.headers), body))
        self.server.may_answer.wait(30)
        status = self.server.answers.pop(0) if self.server.answers else 200
        self.send_response(status)
        if status in (301, 302, 307, 308):
            self.send_header("location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def hearing(*answers):
    server = Heard(*answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.may_answer.set()
        server.shutdown()
        server.server_close()
        thread.join()


def ended(store, state=jobs.SUCCEEDED):
    body = {"model": "tiny", "training_file": "file-1"}
    job = jobs.create(store, "key-1", body, {"seed": 1, "method": "dpo", "hyperparameters": {}})
    assert jobs.move(store, job.id, jobs.OPEN, state)
    return job.id


def of(url, secret) -> WebhookConfig:
    return WebhookConfig(url=url, secret_file=str(secret))


def with_hooks(*told: WebhookConfig):
    return settings_of(webhooks=[one.model_dump() for one in told])


def unwrap(heard, secret=SECRET):
    _, headers, body = heard
    with openai.OpenAI(api_key="none", webhook_secret=secret) as client:
        return client.webhooks.unwrap(body, headers)


def rows(store):
    return store.rows("select * from hooks order by rowid")


@pytest.mark.parametrize("state", jobs.ENDED)
def test_the_client_unwraps_what_is_told_of_a_job_and_refuses_what_was_changed(store, secret, state):
    job = ended(store, state)
    with hearing() as server:
        hook = of(server.url, secret)
        assert hooks.announce(store, with_hooks(hook)) == 1
        hooks.deliver(store, hook)
        event = unwrap(server.heard[0])
        assert type(event).__name__ == f"FineTuningJob{state.title()}WebhookEvent"
        assert (event.type, event.data.id, event.object) == (f"fine_tuning.job.{state}", job, "event")
        assert event.created_at == store.row("select finished from jobs")["finished"]
        path, headers, body = server.heard[0]
        assert path == "/hook?of=us"
        assert headers["webhook-id"] == event.id
        for changed in (
            (path, headers, body.replace(job.encode(), b"ftjob-another")),
            (path, headers | {"webhook-id": "evt_1"}, body),
            (path, headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) - 400)}, body),
        ):
            with pytest.raises(openai.InvalidWebhookSignatureError):
                unwrap(changed)
        with pytest.raises(openai.InvalidWebhookSignatureError):
            unwrap(server.heard[0], "whsec_" + base64.b64encode(b"x" * 32).decode())


def test_each_job_is_told_once_to_each_address(store, secret):
    names = [ended(store) for _ in range(3)]
    with hearing() as one, hearing() as two:
        told = [of(one.url, secret), of(two.url, secret), of(one.url, secret)]
        for _ in range(3):
            hooks.announce(store, with_hooks(*told))
            for hook in told:
                hooks.deliver(store, hook)
        for server in (one, two):
            assert [unwrap(heard).data.id for heard in server.heard] == names
    assert len({row["id"] for row in rows(store)}) == 6


def test_a_job_that_has_not_ended_is_not_told(store, secret):
    body = {"model": "tiny", "training_file": "file-1"}
    jobs.create(store, "key-1", body, {"seed": 1, "method": "dpo", "hyperparameters": {}})
    assert hooks.announce(store, with_hooks(of("https://example.org", secret))) == 0
    assert rows(store) == []


def test_where_nobody_is_told_jobs_are_not_told_later_either(store, secret):
    ended(store)
    hooks.announce(store, settings_of())
    hooks.announce(store, with_hooks(of("https://example.org", secret)))
    assert rows(store) == []


def test_what_is_not_taken_is_tried_five_times_more_with_growing_pauses_and_one_id(store, secret):
    ended(store)
    pauses = []
    with hearing(500, 404, 302, 429, 503, 500, 200) as server:
        hook = of(server.url, secret)
        hooks.announce(store, with_hooks(hook))
        for tries in range(1, 8):
            hooks.deliver(store, hook)
            hooks.deliver(store, hook)
            row = rows(store)[0]
            assert row["tries"] == len(server.heard) == min(tries, 6)
            if row["done"] is None:
                pauses.append(row["next_at"])
            store.change("update hooks set next_at = next_at - 100000")
        assert rows(store)[0]["said"] == "500"
        assert len({heard[1]["webhook-id"] for heard in server.heard}) == 1
        assert {heard[0] for heard in server.heard} == {"/hook?of=us"}
        assert {unwrap(heard).id for heard in server.heard} == {rows(store)[0]["id"]}
    assert len(pauses) == 5
    assert [*hooks.PAUSES] == sorted(hooks.PAUSES)


def test_one_address_that_is_not_there_is_said_and_holds_up_no_other(store, secret):
    ended(store)
    with hearing() as gone:
        dead = of(gone.url, secret)
    with hearing() as silent, hearing() as server:
        silent.may_answer.clear()
        settings = with_hooks(dead, of(silent.url, secret), of(server.url, secret))
        with hooks.telling(store, settings, every=0.05):
            wait(lambda: len(server.heard) == 1)
            wait(lambda: rows(store)[0]["tries"] == 1)
            silent.may_answer.set()
            wait(lambda: rows(store)[1]["done"] is not None)
    assert "ConnectError" in rows(store)[0]["said"]
    assert rows(store)[0]["done"] is None
    assert [row["said"] for row in rows(store)[1:]] == ["200", "200"]


def test_no_proxy_stands_between_this_machine_and_itself(store, secret, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    ended(store)
    with hearing() as server:
        hook = of(server.url, secret)
        hooks.announce(store, with_hooks(hook))
        hooks.deliver(store, hook)
        assert len(server.heard) == 1


def test_an_address_that_is_no_longer_named_is_not_told(store, secret):
    ended(store)
    with hearing() as server:
        hooks.announce(store, with_hooks(of(server.url, secret)))
        with hooks.telling(store, settings_of(), every=0.01):
            pass
        assert rows(store)[0]["said"] == "no longer configured"
        assert server.heard == []


KILLED = """
import sys, time
from pathlib import Path
from served import settings_of
from tiebreak.service import hooks
from tiebreak.service.store import Store

store = Store(Path(sys.argv[1]))
told = {"url": sys.argv[2], "secret_file": sys.argv[3]}
with hooks.telling(store, settings_of(webhooks=[told]), every=0.01):
    time.sleep(60)
"""


def test_a_server_that_is_killed_while_it_tells_tells_again_under_the_same_id(store, secret):
    job = ended(store)
    with hearing() as server:
        server.may_answer.clear()
        path = os.pathsep.join(["tests", *sys.path])
        words = [sys.executable, "-c", KILLED, str(store.folder), server.url, str(secret)]
        for count in (1, 2):
            process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": path})
            try:
                wait(lambda count=count: len(server.heard) == count)
            finally:
                process.kill()
                process.wait()
        server.may_answer.set()
        with hooks.telling(store, with_hooks(of(server.url, secret)), every=0.01):
            wait(lambda: rows(store)[0]["done"] is not None)
        assert [unwrap(heard).data.id for heard in server.heard] == [job] * 3
        assert len({heard[1]["webhook-id"] for heard in server.heard}) == 1
    assert len(rows(store)) == 1


def test_a_job_is_announced_whole_or_not_at_all(store, secret):
    ended(store)
    store.connection.execute("create trigger t before insert on hooks begin select raise(abort, 'no'); end")
    settings = with_hooks(of("https://example.org", secret))
    with pytest.raises(Exception, match="no"):
        hooks.announce(store, settings)
    assert store.row("select announced from jobs")[0] is None
    store.connection.execute("drop trigger t")
    assert hooks.announce(store, settings) == 1
    assert len(rows(store)) == 1


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (None, 0o600, "cannot be read"),
        (SECRET, 0o604, "chmod 600"),
        (SECRET, 0o602, "chmod 600"),
        ("", 0o600, "holds no secret"),
        ("hunter2", 0o600, "holds no secret"),
        (SECRET.removeprefix("whsec_"), 0o600, "holds no secret"),
        ("whsec_" + base64.b64encode(b"short").decode(), 0o600, "24 bytes"),
        ("whsec_é" * 10, 0o600, "holds no secret"),
    ],
)
def test_a_secret_that_is_none_or_lies_open_is_refused_at_the_start(store, tmp_path, content, mode, says):
    path = tmp_path / "secret"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    with (
        pytest.raises(ConfigError, match=says) as refusal,
        hooks.telling(store, with_hooks(of("https://example.org", path))),
    ):
        pass
    assert "\n" not in str(refusal.value)
    assert content is None or len(content) < 5 or content not in str(refusal.value)


def test_a_secret_may_be_replaced_while_the_service_runs(store, secret):
    ended(store)
    other = "whsec_" + base64.b64encode(b"y" * 32).decode()
    with hearing() as server:
        hook = of(server.url, secret)
        hooks.announce(store, with_hooks(hook))
        secret.write_text(other)
        hooks.deliver(store, hook)
        assert unwrap(server.heard[0], other)


@pytest.mark.parametrize("url", ["http://127.0.0.1.example.org/", "http://localhost@example.org/", "http://example.org/",
                                 "ftp://example.org", "https://", "file:///etc/passwd"])  # fmt: skip
def test_an_address_that_is_not_encrypted_is_of_this_machine_alone(url):
    with pytest.raises(ValueError, match=r"wanted https|user or token"):
        WebhookConfig(url=url, secret_file="x")


def test_what_is_told_is_json_that_names_the_job_alone(store, secret):
    job = ended(store, jobs.FAILED)
    hooks.announce(store, with_hooks(of("https://example.org", secret)))
    told = json.loads(rows(store)[0]["body"])
    assert set(told) == {"id", "object", "created_at", "type", "data"}
    assert told["data"] == {"id": job}
