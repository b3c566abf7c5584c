"""The server's side of chats: one process, one request after another, and whoever is gone is computed no further."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from contextlib import aclosing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import openai
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from served import settings_of
from tiebreak.config import build_config
from tiebreak.engine.answers.answerer import Chat as Asked
from tiebreak.engine.answers.answerer import Sampling
from tiebreak.records import Message
from tiebreak.service import answering, keys
from tiebreak.service.bodies import parsed
from tiebreak.service.chat import Chat, while_there
from tiebreak.service.completions import ChatRequest
from tiebreak.service.door import Edge, Service, answer_errors
from tiebreak.service.refusals import Refusal
from tiebreak.service.store import open_store
from tiebreak.service.talk import held
from tiebreak.service.upstream import Upstream

USER = {"role": "user", "content": "the cat sat"}
LEAST = {"model": "tiny", "messages": [USER], "max_tokens": 12, "seed": 7}

PLAIN = """
import json, os, sys, time
told = {}
for line in sys.stdin:
    one = json.loads(line)
    print(line, file=sys.stderr, flush=True)
    if "cancel" in one:
        continue
    def say(**more):
        print(json.dumps({"id": one["id"], **more}), flush=True)
    text = one["asked"]["messages"][-1]["content"]
    say(begun=3)
    if text == "die":
        os.kill(os.getpid(), 9)
    if text == "exit":
        print("why it ended", file=sys.stderr)
        sys.exit(3)
    if text == "half":
        sys.stdout.write('{"id": '); sys.stdout.flush(); os._exit(1)
    if text.startswith("sleep"):
        time.sleep(float(text[5:]))
    if text.startswith("many"):
        for _ in range(int(text[5:])):
            say(index=0, piece="xxxx" * 500)
    if text == "fail":
        say(error={"status": 400, "message": "no", "param": "messages", "code": "invalid_value"})
        continue
    say(index=0, text=str(os.getpid()), finish_reason="stop", num_tokens=1, logprobs=None)
    say(done=True)
"""
"""A process that speaks as the one that answers does, and holds no model: it starts in no time."""


def _said(text, **more):
    return ChatRequest.model_validate(LEAST | {"messages": [{"role": "user", "content": text}]} | more)


def _run(tmp_path, work, **more):
    """What comes of some work with a chat, whose process is gone afterwards."""

    async def whole():
        chat = Chat(tmp_path / "chat.log", **more)
        try:
            return await work(chat)
        finally:
            await chat.close()

    return asyncio.run(whole())


def _plain(tmp_path, work, **more):
    return _run(tmp_path, work, program=(sys.executable, "-c", PLAIN), **more)


def _pid(completion):
    return int(completion["choices"][0]["message"]["content"])


async def _gone(pid):
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        await asyncio.sleep(0.05)
    return False


def test_requests_are_answered_one_after_the_other_and_of_a_key_the_ninth_that_waits_is_refused(tmp_path):
    async def work(chat):
        many = [asyncio.create_task(chat.complete("one", {}, _said("sleep0.05"))) for _ in range(12)]
        return await asyncio.gather(*many, return_exceptions=True)

    found = _plain(tmp_path, work)
    refused = [one for one in found if isinstance(one, Refusal)]
    assert len(refused) == 3
    assert {(one.status, one.retry_after, one.code) for one in refused} == {(429, 5, "queue_full")}
    assert len({_pid(one) for one in found if not isinstance(one, Refusal)}) == 1


def test_a_key_that_fills_its_waiting_room_shuts_out_nobody_and_the_next_turn_is_another_s(tmp_path):
    async def work(chat):
        ends = []

        async def ask(key, number):
            try:
                await chat.complete(key, {}, _said("sleep0.05"))
                ends.append((key, number))
            except Refusal as refusal:
                return refusal.code
            return None

        flood = [asyncio.create_task(ask("flood", number)) for number in range(20)]
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(ask(key, number)) for number in range(2) for key in ("late", "later")]
        codes = await asyncio.gather(*flood, *others)
        return codes, ends

    codes, ends = _plain(tmp_path, work)
    assert codes == [None] * 9 + ["queue_full"] * 11 + [None] * 4
    assert ends[:7] == [
        ("flood", 0), ("late", 0), ("later", 0), ("flood", 1), ("late", 1), ("later", 1), ("flood", 2)
    ]  # fmt: skip


def test_a_turn_that_nobody_waits_for_any_more_is_the_next_one_s(tmp_path):
    async def work(chat):
        first = asyncio.create_task(chat.complete("flood", {}, _said("sleep0.2")))
        left = [asyncio.create_task(chat.complete("gone", {}, _said("yes"))) for _ in range(9)]
        stays = asyncio.create_task(chat.complete("flood", {}, _said("yes")))
        await asyncio.sleep(0.05)
        for one in left:
            one.cancel()
        await asyncio.wait(left)
        assert _pid(await asyncio.wait_for(stays, 5)) == _pid(await first)
        assert _pid(await asyncio.wait_for(chat.complete("gone", {}, _said("yes")), 5))

    _plain(tmp_path, work)


def test_a_process_that_dies_is_told_in_one_line_and_started_again_with_the_next_request(tmp_path):
    async def work(chat):
        first = _pid(await chat.complete("one", {}, _said("yes")))
        told = []
        for text in ("die", "exit", "half"):
            with pytest.raises(Refusal) as caught:
                await chat.complete("one", {}, _said(text))
            told.append((caught.value.status, str(caught.value)))
        assert _pid(await chat.complete("one", {}, _said("yes"))) != first
        return told

    told = _plain(tmp_path, work)
    assert [status for status, _ in told] == [503] * 3
    assert "SIGKILL, as a system does where memory runs out; it is started again" in told[0][1]
    assert "ended with 3, and the server's chat.log says why" in told[1][1]
    assert all("\n" not in line and str(tmp_path) not in line for _, line in told)


def test_what_fails_within_a_stream_is_an_event_and_before_it_a_refusal(tmp_path):
    async def work(chat):
        events = [event async for event in await chat.stream("one", {}, _said("die", stream=True))]
        assert b"data: [DONE]" not in events[-1]
        assert json.loads(events[-1].removeprefix(b"data: "))["error"]["code"] == "chat_ended"
        with pytest.raises(Refusal, match="no"):
            await chat.complete("one", {}, _said("fail"))
        return [event async for event in await chat.stream("one", {}, _said("yes", stream=True))]

    assert _plain(tmp_path, work)[-1] == b"data: [DONE]\n\n"


def test_a_program_that_cannot_be_started_is_one_line(tmp_path):
    async def work(chat):
        with pytest.raises(Refusal, match=r"cannot be started \(No such file") as caught:
            await chat.complete("one", {}, _said("yes"))
        assert caught.value.status == 503

    _run(tmp_path, work, program=(str(tmp_path / "none"),))


def test_an_idle_process_is_let_go_and_not_while_somebody_waits(tmp_path):
    async def work(chat):
        first = _pid(await chat.complete("one", {}, _said("sleep1")))
        assert await _gone(first)
        second = _pid(await chat.complete("one", {}, _said("yes")))
        assert second != first
        assert _pid(await chat.complete("one", {}, _said("yes"))) == second

    _plain(tmp_path, work, idle_seconds=0.4)


def test_closing_ends_the_process_also_one_that_does_not_heed_its_input(tmp_path):
    pids = []

    async def work(chat):
        pids.append(_pid(await chat.complete("one", {}, _said("yes"))))
        asleep = asyncio.create_task(chat.complete("one", {}, _said("sleep60")))
        await asyncio.sleep(0.2)
        await chat.close()
        with pytest.raises(Refusal):
            await asleep

    since = time.monotonic()
    _plain(tmp_path, work)
    assert time.monotonic() - since < 20
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_request_that_nobody_waits_for_is_cancelled_and_the_next_one_is_answered(tmp_path):
    async def work(chat):
        pid = _pid(await chat.complete("one", {}, _said("yes")))
        gone = asyncio.create_task(chat.complete("one", {}, _said("sleep0.5")))
        waits = asyncio.create_task(chat.complete("one", {}, _said("sleep0")))
        await asyncio.sleep(0.2)
        gone.cancel()
        assert _pid(await waits) == pid
        events = await chat.stream("one", {}, _said("sleep0.3", stream=True))
        async with aclosing(events):
            await anext(events)
        assert _pid(await chat.complete("one", {}, _said("yes"))) == pid
        kept = await chat.stream("one", {}, _said("sleep0.3", stream=True))  # never read: its turn ends with it
        del kept
        assert _pid(await asyncio.wait_for(chat.complete("one", {}, _said("yes")), 5)) == pid

    _plain(tmp_path, work)
    lines = [json.loads(line) for line in (tmp_path / "chat.log").read_text().split("\n") if line]
    assert [line["cancel"] for line in lines if "cancel" in line] == [2, 4, 6]


def test_a_stream_that_nobody_reads_holds_up_nobody_and_is_whole_when_it_is_read(tmp_path):
    async def work(chat):
        unread = await chat.stream("one", {}, _said("many 300", stream=True))
        assert _pid(await asyncio.wait_for(chat.complete("one", {}, _said("yes")), 10))
        events = [event async for event in unread]
        assert sum(b"xxxx" in event for event in events) == 300
        assert events[-1] == b"data: [DONE]\n\n"

    _plain(tmp_path, work)


def test_a_stream_says_how_many_tokens_it_took_also_one_that_is_left(tmp_path):
    async def work(chat):
        spent = []
        async for _ in await chat.stream("one", {}, _said("yes", stream=True), spent.append):
            pass
        left = await chat.stream("one", {}, _said("many 300", stream=True), spent.append)
        async with aclosing(left):
            for _ in range(6):
                await anext(left)
        async for _ in await chat.stream("one", {}, _said("fail", stream=True), spent.append):
            pass
        return spent

    # three of the prompt, and one written; three and five pieces, of which the client saw them; three, and none written
    assert _plain(tmp_path, work) == [4, 8, 3]


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_that_fails_takes_no_tokens_of_the_minute(tmp_path, stream):
    settings = settings_of(quotas={"tokens_a_minute": 1000}, models={"tiny": {"model": {"name": "tiny"}}})
    store = open_store(tmp_path / "service")
    _, token = keys.add(store, "somebody")
    configs = {"tiny": build_config({"model": {"name": "tiny"}, "data": {"train": "a"}}, where="here")}

    async def work(chat):
        app = FastAPI()
        app.state.service = Service(store, settings, configs, chat)
        answer_errors(app)
        app.include_router(answering.routes(), prefix="/v1")
        transport = httpx2.ASGITransport(app)
        head = {"authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://x/v1", headers=head) as client:
            for _ in range(5):
                body = LEAST | {"max_tokens": 900, "stream": stream}
                answer = await client.post("/chat/completions", json=body)
                assert answer.status_code == 503, answer.text

    _run(tmp_path, work, program=(str(tmp_path / "none"),))


def test_a_client_that_takes_nothing_of_more_than_is_kept_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("tiebreak.service.chat.STALLED_SECONDS", 0.5)

    async def work(chat):
        unread = await chat.stream("one", {}, _said("many 300", stream=True))
        assert _pid(await asyncio.wait_for(chat.complete("one", {}, _said("yes")), 10))
        events = [event async for event in unread]
        assert 2 < len(events) < 100
        assert json.loads(events[-1].removeprefix(b"data: "))["error"]["code"] == "answer_unread"
        # One that reads slowly, and not too slowly, gets all of it.
        slow, seen = await chat.stream("one", {}, _said("many 300", stream=True)), 0
        async for event in slow:
            seen += b"xxxx" in event
            await asyncio.sleep(0.002)
        assert seen == 300

    _plain(tmp_path, work, most_kept=50_000)
    assert '{"cancel": 1}' in (tmp_path / "chat.log").read_text()


def test_a_connection_that_takes_nothing_is_given_up_and_others_are_answered_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr("tiebreak.service.door.STALLED_SECONDS", 1.0)
    monkeypatch.setattr("tiebreak.service.door.TAKEN_BYTES", 10**9)

    async def work(chat):
        server = uvicorn.Server(uvicorn.Config(Edge(_app(chat, {})), port=0, log_level="critical"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.05)
        unread = socket.socket()
        unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        unread.connect(server.servers[0].sockets[0].getsockname())
        body = json.dumps(LEAST | {"messages": [{"role": "user", "content": "many 20000"}], "stream": True}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
        unread.sendall(head.encode() + b"content-type: application/json\r\n\r\n" + body)
        await asyncio.sleep(0.5)
        assert _pid(await asyncio.wait_for(chat.complete("one", {}, _said("yes")), 10))
        until = time.monotonic() + 10
        while server.server_state.tasks and time.monotonic() < until:
            await asyncio.sleep(0.1)
        assert not server.server_state.tasks
        unread.close()
        server.should_exit = True
        await serving

    _plain(tmp_path, work)


def test_work_for_somebody_who_is_gone_is_cancelled():
    async def work():
        ended = []

        async def long():
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(True)

        async def at_once():
            return 5

        async def there():
            return False

        async def left():
            return True

        async def fails():
            raise Refusal(400, "no")

        assert await while_there(there, at_once()) == 5
        assert await while_there(left, long()) is None
        with pytest.raises(Refusal):
            await while_there(there, fails())
        return ended

    assert asyncio.run(work()) == [True]


# ------------------------------------------------------------------------------------------------ by the client


def _app(chat, model):
    app = FastAPI()

    @app.exception_handler(Refusal)
    async def refused(_, refusal):
        return JSONResponse(refusal.body, refusal.status, refusal.headers)

    @app.post("/v1/chat/completions")
    async def completions(request: Request):
        asked = parsed(ChatRequest, await request.body())
        if asked.stream:
            return StreamingResponse(await chat.stream("one", model, asked), media_type="text/event-stream")
        done = await while_there(request.is_disconnected, chat.complete("one", model, asked))
        return done or Response(status_code=499)

    return app


def _client(app):
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app))
    return openai.AsyncOpenAI(api_key="none", base_url="http://here/v1", http_client=http, max_retries=0,
                              _strict_response_validation=True)  # fmt: skip


def test_the_client_is_answered_as_the_model_answers_and_scores(tmp_path, tiny_model, tiny_gpt):
    model = {"kind": "base", "settings": {"name": str(tiny_model), "device": "cpu"}}
    by = held(model)
    drawn = Sampling(12, 1.0, 2, 7)
    wanted = by.model.answer([Asked((Message("user", "the cat sat"),))], drawn)

    async def work(chat):
        client = _client(_app(chat, model))
        create = client.chat.completions.create
        plain = await create(**LEAST, n=2, logprobs=True, top_logprobs=3)
        assert [choice.message.content for choice in plain.choices] == [one.text for one in wanted]
        assert plain.usage.completion_tokens == sum(len(one.ids) for one in wanted)
        texts, logprobs, reasons, usage = ["", ""], [[], []], {}, None
        async for chunk in await create(
            **LEAST, n=2, logprobs=True, top_logprobs=3, stream=True, stream_options={"include_usage": True}
        ):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                reasons[choice.index] = choice.finish_reason
                logprobs[choice.index] += choice.logprobs.content if choice.logprobs else []
        assert texts == [one.text for one in wanted]
        assert [reasons[0], reasons[1]] == [choice.finish_reason for choice in plain.choices]
        assert logprobs == [choice.logprobs.content for choice in plain.choices]
        assert usage == plain.usage
        async with client.chat.completions.stream(**LEAST, logprobs=True) as stream:
            with pytest.raises(openai.LengthFinishReasonError) as cut:  # the client's own word for it
                await stream.get_final_completion()
        final = cut.value.completion
        assert final.choices[0].message.content == wanted[0].text
        assert len(final.choices[0].logprobs.content) == len(wanted[0].ids)
        with pytest.raises(openai.BadRequestError, match="tools") as caught:
            await create(**LEAST, tools=[{"type": "function", "function": {"name": "f"}}])
        assert caught.value.param == "tools"
        short = {"kind": "base", "settings": {"name": str(tiny_gpt), "device": "cpu"}}
        with pytest.raises(openai.BadRequestError, match="the model is made for 64") as caught:
            long = LEAST | {"messages": [{"role": "user", "content": "no " * 60}], "stream": True}
            await _client(_app(chat, short)).chat.completions.create(**long)
        assert caught.value.code == "context_length_exceeded"
        # What a client leaves in the middle is computed no further, and the next answer is not behind it.
        long = await chat.stream(
            "one", model, ChatRequest.model_validate(LEAST | {"max_tokens": 2**20, "n": 16, "stream": True})
        )
        async with aclosing(long):
            for _ in range(20):
                await anext(long)
        since = time.monotonic()
        again = await create(**LEAST)
        assert time.monotonic() - since < 10
        assert again.choices[0].message.content == wanted[0].text
        return plain

    plain = _run(tmp_path, work)
    prompt = by.model.prompt_ids(Asked((Message("user", "the cat sat"),)), drawn)
    for choice, one in zip(plain.choices, wanted, strict=True):
        scored = by.model.score([_Scored(prompt, (one.ids,))]).values.tolist()
        assert [token.logprob for token in choice.logprobs.content] == pytest.approx(scored, abs=1e-4)
    assert plain.usage.prompt_tokens == len(prompt)


class _Scored:
    example_id = prompt_id = ""
    weight = 1.0

    def __init__(self, prompt_ids, completions):
        self.prompt_ids, self.completions = prompt_ids, completions


def test_a_client_that_hangs_up_is_computed_no_further(tmp_path, tiny_model):
    model = {"kind": "base", "settings": {"name": str(tiny_model), "device": "cpu"}}

    async def work(chat):
        await chat.complete("one", model, ChatRequest.model_validate(LEAST))
        server = uvicorn.Server(uvicorn.Config(_app(chat, model), port=0, log_level="error"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.05)
        address = server.servers[0].sockets[0].getsockname()
        for stream in (True, False):
            body = json.dumps(LEAST | {"max_tokens": 2**20, "n": 16, "stream": stream}).encode()
            reader, writer = await asyncio.open_connection(*address)
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
            writer.write(head.encode() + b"content-type: application/json\r\n\r\n" + body)
            if stream:
                assert b"200 OK" in await reader.readline()
                await reader.readuntil(b'"content": ')
            else:
                await asyncio.sleep(0.5)
            writer.close()
            await asyncio.wait_for(chat.complete("one", model, ChatRequest.model_validate(LEAST)), 10)
        server.should_exit = True
        await serving

    _run(tmp_path, work)


# ------------------------------------------------------------------------------------------------ upstream


class Other(BaseHTTPRequestHandler):
    """A server that answers chats of its models, and of adapters that it was given, as vLLM does."""

    def do_POST(self):
        server, body = self.server, self.rfile.read(int(self.headers["content-length"]))
        server.seen.append((self.path, dict(self.headers), body))
        told = json.loads(body)
        if self.path == "/v1/load_lora_adapter":
            name = told["lora_name"]
            if name in server.adapters:
                message = f"The lora adapter '{name}' has already been loaded. If you want to load it in place, …"
                return self._say(400, json.dumps({"error": {"message": message}}).encode())
            if server.refuses:
                return self._say(500, b'{"error": {"message": "no room in /secret/folder"}}')
            server.adapters.add(name)
            return self._say(200, b"Success")
        if told["model"] not in server.adapters:
            return self._say(404, b'{"error": {"message": "no such model"}}')
        if told.get("stream"):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            for event in (b"data: 1\n\n", b"data: 2\n\n", b"data: [DONE]\n\n"):
                self.wfile.write(event)
                self.wfile.flush()
                server.go.wait(5)
            return None
        return self._say(200, b'{"choices":   [ ]}')

    def _say(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def _other():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    server.daemon_threads = True
    server.seen, server.adapters, server.refuses, server.go = [], {"base"}, False, threading.Event()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.go.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _passed(address, work, **more):
    async def whole():
        upstream = Upstream(address, **more)
        try:
            return await work(upstream)
        finally:
            await upstream.close()

    return asyncio.run(whole())


async def _whole(passed):
    return passed.status, b"".join([some async for some in passed.body])


def test_a_chat_is_passed_on_byte_for_byte_and_so_is_its_answer():
    body = b'{ "model": "base",  "odd": 1.50 }'

    async def work(upstream):
        passed = await upstream.passed_on(body, "base")
        assert passed.headers == {"content-type": "application/json"}
        assert await _whole(passed) == (200, b'{"choices":   [ ]}')
        assert await _whole(await upstream.passed_on(b'{"model": "none"}', "none")) == (
            404, b'{"error": {"message": "no such model"}}',
        )  # fmt: skip

    with _other() as (server, address):
        _passed(address, work, key="k")
        path, headers, seen = server.seen[0]
        assert (path, seen) == ("/v1/chat/completions", body)
        assert {name.lower(): value for name, value in headers.items()}["authorization"] == "Bearer k"


def test_a_stream_is_passed_on_while_it_comes_and_may_be_left():
    async def work(upstream, server):
        passed = await upstream.passed_on(b'{"model": "base", "stream": true}', "base")
        assert await anext(passed.body) == b"data: 1\n\n"  # the others were not sent yet
        server.go.set()
        assert b"".join([some async for some in passed.body]) == b"data: 2\n\ndata: [DONE]\n\n"
        left = await upstream.passed_on(b'{"model": "base", "stream": true}', "base")
        await left.body.aclose()

    with _other() as (server, address):
        _passed(address, lambda upstream: work(upstream, server))


def test_an_adapter_is_given_once_and_again_to_a_server_that_lost_it(tmp_path):
    body = b'{"model": "ft:a"}'

    async def work(upstream, server):
        for _ in range(2):
            found = await asyncio.gather(*(upstream.passed_on(body, "ft:a", tmp_path) for _ in range(3)))
            assert [(await _whole(one))[0] for one in found] == [200] * 3
        server.adapters.discard("ft:a")
        assert (await _whole(await upstream.passed_on(body, "ft:a", tmp_path)))[0] == 200

    with _other() as (server, address):
        _passed(address, lambda upstream: work(upstream, server), loads=True)
        pushed = [json.loads(body) for path, _, body in server.seen if path.endswith("load_lora_adapter")]
        assert pushed == [{"lora_name": "ft:a", "lora_path": str(tmp_path)}] * 2
        # Another server of ours finds it there, and one that is not to load adapters gives none.
        _passed(address, lambda upstream: upstream.passed_on(body, "ft:a", tmp_path), loads=True)
        num = len(server.seen)
        _passed(address, lambda upstream: upstream.passed_on(body, "ft:a", tmp_path))
        assert len(server.seen) == num + 1


def test_a_server_that_is_not_there_or_takes_no_adapter_is_one_line(tmp_path):
    async def work(upstream):
        with pytest.raises(Refusal) as caught:
            await upstream.passed_on(b'{"model": "ft:a"}', "ft:a", tmp_path)
        return caught.value

    with _other() as (server, address):
        server.refuses = True
        refused = _passed(address, work, loads=True)
    gone = _passed(address, work, loads=True)
    for refusal, words in ((refused, "does not load the adapter (500)"), (gone, "cannot be reached (ConnectError)")):
        assert refusal.status == 503
        assert words in str(refusal)
        assert "/" not in str(refusal)


def test_the_server_s_side_of_chats_loads_no_torch():
    told = "import sys, tiebreak.service.chat, tiebreak.service.upstream; print({'torch', 'numpy'} & set(sys.modules))"
    import subprocess

    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
