"""How likely a model holds what stands behind something: of a plain text, of answers in its chat, of a text's ends.

Owns how these become tokens, and the file in which log-probabilities survive a crash. The scorer is that of training.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tiebreak import faults
from tiebreak.data.render import Renderer
from tiebreak.diagnosis.strides import NOT_FINITE
from tiebreak.engine.model import Model
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.scorer import Cut
from tiebreak.errors import Diverged, RenderError
from tiebreak.files import append_jsonl, appended_jsonl
from tiebreak.fingerprint import fingerprint
from tiebreak.progress import Advance
from tiebreak.records import Ids, Message, Pair


@dataclass(frozen=True)
class Passage:
    """Tokens that are given, and one or several ways to go on, which are scored."""

    example_id: str
    prompt_ids: Ids
    completions: tuple[Ids, ...]
    weight: float = 1.0

    @property
    def prompt_id(self) -> str:
        """The same as the example's: no two share a prompt."""
        return self.example_id


@dataclass(frozen=True)
class Likelihood:
    """Summed log-probability (nats) of so many tokens."""

    logps: float
    num_tokens: int

    @property
    def per_token(self) -> float:
        """The mean."""
        return self.logps / self.num_tokens


def text_passage(name: str, text: str, model: Model, num_given: int, room: int) -> Passage:
    """Return a text as the tokenizer writes one, with a BOS where it puts one, cut at the end where it has no room.

    Raises RenderError where nothing would be left to score.
    """
    ids = _encoded(text, model)
    given = min(num_given, room // 2)
    if len(ids) <= given:
        raise RenderError("too_short", f"{len(ids)} tokens, of which the first {given} are given")
    return Passage(name, ids[:given], (ids[given:room],))


def chat_passage(name: str, prompt: Sequence[Message], answers: Sequence[str], renderer: Renderer) -> Passage:
    """Return two or more answers to a chat, as training would render them; raises RenderError.

    Their EOS is left out: it would weigh more the shorter an answer is, and training moves it the most.
    """
    first = Message("assistant", answers[0])
    pairs = [renderer.pair(Pair(tuple(prompt), first, Message("assistant", other))) for other in answers[1:]]
    ids = (pairs[0].chosen_ids, *(pair.rejected_ids for pair in pairs))
    return Passage(name, pairs[0].prompt_ids, tuple(one[:-1] for one in ids))


def continuation_passages(name: str, sides: Sequence[tuple[str, str]], model: Model, room: int) -> list[Passage]:
    """Return for each (text before, text behind) the tokens of the whole, of which those behind are scored.

    One passage where all go on from the same tokens, else one for each. Blanks at the end of what stands before belong
    to what follows, as most tokenizers have it. A token that reaches over the seam is scored. Raises RenderError.
    """
    found: list[tuple[Ids, Ids]] = []
    for before, behind in sides:
        head, whole = _encoded(before.rstrip(), model), _encoded(before + behind, model)
        seam = next((at for at, (one, two) in enumerate(zip(head, whole, strict=False)) if one != two), len(head))
        if len(whole) > room:
            raise RenderError("too_long", f"{len(whole)} tokens, more than {room}")
        if not 0 < seam < len(whole):
            raise RenderError("seam", f"no token of {behind[:40]!r} can be told from those before it")
        found.append((whole[:seam], whole[seam:]))
    prompts = {prompt for prompt, _ in found}
    if len(prompts) == 1:
        return [Passage(name, prompts.pop(), tuple(behind for _, behind in found))]
    return [Passage(f"{name}/{place}", prompt, (behind,)) for place, (prompt, behind) in enumerate(found)]


def likelihoods(
    model: Model, passages: Sequence[Passage], cut: Cut, advance: Advance, kept_in: Path | None = None
) -> dict[str, list[Likelihood]]:
    """Return by a passage's id what each of its completions has, in order.

    `kept_in` is a file that remembers whole groups, so that the others are grouped as they would have been. A full disk
    costs only that they are scored again.
    """
    found: dict[str, list[Likelihood]] = {}
    known = _read(kept_in)
    scorer = [model.identity, model.scorer.layout] if kept_in else []
    for group in cut(passages):
        if kept_in:
            faults.point("evaluate")
        keys = [fingerprint([*scorer, one.prompt_ids, one.completions]) for one in group]
        if not all(key in known for key in keys):
            with evaluation_mode(model.network), torch.no_grad():
                rows = iter(row.double().cpu() for row in model.score(group).rows())
            made = [[Likelihood(float((row := next(rows)).sum()), len(row)) for _ in one.completions] for one in group]
            known |= zip(keys, made, strict=True)
            if kept_in:
                written = (
                    {"key": key, "said": [[one.logps, one.num_tokens] for one in some]}
                    for key, some in zip(keys, made, strict=True)
                )
                append_jsonl(kept_in, written)
        found |= {one.example_id: known[key] for one, key in zip(group, keys, strict=True)}
        advance(len(group))
    return found


def require_finite(values: Mapping[str, float], what: str, side: str) -> None:
    """Raise Diverged where a value is none: the weights of that side, reference or policy, are broken."""
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        advice = "lower training.learning_rate" if side == "policy" else "start from other weights"
        raise Diverged(
            f"{what}: the {side}'s log-probabilities are {NOT_FINITE} for {len(bad)} of {len(values)} "
            f"({', '.join(name[:12] for name in bad[:4])}): its weights are broken; {advice}"
        )


def _encoded(text: str, model: Model) -> Ids:
    """Return a text's ids without the EOS that some tokenizers put behind one."""
    ids = list(model.tokenizer.encode(text))
    while ids and ids[-1] in model.eos_ids:
        del ids[-1]
    return tuple(ids)


def _read(path: Path | None) -> dict[str, list[Likelihood]]:
    found: dict[str, list[Likelihood]] = {}
    for row in appended_jsonl(path) if path else ():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # what is none is scored again
            found[str(row["key"])] = [Likelihood(float(logps), int(num)) for logps, num in row["said"]]
    return found
