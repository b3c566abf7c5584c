"""The process that answers chats: it holds one model, and answers one request after another.

    python -m tiebreak.service.talk

Owns how chats are computed: rendered, generated and scored as in training, by the same code. Each line of standard
input is a request, `{"id": 3, "model": {…}, "asked": {…}}`, or `{"cancel": 3}`: nobody waits for it any more, nor for
those before it. Each line of standard output is of one request, by its `id`:

    {"begun": 12}                                    it is being answered; its prompt has so many tokens
    {"index": 0, "piece": "…"}                       more text of an answer, where that is asked for
    {"index": 0, "text": "…", "finish_reason": …}    an answer, whole: the fields of a `choices.Choice`
    {"done": true}                                   it has all its answers; or why it has none:
    {"error": {"status": 400, "message": "…", "param": …, "code": …}}

`model` is `{"kind": "base", "settings": {…}}`, with the settings of `model` in a configuration, or `{"kind": "run",
"folder": "…", "checkpoint": 40}`, where the checkpoint may be null; `asked` is `ChatRequest.asked`. The process ends
when standard input does: then whoever started it is gone.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import torch

from tiebreak.config import DataConfig, ModelConfig
from tiebreak.config.data import MOST_TOKENS
from tiebreak.data.render import Renderer
from tiebreak.engine.allocation import keep_freed_memory
from tiebreak.engine.answers.answerer import Sampling
from tiebreak.engine.answers.pieces import Pieces
from tiebreak.engine.answers.spelling import Spelling
from tiebreak.engine.memory import is_out_of_memory
from tiebreak.engine.model import Model
from tiebreak.engine.models import load_frozen
from tiebreak.errors import RenderError, TiebreakError, one_line
from tiebreak.records import Ids, Message
from tiebreak.runs import Run, open_run
from tiebreak.secrecy import masked
from tiebreak.service.choices import Choice, token_logprob
from tiebreak.service.launching import NICE
from tiebreak.service.stops import UpToStop
from tiebreak.training.trained import load_checkpoint, load_trained

PLACES_AT_ONCE = 64
"""Of whole distributions: each is as long as the vocabulary."""

Tell = Callable[..., None]
"""Writes a line of the request that is answered."""


class Cancelled(Exception):  # noqa: N818 - no fault
    """Nobody waits for the answer any more."""


@dataclass(frozen=True)
class Held:
    """A model that answers."""

    model: Model
    spelling: Spelling
    complete: Renderer
    """Refuses a conversation of which the template would leave something out."""

    @property
    def most(self) -> int | None:
        """Tokens of conversation and answer: what the model was made for, also where more of them would work."""
        return self.model.context.made_for or self.model.context.most


@dataclass(frozen=True)
class _Scored:
    """An answer, as what a scorer takes."""

    prompt_ids: Ids
    completions: tuple[Ids, ...]
    example_id: str = ""
    prompt_id: str = ""
    weight: float = 1.0


def held(spec: Mapping[str, Any]) -> Held:
    """Return the model that is meant, as training and evaluation load it; raises TiebreakError."""
    data = DataConfig()
    if spec["kind"] == "base":
        model = load_frozen(ModelConfig.model_validate(spec["settings"]), _said_aside)
    else:
        step = spec.get("checkpoint")
        run = open_run(spec["folder"]) if step is None else Run(Path(spec["folder"]))
        model = load_trained(run).policy if step is None else load_checkpoint(run, step, _said_aside)
        data = run.config.data
    any_length = data.model_copy(update={"max_length": MOST_TOKENS, "truncation": "drop"})
    complete = Renderer(model.tokenizer, model.eos_ids, any_length, model.now)
    return Held(model, Spelling(model.tokenizer), complete)


def _said_aside(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - what there is to say goes into the log of whoever started this


def answer(by: Held, asked: Mapping[str, Any], tell: Tell, is_gone: Callable[[], bool] = lambda: False) -> None:
    """Answer a request, told line by line; raises RenderError where it cannot be, and Cancelled where nobody waits.

    Each answer is what the model gives to its number and the request's seed, whether others are asked for with it,
    whether it is streamed, and where a stop sequence ends it. Greedy answers are computed once.
    """
    prompt = prompt_of(by, asked["messages"])
    tell(begun=len(prompt))
    is_greedy, num = asked["temperature"] <= 0, asked["n"]
    computed = 1 if is_greedy else num
    room = asked["max_tokens"] if by.most is None else min(asked["max_tokens"], by.most - len(prompt))
    sampling = Sampling(room, asked["temperature"], computed, asked["seed"], asked["top_p"])
    text_of = by.model.renderer(DataConfig()).text

    def hear(place: int) -> Callable[[str], None]:
        def told(piece: str) -> None:
            for index in range(num) if is_greedy else (place,):
                tell(index=index, piece=piece)

        return told if asked["stream"] else lambda _: None

    texts = [UpToStop(asked["stop"], hear(place)) for place in range(computed)]
    pieces = [Pieces(text_of, text.take) for text in texts]

    def heard(place: int, token: int) -> bool:
        if is_gone():
            raise Cancelled
        if token not in by.model.eos_ids:
            pieces[place].take(token)
        return texts[place].stopped

    found = by.model.generated([prompt], sampling, heard=heard)
    for place, (ids, finished) in enumerate(found):
        whole, text = text_of(ids), texts[place]
        pieces[place].end(whole)
        text.end()
        # What a tokenizer took back when more tokens had come is not in the text of all of them.
        said = text.text if text.stopped else whole
        kept = ids[: _num_behind(text_of, ids, said)] if text.stopped else ids
        logprobs = None if asked["logprobs"] is None else _logprobs(by, prompt, kept, asked["logprobs"])
        choice = Choice(said, "stop" if finished or text.stopped else "length", len(ids), logprobs)
        for index in range(num) if is_greedy else (place,):
            tell(index=index, **asdict(choice))
    tell(done=True)


def prompt_of(by: Held, messages: Sequence[Mapping[str, Any]]) -> Ids:
    """Return a conversation as the model's tokens; raises RenderError where a part of it would be left out, or cut."""
    said = [Message(one["role"], one["content"], one.get("name")) for one in messages]
    prompt, most = by.complete.asked(said), by.most
    if most is not None and len(prompt) >= most:
        raise RenderError(
            "too_long",
            f"the conversation has {len(prompt)} tokens and the model is made for {most}, so that none is left for an "
            "answer; ask something shorter",
        )
    return prompt


def _num_behind(text_of: Callable[[Ids], str], ids: Ids, text: str) -> int:
    """Return how many tokens are needed for a text that they begin with; the last one may reach beyond it."""
    num = len(ids)
    while num and text_of(ids[: num - 1]).startswith(text):
        num -= 1
    return num


def _logprobs(by: Held, prompt: Ids, ids: Ids, num_top: int) -> list[dict[str, Any]]:
    """Return how likely each token of an answer was, and so many others, as the model scores completions."""
    if not ids:
        return []
    spell = by.spelling.bytes_of
    with by.model.at_work(by.model.adapter) as model, torch.no_grad():
        example = _Scored(prompt, (ids,))
        top: list[list[tuple[int, float]]] = []
        if not num_top:
            values, top = model.score([example]).values.tolist(), [[] for _ in ids]
        else:
            whole = model.whole([example])
            values = whole.tokens.values.tolist()
            for places in torch.split(torch.arange(len(ids), device=whole.tokens.values.device), PLACES_AT_ONCE):
                best = whole.at(places).topk(num_top, dim=-1)
                rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                top += [[*zip(*row, strict=True)] for row in rows]
    return [
        token_logprob(
            spell(token, first=place == 0), value, [(spell(one, first=place == 0), logp) for one, logp in top[place]]
        )
        for place, (token, value) in enumerate(zip(ids, values, strict=True))
    ]


# ------------------------------------------------------------------------------------------------ the process


class Talk:
    """Answers requests in their order, by the model that each of them names."""

    def __init__(self, out: IO[str], load: Callable[[Mapping[str, Any]], Held] = held) -> None:
        self._out = out
        self._load = load
        self._spec: Any = None
        self._held: Held | None = None
        self.cancelled = 0
        """The last request that nobody waits for any more."""

    def answer(self, request: Mapping[str, Any]) -> None:
        """Answer a request, or tell in one line why there is no answer."""
        number = request["id"]

        def tell(**line: Any) -> None:
            self._out.write(json.dumps({"id": number, **line}) + "\n")
            self._out.flush()

        def fail(status: int, message: str, param: str | None = None, code: str | None = None) -> None:
            tell(error={"status": status, "message": message, "param": param, "code": code})

        try:
            by = self._holding(request["model"])
        except Exception as error:  # noqa: BLE001 - whatever a model's files make libraries raise
            traceback.print_exc()
            self._let_go()
            why = "memory ran out" if is_out_of_memory(error) else _told(error, request["model"])
            return fail(503, f"the model cannot be loaded: {why}", "model", "model_unavailable")
        try:
            answer(by, request["asked"], tell, lambda: number <= self.cancelled)
        except Cancelled:
            tell(done=True)
        except RenderError as error:
            code = "context_length_exceeded" if error.reason == "too_long" else "invalid_value"
            fail(400, _told(error, request["model"]), "messages", code)
        except Exception as error:  # noqa: BLE001 - the next request may well be answered
            traceback.print_exc()
            if not is_out_of_memory(error):
                return fail(500, f"the model failed: {_told(error, request['model'])}")
            self._let_go()
            fail(503, "memory ran out while it was answered; ask for fewer or shorter answers", code="out_of_memory")
        return None

    def _holding(self, spec: Mapping[str, Any]) -> Held:
        if self._held is None or self._spec != spec:
            self._let_go()  # before, so that two models are never there together
            self._held, self._spec = self._load(spec), spec
        return self._held

    def _let_go(self) -> None:
        self._held = self._spec = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _told(error: Exception, spec: Mapping[str, Any]) -> str:
    """Return an error in one line, which names no folder of this machine."""
    text = masked(one_line(error, 400))
    for place in filter(None, (spec.get("folder"), *dict(spec.get("settings") or {}).values())):
        if isinstance(place, str) and Path(place).is_absolute():
            text = text.replace(place, Path(place).name)
    return text if isinstance(error, TiebreakError) else f"{type(error).__name__}: {text}"


def main() -> None:
    """Answer the requests of standard input until it ends."""
    os.nice(NICE)
    # What libraries print is prose, and goes where standard error goes: standard output is for answers alone.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    keep_freed_memory()
    talk, requests = Talk(out), SimpleQueue[Any]()

    def listen() -> None:
        for line in sys.stdin.buffer:
            told = json.loads(line)
            if "cancel" in told:
                talk.cancelled = told["cancel"]
            else:
                requests.put(told)
        os._exit(0)  # whatever is computed, nobody waits for it

    threading.Thread(target=listen, daemon=True).start()
    while True:
        talk.answer(requests.get())


if __name__ == "__main__":
    main()
