"""A server is asked in token ids for all that it could fill in itself, and what it says is read or refused."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tiebreak.config import DataConfig
from tiebreak.engine.answers.answerer import Answer, Chat, Sampling
from tiebreak.engine.answers.kept import Kept
from tiebreak.engine.answers.server import Endpoint, Server
from tiebreak.errors import ConfigError, ModelError
from tiebreak.records import Message
from tiny import load, settings

pytest.importorskip("openai", reason="pip install 'tiebreak[server]' brings the client")

DRAWN = Sampling(max_new_tokens=16, temperature=0.8, num=3, seed=7)
CHATS = [Chat((Message("user", text),)) for text in ("the cat", "yes", "the dog ran to the park")]


class Fake(ThreadingHTTPServer):
    """A server whose answer is the prompt's last ids and the seed, and an EOS; `faults` are sent first."""

    daemon_threads = True

    def __init__(self, eos, style="vllm", faults=()):
        super().__init__(("127.0.0.1", 0), Handler)
        self.eos, self.style, self.faults, self.asked = eos, style, list(faults), []
        self.lock = threading.Lock()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def choice(self, body):
        ids = [*body["prompt"][-2:], 5 + body["seed"] % 200]
        choice = {"index": 0, "text": "not to be tokenized", "logprobs": None, "finish_reason": "stop"}
        if self.style == "vllm":
            return choice | {"token_ids": [*ids, self.eos]}
        if self.style == "unfinished":
            return choice | {"token_ids": ids, "finish_reason": "length"}
        if self.style == "goes on":
            return choice | {"token_ids": [*ids, self.eos, 9, 9], "finish_reason": "length"}
        if self.style == "llama":
            return choice | {"logprobs": {"content": [{"id": token, "token": "?", "logprob": -1.0} for token in ids]}}
        if self.style == "old vllm":
            told = [f"token_id:{token}" for token in [*ids, self.eos]]
            return choice | {"logprobs": {"tokens": told, "token_logprobs": [-1.0] * 4, "text_offset": [0] * 4}}
        return choice | {"logprobs": {"tokens": ["a", "b"], "token_logprobs": [-1.0, -1.0], "text_offset": [0, 1]}}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(body | {"path": self.path, "key": self.headers["Authorization"]})
            fault = self.server.faults.pop(0) if self.server.faults else None
        if fault == "nonsense":
            status, found = 200, {"choices": []}
        elif fault == "drip":
            with contextlib.suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                while True:
                    self.wfile.write(b"1\r\n \r\n")
                    time.sleep(0.05)
            return
        elif isinstance(fault, bytes):
            status, found = 200, fault
        elif fault:
            status, found = fault, {"error": {"message": f"no {fault}\nsk-abcdefghijklmnopqrst", "type": "x"}}
        else:
            status, found = 200, {
                "id": "a", "object": "text_completion", "created": 0, "model": body["model"],
                "choices": [self.server.choice(body)],
            }  # fmt: skip
        sent = found if isinstance(found, bytes) else json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if sent.startswith(b"<") else "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def policy(tiny_model):
    return load(settings(tiny_model, "none")).policy


@pytest.fixture
def serve(policy, monkeypatch):
    monkeypatch.setenv("TIEBREAK_TEST_KEY", "a-secret-of-this-test")
    fakes = []

    def start(*args, num_retries=2, num_at_once=2, timeout_seconds=600.0, **options):
        fake = Fake(policy.eos_ids[0], *args, **options)
        fakes.append(fake)
        threading.Thread(target=fake.serve_forever, args=(0.01,), daemon=True).start()
        endpoint = Endpoint("tiny", fake.address, "TIEBREAK_TEST_KEY", num_at_once, num_retries, timeout_seconds)
        return fake, Server(endpoint, policy.renderer(DataConfig()), policy.eos_ids, policy.tokenizer.chat_template)

    yield start
    for fake in fakes:
        fake.shutdown()
        fake.server_close()


def test_every_sampling_field_is_sent_and_prompts_are_ids(serve, policy):
    fake, server = serve()
    server.answer(CHATS, DRAWN)
    renderer = policy.renderer(DataConfig())
    assert sorted(body["prompt"] for body in fake.asked) == sorted(
        list(renderer.prompt(chat.messages)) for chat in CHATS for _ in range(3)
    )
    for body in fake.asked:
        assert body["path"] == "/v1/completions"
        assert body["key"] == "Bearer a-secret-of-this-test"
        sent = {key: body[key] for key in body if key not in ("prompt", "seed", "path", "key")}
        assert sent == {
            "model": "tiny", "max_tokens": 16, "temperature": 0.8, "n": 1, "logprobs": 1, "stream": False,
            "top_p": 1.0, "top_k": -1, "min_p": 0.0, "typical_p": 1.0, "min_tokens": 0, "ignore_eos": False,
            "repetition_penalty": 1.0, "repeat_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0,
            "dry_multiplier": 0.0, "xtc_probability": 0.0, "stop_token_ids": list(policy.eos_ids),
            "return_token_ids": True, "return_tokens_as_token_ids": True, "return_tokens": True,
            "skip_special_tokens": False,
        }  # fmt: skip
        assert 0 <= body["seed"] < 2**31


def test_a_nucleus_is_told_to_the_server(serve):
    fake, server = serve()
    server.answer(CHATS[:1], replace(DRAWN, top_p=0.75))
    assert {body["top_p"] for body in fake.asked} == {0.75}


def test_seeds_are_of_prompt_and_number_and_answers_come_chat_after_chat(serve, policy):
    (one, first), (two, second) = serve(num_at_once=1), serve(num_at_once=5)
    told = []
    answers = first.answer(CHATS, DRAWN, lambda made: told.append(list(made)))
    assert second.answer(CHATS[::-1], DRAWN) == [*answers[6:], *answers[3:6], *answers[:3]]
    assert len({body["seed"] for body in one.asked}) == 9
    assert {body["seed"] for body in one.asked} == {body["seed"] for body in two.asked}
    renderer = policy.renderer(DataConfig())
    for place, answer in enumerate(answers):
        prompt = renderer.prompt(CHATS[place // 3].messages)
        assert answer.ids[:2] == prompt[-2:]
        assert answer.finished
        assert answer.text == renderer.text(answer.ids)
    assert [len(made) for made in told] == [3, 3, 3]
    assert sorted(one for made in told for one in made) == list(enumerate(answers))
    assert first.answer(CHATS[:1], Sampling(16, 0.8, 1, 7)) == answers[:1]


def test_greedy_answers_are_asked_for_once(serve):
    fake, server = serve()
    answers = server.answer(CHATS, Sampling(4, num=3))
    assert len(fake.asked) == 3
    assert all(body["temperature"] == 0 for body in fake.asked)
    assert answers == [answers[place // 3 * 3] for place in range(9)]


@pytest.mark.parametrize(
    ("style", "finished"),
    [("vllm", True), ("unfinished", False), ("goes on", True), ("llama", True), ("old vllm", True)],
)
def test_ids_are_read_wherever_a_server_puts_them(serve, policy, style, finished):
    fake, server = serve(style)
    [answer] = server.answer(CHATS[:1], Sampling(4, 1.0))
    [body] = fake.asked
    ids = (*body["prompt"][-2:], 5 + body["seed"] % 200)
    assert answer == Answer(policy.renderer(DataConfig()).text(ids), ids, finished)


def test_text_without_ids_is_refused_and_not_tokenized(serve):
    _, server = serve("text alone")
    with pytest.raises(ModelError, match=r"model tiny at http://127.*answers without token ids; wanted") as caught:
        server.answer(CHATS, DRAWN)
    assert "\n" not in str(caught.value)


def test_faults_that_may_pass_are_tried_again_and_others_are_one_line_without_secrets(serve, monkeypatch):
    fake, server = serve(faults=[500, 429])
    assert len(server.answer(CHATS[:1], Sampling(4, 1.0))) == 1
    assert len(fake.asked) == 3
    for faults, wanted in (
        ([400], "no 400"),
        ([503] * 3, "no 503"),
        (["nonsense"], "wanted one answer to one request, found 0"),
    ):
        _, server = serve(faults=faults)
        with pytest.raises(ModelError, match=f"model tiny at http://127.*{wanted}") as caught:
            server.answer(CHATS[:1], Sampling(4, 1.0))
        assert "\n" not in str(caught.value)
        assert "sk-abc" not in str(caught.value)


NONSENSE = [
    "<html>\nlog in\n</html>", "", "null", "[]", "3", "[" * 5000, '{"choices": 3}', '{"choices": {"a": 1}}',
    '{"choices": [3]}', '{"choices": [{"token_ids": ["a"]}]}', '{"choices": [{"token_ids": [-1]}]}',
    '{"choices": [{"token_ids": [true]}]}', '{"choices": [{"token_ids": [1e300]}]}',
    '{"choices": [{"token_ids": [99999999999999999999]}]}', '{"choices": [{"logprobs": "x"}]}',
    '{"choices": [{"logprobs": {"content": [3]}}]}', '{"choices": [{"logprobs": {"content": [{"id": "3"}]}}]}',
    '{"choices": [{"logprobs": {"tokens": ["token_id:x"]}}]}', '{"choices": [{"logprobs": {"tokens": [3]}}]}',
]  # fmt: skip


@pytest.mark.parametrize("body", NONSENSE, ids=[body[:60] for body in NONSENSE])
def test_an_answer_in_no_known_form_is_one_line(serve, body):
    fake, server = serve(faults=[body.encode()])
    wanted = "model tiny at http://127.*(in no form of a completion|answers without token ids)"
    with pytest.raises(ModelError, match=wanted) as caught:
        server.answer(CHATS[:1], Sampling(4, 1.0))
    assert "\n" not in str(caught.value)
    assert len(fake.asked) == 1


def test_a_key_that_cannot_be_sent_is_refused_by_its_name(serve, monkeypatch):
    fake, server = serve()
    monkeypatch.setenv("TIEBREAK_TEST_KEY", "acct:9f8e7d6c5b4a3210\n")
    with pytest.raises(ConfigError, match="variable TIEBREAK_TEST_KEY holds blanks, line ends or") as refusal:
        server.answer(CHATS[:1], Sampling(4, 1.0))
    assert "9f8e" not in str(refusal.value)
    assert fake.asked == []


@pytest.mark.parametrize(("fault", "words"), [(b" " * 2**23, "Unusable: more than 4 MiB"), ("drip", "TimeoutError")])
def test_a_server_that_sends_without_end_is_one_line(serve, fault, words):
    _, server = serve(faults=[fault], timeout_seconds=0.5, num_retries=0)
    with pytest.raises(ModelError, match=f"model tiny at http://127.*{words}"):
        server.answer(CHATS[:1], Sampling(4, 1.0))


def test_a_server_that_is_not_there_is_one_line(policy):
    endpoint = Endpoint("tiny", "http://user:word@127.0.0.1:9/v1", num_retries=0)
    server = Server(endpoint, policy.renderer(DataConfig()), policy.eos_ids)
    with pytest.raises(ModelError, match="APIConnectionError") as caught:
        server.answer(CHATS[:1], DRAWN)
    assert "\n" not in str(caught.value)
    assert "word" not in str(caught.value)


def test_what_was_answered_before_a_fault_is_not_asked_again(serve, tmp_path):
    fake, server = serve(num_at_once=1)
    path = tmp_path / "answers.jsonl"
    kept = Kept(server, path).answer(CHATS[:1], DRAWN)
    fake.faults = [400]
    with pytest.raises(ModelError):
        Kept(server, path).answer(CHATS, DRAWN)
    before = len(fake.asked)
    answers = Kept(server, path).answer(CHATS, DRAWN)
    assert answers[:3] == kept
    assert len(fake.asked) == before + 6


def test_another_address_model_or_template_is_another_answerer(policy):
    renderer = policy.renderer(DataConfig())
    made = [
        Server(Endpoint(model, address), renderer, policy.eos_ids, template).identity
        for model, address, template in [("a", None, ""), ("b", None, ""), ("a", "http://x/v1", ""), ("a", None, "t")]
    ]
    assert len(set(made)) == 4
