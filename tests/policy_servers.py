"""Servers in this process that answer in token ids with a tiny model's real weights, as vLLM and SGLang do."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import peft
import torch
from transformers import AutoModelForCausalLM

from tiebreak.engine.answers.answerer import Sampling
from tiebreak.engine.answers.local import generate
from tiny import PAD

AT = {"vllm": "/v1", "silent": "/v1", "full": "/v1", "sglang": ""}
"""Where each style of server takes adapters; one that is fixed takes none."""


class Fake(ThreadingHTTPServer):
    """Serves a model by its name, and adapters that it is told to load; one that is stale loads none and says so not.

    `silent` gives no log-probabilities, `full` refuses adapters in words.
    """

    daemon_threads = True

    def __init__(self, folder, style="vllm"):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.style, self.lock, self.stale = folder, style, threading.Lock(), False
        self.served = {"tiny": AutoModelForCausalLM.from_pretrained(folder).eval()}
        self.asked, self.told = [], []
        self.eos = self.served["tiny"].config.eos_token_id

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def load(self, body):
        base = AutoModelForCausalLM.from_pretrained(self.folder)
        network = base if self.stale else peft.PeftModel.from_pretrained(base, body["lora_path"]).merge_and_unload()
        self.served[body["lora_name"]] = network.eval()

    def complete(self, body):
        network = self.served.get(body.get("lora_path") or body["model"])
        if network is None:
            return 404, {"error": {"message": "no such model", "type": "x"}}
        sampling = Sampling(body["max_tokens"], body["temperature"], 1, body["seed"])
        [(ids, finished)] = generate(network, [tuple(body["prompt"])], sampling, (self.eos,), PAD)
        ids = [*ids, *([self.eos] if finished else [])]
        with torch.no_grad():
            logits = network(input_ids=torch.tensor([[*body["prompt"], *ids]])).logits[0, len(body["prompt"]) - 1 : -1]
        logps = logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids, dtype=torch.long)].tolist()
        told = {"tokens": [f"token_id:{one}" for one in ids], "token_logprobs": logps, "text_offset": [0] * len(ids)}
        choice = {"index": 0, "text": "?", "token_ids": ids, "finish_reason": "stop" if finished else "length"}
        choice["logprobs"] = None if self.style == "silent" else told
        return 200, {"id": "a", "object": "text_completion", "created": 0, "model": "tiny", "choices": [choice]}

    def adapt(self, path, body):
        self.told.append((path, body))
        if path.removesuffix("load_lora_adapter").removesuffix("un") != f"{AT.get(self.style)}/":
            return 404, {"detail": "Not Found"}
        if self.style == "full":
            return 400, {"error": {"message": "LoRA rank 32 is greater than max_lora_rank 16"}}
        if path.endswith("/load_lora_adapter"):
            self.load(body)
        else:
            del self.served[body["lora_name"]]
        return 200, "Success: LoRA adapter is what you wanted"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self._send(200, {"object": "list", "data": [{"id": name} for name in self.server.served]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            if self.path == "/v1/completions":
                self.server.asked.append(body)
                self._send(*self.server.complete(body))
            else:
                self._send(*self.server.adapt(self.path, body))

    def _send(self, status, found):
        sent = found.encode() if isinstance(found, str) else json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(found, str) else "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_):
        pass


@contextmanager
def running(folder, style="vllm"):
    """Give a server that answers for as long as it is wanted."""
    fake = Fake(folder, style)
    threading.Thread(target=fake.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield fake
    finally:
        fake.shutdown()
        fake.server_close()
