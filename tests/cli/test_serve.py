"""The commands of the service: serve, keys, gc."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from tiebreak.config.service import load_serve
from tiebreak.errors import ConfigError
from tiebreak.service import keys
from tiebreak.service.store import Store, open_store


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def serving(*words: str):
    command = [sys.executable, "-m", "tiebreak", "serve", "--port", "0", *words]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        said = ""
        while line := server.stdout.readline():
            said += line
            if line.startswith("}"):
                break
        try:
            yield server, json.loads(said)
        finally:
            server.kill()
            server.communicate()


def test_a_key_is_shown_once_and_a_digest_of_it_is_kept(cli, here):
    code, out, _ = cli("serve", "keys", "add", "me", "--dir", "s")
    token = out.strip()
    assert code == 0
    assert re.fullmatch(r"tbk-[\w-]{43}", token)
    assert token.encode() not in b"".join(one.read_bytes() for one in here.rglob("*") if one.is_file())
    assert keys.holder(Store(Path("s")), token).name == "me"
    code, out, _ = cli("serve", "keys", "list", "--dir", "s", "--json")
    assert [one["name"] for one in json.loads(out)] == ["me"]
    assert token not in out


def test_a_copy_of_the_database_alone_is_whole_once_nobody_uses_it(here):
    def ran(*words: str) -> str:
        call = [sys.executable, "-m", "tiebreak", "serve", *words]
        return subprocess.run(call, check=True, capture_output=True, text=True).stdout

    def keys_in_a_copy() -> str:
        log = here / "s" / "service.db-wal"  # a thread that idles as the server ends leaves it there
        assert not log.exists() or log.stat().st_size == 0
        (here / "copy").mkdir(exist_ok=True)
        shutil.copy(here / "s" / "service.db", here / "copy" / "service.db")
        return ran("keys", "list", "--dir", "copy")

    ran("keys", "add", "me", "--dir", "s")
    assert "me  in use" in keys_in_a_copy()
    ran("keys", "revoke", "me", "--dir", "s")
    assert "me  revoked" in keys_in_a_copy()
    ran("keys", "add", "you", "--dir", "s")
    with serving("--dir", "s") as (server, told):
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"{told['url']}/models")
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=30)
    assert "you  in use" in keys_in_a_copy()


def test_the_folder_of_a_service_is_its_owners_alone(cli, here):
    cli("serve", "keys", "add", "me", "--dir", "s")
    assert (here / "s").stat().st_mode & 0o077 == 0
    assert (here / "s" / "service.db").stat().st_mode & 0o077 == 0


def test_a_revoked_key_is_no_key_and_its_name_is_free(cli, here):
    _, token, _ = cli("serve", "keys", "add", "me", "--dir", "s")
    assert cli("serve", "keys", "add", "me", "--dir", "s")[0] == 2
    assert cli("serve", "keys", "revoke", "me", "--dir", "s")[0] == 0
    assert keys.holder(Store(Path("s")), token.strip()) is None
    assert cli("serve", "keys", "add", "me", "--dir", "s")[0] == 0
    assert cli("serve", "keys", "revoke", "nobody", "--dir", "s")[0] == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["serve", "--host", "0.0.0.0"], "--behind-proxy"),
        (["serve", "--certificate", "none.pem"], "--private-key"),
        (["serve", "--certificate", "none.pem", "--private-key", "none.pem"], "no such file"),
        (["serve", "--config", "none.yaml"], "none.yaml"),
        (["serve", "--dir", "x", "keys", "list"], "--dir after it"),
        (["serve", "--host", "not a host"], "not a host"),
        (["serve", "keys", "list", "--dir", "none"], "holds no service"),
        (["serve", "keys", "add", "", "--dir", "s"], "name"),
        (["serve", "keys", "add", "me", "--quota", "jobs=1", "--dir", "s"], "jobs"),
        (["serve", "keys", "add", "me", "--quota", "gb=0", "--dir", "s"], "gb"),
        (["serve", "gc", "--dir", "none"], "holds no service"),
        (["serve", "--dir", "a file"], "a file: cannot be the folder of a service"),
        (["serve", "--dir", "a file/inner"], "cannot be the folder of a service"),
        (["serve", "keys", "add", "me", "--dir", "a file"], "choose another --dir"),
        (["serve", "keys", "list", "--dir", "a file"], "holds no service"),
    ],
)
def test_what_cannot_be_served_is_one_line(cli, here, words, says):
    (here / "a file").touch()
    code, _, err = cli(*words)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1


def test_an_address_that_is_in_use_is_one_line(cli, here):
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, _, err = cli("serve", "--dir", "s", "--port", str(other.getsockname()[1]))
    assert code == 2
    assert "another --port" in err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("models: {}", "models"),
        ("models: {a: {}}", "models.a"),
        ("models: {a: {model: {name: x}, data: {train: y}}}", "data.train"),
        ("models: {a: {model: {name: x}, output: {dir: y}}}", "output.dir"),
        ("models: {a: {model: {nme: x}}}", "nme"),
        ("models: {a: none.yaml}", "none.yaml"),
        ("models: {'a/b': {model: {name: x}}}", "names without"),
        ("models: {a: {model: {name: x}}}\nlimit: {}", "limit"),
        ("models: {a: {model: {name: x}}}\nlimits: {workers: 0}", "limits.workers"),
        ("models: {a: {model: {name: x}}}\nwebhooks: [{url: 'http://example.org', secret_file: a}]", "https"),
        ("models: {a: {model: {name: x}}}\nserving: {upstream: ftp://x}", "serving.upstream"),
        ("models: {a: {model: {name: x}}}\nlauncher: {kind: command}", "submit"),
    ],
)
def test_what_an_operator_may_not_say_is_named(tmp_path, text, says):
    path = tmp_path / "serve.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(says)):
        load_serve(path)


def test_a_secret_that_is_not_there_is_one_line_before_anything_is_served(cli, here):
    hook = "webhooks: [{url: 'https://example.org', secret_file: none}]"
    (here / "serve.yaml").write_text(f"models: {{a: {{model: {{name: x}}}}}}\n{hook}", encoding="utf-8")
    code, out, err = cli("serve", "--dir", "s", "--config", "serve.yaml", "--port", "0")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "none" in err


def test_settings_of_a_model_may_stand_in_a_file_beside(tmp_path):
    (tmp_path / "own.yaml").write_text("model: {name: x}\nadapter: {rank: 4}\n", encoding="utf-8")
    (tmp_path / "serve.yaml").write_text("models: {a: own.yaml}\n", encoding="utf-8")
    _, configs = load_serve(tmp_path / "serve.yaml")
    assert configs["a"].adapter.rank == 4


def test_a_server_says_where_it_is_ends_by_a_signal_and_keeps_others_out(cli, here):
    with serving("--dir", "s") as (server, told):
        assert told["url"].startswith("http://127.0.0.1:")
        assert told["models"] == ["smollm2-135m-instruct"]
        code, _, err = cli("serve", "--dir", "s", "--port", "0")
        assert code == 2
        assert f"pid {server.pid}" in err
        assert "choose another --dir" in err
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
        assert server.stderr.read() == ""


def test_the_server_loads_nothing_that_computes(here):
    """A server that trains nothing starts in a second and takes a hundred megabytes."""
    code = "import sys, tiebreak.service.listening; print(sys.modules.keys() & {'torch', 'numpy', 'transformers'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_server_that_is_killed_is_followed_by_the_next(here):
    with serving("--dir", "s") as (server, _):
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
    began = time.monotonic()
    with serving("--dir", "s") as (_, told):
        assert told["url"]
    assert time.monotonic() - began < 20


def test_a_service_without_keys_advises_how_to_make_one_unless_it_is_quiet(here, cli):
    open_store(here / "service").close()
    assert "tiebreak serve keys add" in cli("serve", "keys", "list")[1]
    assert cli("serve", "keys", "list", "--quiet") == (0, "", "")


def test_every_command_of_the_service_takes_quiet(here, cli):
    for words in (["keys", "add", "me"], ["keys", "list"], ["keys", "rotate", "me"], ["keys", "revoke", "me"], ["gc"]):
        code, _, err = cli("serve", *words, "--quiet")
        assert (code, err) == (0, "")
