"""A server gets each round's weights, by an adapter, by a command or by nobody, and what was started is stopped."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest
import torch

from policy_servers import running
from ports import free_port
from tiebreak.config.rounds import ServedConfig
from tiebreak.engine.answers.answerer import Chat, Sampling
from tiebreak.engine.models import load_frozen
from tiebreak.errors import ModelError
from tiebreak.progress import Silent
from tiebreak.records import Message
from tiebreak.stations import started as starting
from tiebreak.stations.served import Weights, check_servable, serving
from tiebreak.stations.started import clear_left_behind
from tiny import disturb, load, scores, settings, token_pairs

pytest.importorskip("openai", reason="pip install 'tiebreak[server]' brings the client")

CHATS = [Chat((Message("user", text),)) for text in ("the cat", "yes", "the dog ran to the park")]
SAMPLING = Sampling(8, 1.0, 2, 5)
PAIRS = token_pairs(3)


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory):
    """A policy that is an adapter away from the tiny model, and the folder that it was saved in."""
    loaded = disturb(load(settings(tiny_model)), 0.2)
    folder = tmp_path_factory.mktemp("trained") / "policy"
    loaded.policy.save(folder)
    return loaded, folder


def _config(address, weights="adapter", **more):
    return ServedConfig.model_validate(
        {"base_url": address, "model": "tiny", "weights": weights, "num_retries": 0} | more
    )


def _weights(model, folder):
    return Weights(lambda: nullcontext(model), folder)


def _refused(config, weights, work):
    """What is said of a server that does not get its weights."""
    with pytest.raises(ModelError) as caught, serving(config, weights, work, Silent(), loop=work):
        pytest.fail("it is refused")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _ids(answers):
    return [answer.ids for answer in answers]


def test_the_first_model_is_served_under_its_name_and_a_policy_as_an_adapter_that_is_forgotten_afterwards(
    tiny_model, trained, tmp_path
):
    loaded, folder = trained
    with running(tiny_model) as fake:
        config = _config(fake.address)
        with serving(config, _weights(loaded.policy, None), tmp_path, Silent(), loop=tmp_path) as server:
            first = server.answer(CHATS, SAMPLING)
        assert fake.told == []
        assert {body["model"] for body in fake.asked} == {"tiny"}
        with serving(config, _weights(loaded.policy, folder), tmp_path, Silent(), loop=tmp_path) as server:
            later = server.answer(CHATS, SAMPLING)
            name = fake.asked[-1]["model"]
        (load_path, told), (unload_path, untold) = fake.told
    assert (load_path, unload_path) == ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
    assert told == {"lora_name": name, "lora_path": str(folder), "load_inplace": True}
    assert untold == {"lora_name": name}
    assert name.startswith("tiebreak-")
    assert "lora_path" not in fake.asked[-1]
    assert _ids(first) != _ids(later)
    assert list(fake.served) == ["tiny"]


def test_sglang_takes_adapters_at_its_root_and_by_a_name_beside_the_model_s(tiny_model, trained, tmp_path):
    loaded, folder = trained
    with running(tiny_model, "sglang") as fake:
        with serving(
            _config(fake.address), _weights(loaded.policy, folder), tmp_path, Silent(), loop=tmp_path
        ) as server:
            server.answer(CHATS[:1], SAMPLING)
        paths = [path for path, _ in fake.told]
        told = fake.told[1][1]
    assert paths == ["/v1/load_lora_adapter", "/load_lora_adapter", "/unload_lora_adapter"]
    assert told == {"lora_name": fake.asked[0]["lora_path"], "lora_path": str(folder)}
    assert fake.asked[0]["model"] == "tiny"


@pytest.mark.parametrize(
    ("style", "words"),
    [
        ("fixed", "takes no adapter while it runs .*VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.*engine.weights to command"),
        ("full", "does not load the adapter .*greater than max_lora_rank 16"),
    ],
)
def test_a_server_that_takes_no_adapter_is_one_line(tiny_model, trained, tmp_path, style, words):
    loaded, folder = trained
    with running(tiny_model, style) as fake:
        said = _refused(_config(fake.address), _weights(loaded.policy, folder), tmp_path)
    assert re.match(f"model tiny at http://.*{words}", said)


def test_answers_are_known_by_the_weights_too(tiny_model, trained, tmp_path):
    loaded, folder = trained
    other = load(settings(tiny_model, "none")).policy
    with running(tiny_model) as fake:
        config = _config(fake.address, "as_served")
        identities = []
        for weights in (_weights(loaded.policy, folder), _weights(other, None)):
            with serving(config, weights, tmp_path, Silent(), loop=tmp_path) as server:
                identities.append(server.identity)
        assert fake.told == []
    assert len(set(identities)) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modules_to_save": ["lm_head"]}, "modules that are trained whole"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"use_dora": True, "lora_bias": True}, "DoRA or biases"),
        (None, "is no adapter that a server could load.*adapter.kind lora"),
    ],
)
def test_what_servers_do_not_load_is_named_before_anybody_is_asked(trained, tmp_path, change, words):
    _, folder = trained
    copy = tmp_path / "policy"
    copy.mkdir()
    if change is not None:
        (copy / "adapter_model.safetensors").write_bytes(b"")
        told = json.loads((folder / "adapter_config.json").read_text())
        (copy / "adapter_config.json").write_text(json.dumps(told | change))
    with pytest.raises(ModelError, match=words) as caught:
        check_servable(copy, Silent())
    assert "\n" not in str(caught.value)


def test_a_rank_beyond_the_servers_own_limit_is_said(trained, tmp_path):
    _, folder = trained
    told, said = json.loads((folder / "adapter_config.json").read_text()), []

    class Heard(Silent):
        def say(self, text):
            said.append(text)

    for rank in (16, 32):
        (tmp_path / "adapter_model.safetensors").write_bytes(b"")
        (tmp_path / "adapter_config.json").write_text(json.dumps(told | {"r": rank}))
        check_servable(tmp_path, Heard())
    assert said == ["the adapter has rank 32: a server takes it that was started with --max-lora-rank 32"]


# ------------------------------------------------------------------------------------------------------------ a command

SERVE = """
import http.server, os, signal, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *_): pass
folder, port, mode = sys.argv[1:]
if mode == "fails":
    print("out of memory"); sys.exit(3)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("serving", folder, sorted(os.listdir(folder)), os.getpid(), child.pid, flush=True)
if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "mute":
    import time; time.sleep(600)
http.server.HTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.setattr(starting, "STOP_SECONDS", 2.0)
    (tmp_path / "serve.py").write_text(SERVE)
    port = free_port()

    def of(mode, **more):
        words = [sys.executable, str(tmp_path / "serve.py"), "{model}", str(port), mode]
        return _config(f"http://127.0.0.1:{port}/v1", "command", command=words, **more)

    return of


def _is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _started(log):
    """What the last command said: the folder that it was given, what was in it, and its processes."""
    line = [one for one in log.read_text().splitlines() if one.startswith("serving")][-1]
    words = line.split()
    return words[1], line, [int(words[-2]), int(words[-1])]


def _gone(pids):
    until = time.monotonic() + 5
    while any(map(_is_alive, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(_is_alive, pids))


@pytest.mark.parametrize("mode", ["well", "deaf"])
def test_a_command_serves_an_adapter_added_into_its_model_and_is_stopped_with_all_that_it_started(
    trained, tmp_path, command, mode
):
    loaded, folder = trained
    with (
        suppress(KeyboardInterrupt),
        serving(command(mode), _weights(loaded.policy, folder), tmp_path, Silent(), loop=tmp_path),
    ):
        place, line, pids = _started(tmp_path / "server.log")
        assert all(map(_is_alive, pids))
        assert place == str(tmp_path / "served")
        assert "'model.safetensors'" in line
        assert "adapter_config.json" not in line
        raise KeyboardInterrupt
    assert _gone(pids)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["serve.py", "server.log"]


def test_a_command_serves_whole_weights_also_of_an_adapter_that_is_only_asked(tiny_model, trained, tmp_path, command):
    """As a loop loads its policies: with the adapter in the weights, from a folder that holds the adapter alone."""
    _, folder = trained
    model = load_frozen(settings(folder).model)
    for where in (folder, None):  # None: the loop starts from an adapter
        with serving(command("well"), _weights(model, where), tmp_path, Silent(), loop=tmp_path):
            place, line, _ = _started(tmp_path / "server.log")
            assert "'model.safetensors'" in line
            served = load(settings(place, "none")).policy
        assert torch.allclose(scores(served, PAIRS).chosen, scores(model, PAIRS).chosen, atol=1e-5)


def test_a_command_is_given_whole_weights_where_they_stand(tiny_model, trained, tmp_path, command):
    loaded, _ = trained
    whole = load(settings(tiny_model, "none")).policy
    folder = tmp_path / "policy"
    whole.save(folder)
    for weights, wanted in ((_weights(loaded.policy, None), tiny_model), (_weights(whole, folder), folder)):
        with serving(command("well"), weights, tmp_path, Silent(), loop=tmp_path):
            place, _, pids = _started(tmp_path / "server.log")
        assert place == str(wanted)
        assert _gone(pids)


@pytest.mark.parametrize(
    ("mode", "more", "words"),
    [
        ("fails", {}, r"ended with 3 before it answered; it said: out of memory \(.*server.log\)"),
        ("mute", {"start_seconds": 0.5}, r"does not answer at http://127.* within rounds.engine.start_seconds 0.5"),
    ],
)
def test_a_command_that_does_not_answer_is_one_line_and_nothing_is_left(trained, tmp_path, command, mode, more, words):
    loaded, folder = trained
    said = _refused(command(mode, **more), _weights(loaded.policy, folder), tmp_path)
    assert re.match(f"rounds.engine.command: .*serve.py.*{words}", said)
    if mode == "mute" and "serving" in (tmp_path / "server.log").read_text():
        assert _gone(_started(tmp_path / "server.log")[2])


def test_a_command_that_is_not_there_is_one_line(trained, tmp_path):
    loaded, folder = trained
    config = _config("http://127.0.0.1:9/v1", "command", command=["no-such-server", "{model}"])
    assert "no-such-server: cannot be started" in _refused(config, _weights(loaded.policy, folder), tmp_path)


def test_somebody_else_who_answers_there_is_not_taken_for_the_command(tiny_model, trained, tmp_path):
    loaded, folder = trained
    with running(tiny_model) as fake:
        config = _config(fake.address, "command", command=["true", "{model}"])
        said = _refused(config, _weights(loaded.policy, folder), tmp_path)
    assert "somebody answers there already" in said


@pytest.mark.parametrize("is_linux", [True, False], ids=["Linux", "another system"])
def test_what_a_killed_loop_left_behind_is_stopped_and_a_stranger_s_process_is_not(
    tiny_model, trained, tmp_path, command, is_linux, monkeypatch
):
    if not is_linux:
        monkeypatch.setattr(starting, "_OF_THIS", tmp_path / "none")
    loaded, _ = trained
    config, weights = command("well"), _weights(loaded.policy, None)
    killed = serving(config, weights, tmp_path, Silent(), loop=tmp_path)  # its end never comes
    killed.__enter__()
    _, _, left = _started(tmp_path / "server.log")
    assert all(map(_is_alive, left))
    with serving(config, weights, tmp_path, Silent(), loop=tmp_path):
        assert _gone(left)
        _, _, pids = _started(tmp_path / "server.log")
    assert _gone(pids)
    killed.__exit__(None, None, None)
    (tmp_path / ".server.json").write_text(json.dumps({"pid": os.getpid(), "began": "1"}))
    with serving(config, weights, tmp_path, Silent(), loop=tmp_path):
        pass


def test_a_server_that_an_earlier_round_left_is_stopped_as_the_loop_begins_and_no_later_round_meets_it(
    trained, tmp_path, command
):
    """The kill came when the round's answers were written, so that nobody asks for the server of that round again."""
    loaded, folder = trained
    config, weights = command("well"), _weights(loaded.policy, folder)
    rounds = [tmp_path / name for name in ("round-01", "round-02")]
    for place in rounds:
        place.mkdir()
    killed = serving(config, weights, rounds[0], Silent(), loop=tmp_path)  # its end never comes
    killed.__enter__()
    _, _, left = _started(rounds[0] / "server.log")
    (rounds[0] / ".samples.jsonl.x.tiebreak-part").write_text("half")
    with serving(config, weights, rounds[1], Silent(), loop=tmp_path):
        assert _gone(left)
        _, _, pids = _started(rounds[1] / "server.log")
        clear_left_behind(tmp_path, Silent())
        assert _gone(pids)
        assert {path.name for path in tmp_path.rglob("*")} == {"serve.py", "round-01", "round-02", "server.log"}
    clear_left_behind(tmp_path, Silent())
    killed.__exit__(None, None, None)


def test_the_policy_is_in_memory_until_it_is_laid_out_and_not_while_a_server_starts_or_answers(
    trained, tmp_path, command
):
    loaded, folder = trained
    there = []

    @contextmanager
    def opened():
        there.append(True)
        yield loaded.policy
        there.pop()
        assert (tmp_path / "served" / "model.safetensors").exists()
        assert not (tmp_path / "server.log").exists()

    with serving(command("well"), Weights(opened, folder), tmp_path, Silent(), loop=tmp_path):
        assert not there
    assert sorted(path.name for path in tmp_path.iterdir()) == ["serve.py", "server.log"]
