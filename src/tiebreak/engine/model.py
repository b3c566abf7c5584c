"""A model: weights with their tokenizer, and all that is needed to use them.

Owns what goes together. Policy, reference, an exported artefact: all are Models, told apart by their weights and by the
adapter that is at work on them.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import peft
import torch
from torch import nn

from tiebreak.config import DataConfig
from tiebreak.data.render import Renderer
from tiebreak.engine.answers.answerer import Answer, Chat, Done, Sampling, nothing
from tiebreak.engine.answers.local import Heard, Told, generate
from tiebreak.engine.answers.pieces import Hear, Pieces
from tiebreak.engine.attention import causal_model
from tiebreak.engine.loading import quietly
from tiebreak.engine.merging import obstacle
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.positions import Context, context_of
from tiebreak.engine.ranks import Alone, Ranks
from tiebreak.engine.scorer import Scorer, Whole
from tiebreak.engine.sources import Source
from tiebreak.engine.weights import weights_digest
from tiebreak.fingerprint import fingerprint
from tiebreak.maths.dealing import deal
from tiebreak.maths.distributions import Statistic
from tiebreak.maths.logps import TokenLogps
from tiebreak.records import Example

POLICY_ADAPTER = "default"
POLICY = "policy"


@dataclass(frozen=True)
class Model:
    """Weights with their tokenizer."""

    network: Any
    """Of transformers, or of peft where there is an adapter."""
    adapter: str | None
    """The adapter that is at work; None where there is none or where it is switched off."""
    tokenizer: Any
    scorer: Scorer
    plain_because: str | None
    """Why examples are not packed; None where they are."""
    device: torch.device
    eos_ids: tuple[int, ...]
    pad_id: int
    source: Source
    dtype: torch.dtype
    """Of the arithmetic; weights may be wider."""
    now: datetime | None = None
    """What a chat template that reads the clock is told; None where it reads none."""
    ranks: Ranks = field(default_factory=Alone, compare=False)
    """Who is asked with this process; each keeps the same weights, or its shard of them."""
    key: str = POLICY
    """What the processes call these weights among each other."""

    def score(
        self, examples: Sequence[Example], beside: Statistic | None = None, against: Whole | None = None
    ) -> TokenLogps:
        """Return the log-probability of every scored token, with a gradient where the weights have one.

        A statistic of its whole distribution comes from the same pass, without a gradient; and how far that is from
        what another model said of the same examples, with one.
        """
        if self.ranks.num_asked == 1 or torch.is_grad_enabled() or against is not None:
            return self.scorer.tokens(examples, beside, against)
        return self.ranks.run(_scored, self.key, self.adapter, [*examples], beside)

    def whole(self, examples: Sequence[Example]) -> Whole:
        """Return the log-probability of every scored token and of all that could stand there, without a gradient."""
        with torch.no_grad():
            return self.scorer.whole(examples)

    def answer(self, chats: Sequence[Chat], sampling: Sampling, done: Done = nothing) -> list[Answer]:
        """Return `sampling.num` answers for each chat, chat after chat; `done` is told chats as they are made.

        An answer ends where the model has no further positions. A prompt that leaves it none is cut at its start, as
        `data.truncation` cuts, so far that there is room.
        """
        renderer = self._renderer
        prompts = [self.prompt_ids(chat, sampling) for chat in chats]

        def told(made: Sequence[tuple[int, tuple[int, ...], bool]]) -> None:
            done([(index, Answer(renderer.text(ids), ids, finished)) for index, ids, finished in made])

        found = self._generated(prompts, sampling, told)
        return [Answer(renderer.text(ids), ids, finished) for ids, finished in found]

    def tell(self, chat: Chat, sampling: Sampling, hear: Hear) -> Answer:
        """Return what `answer` returns for a chat and one answer to it; `hear` is told its text while it comes."""
        renderer, prompt = self._renderer, self.prompt_ids(chat, sampling)
        pieces = Pieces(renderer.text, hear)

        def heard(token: int) -> None:
            if token not in self.eos_ids:
                pieces.take(token)

        [(ids, finished)] = self._generated([prompt], sampling, heard=heard)
        answer = Answer(renderer.text(ids), ids, finished)
        pieces.end(answer.text)
        return answer

    def _generated(
        self,
        prompts: Sequence[tuple[int, ...]],
        sampling: Sampling,
        done: Told = lambda _: None,
        heard: Heard | None = None,
    ) -> list[tuple[tuple[int, ...], bool]]:
        if self.ranks.num_asked > 1 and heard is None:
            found = self.ranks.run(_answered, self.key, self.adapter, [*prompts], sampling)
            done([(index, *answer) for index, answer in enumerate(found)])
            return found
        with evaluation_mode(self.network):
            return generate(self.network, prompts, sampling, self.eos_ids, self.pad_id, done, self.context.most, heard)

    def prompt_ids(self, chat: Chat, sampling: Sampling) -> tuple[int, ...]:
        """Return the tokens that an answer to a chat follows."""
        return self._with_room(self._renderer.prompt(chat.messages, chat.tools), sampling)

    def digest(self) -> str:
        """Return the fingerprint of the weights at work, whatever their folder or name."""
        return weights_digest(self.network, causal_model(self.network).config, self.adapter)

    @property
    def identity(self) -> str:
        """What answers depend on besides chat and sampling: weights, dtype, template, its date, what ends a turn."""
        dated = [self.now.isoformat()] if self.now else []
        return fingerprint([self.digest(), str(self.dtype), self.tokenizer.chat_template, list(self.eos_ids), *dated])

    def save(self, folder: Path) -> None:
        """Write the adapter, or all weights where there is none, and the tokenizer, as transformers loads them."""
        if self.is_adapter and self.adapter is None:
            raise ValueError("the adapter is switched off: it would be saved, and not what is at work")
        with quietly():
            if self.adapter is None:
                self.network.save_pretrained(folder)
            else:
                self.network.save_pretrained(folder, selected_adapters=[self.adapter])
                if (nested := folder / self.adapter).is_dir():
                    # peft writes every adapter but `default` into a folder of its own; lift it.
                    for file in nested.iterdir():
                        file.replace(folder / file.name)
                    nested.rmdir()
            self.tokenizer.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty form, with the path of the base model here

    def with_network(self, network: Any) -> Model:
        """Return the same model with other weights of the same make, and no adapter of ours on them."""
        return replace(self, network=network, adapter=None, scorer=self.scorer.of(network), ranks=Alone())

    def renderer(self, data: DataConfig) -> Renderer:
        """Return the renderer that matches this tokenizer."""
        return Renderer(self.tokenizer, self.eos_ids, data, self.now, self.context.most)

    @contextlib.contextmanager
    def at_work(self, adapter: str | None) -> Iterator[Model]:
        """Yield the model in evaluation mode, with an adapter of its network at work, or with none for None."""
        network, same = self.network, adapter == self.adapter
        with evaluation_mode(network):
            if same or not self.is_adapter:
                yield self
            elif adapter is None:
                with network.disable_adapter():
                    yield replace(self, adapter=None)
            else:
                network.set_adapter(adapter)
                try:
                    yield replace(self, adapter=adapter)
                finally:
                    network.set_adapter(self.adapter)

    @cached_property
    def context(self) -> Context:
        """How many tokens the model can see at once."""
        return context_of(causal_model(self.network).config, self.tokenizer)

    def _with_room(self, prompt: tuple[int, ...], sampling: Sampling) -> tuple[int, ...]:
        most = self.context.most
        if most is None or len(prompt) < most:
            return prompt
        return prompt[-max(1, most - min(sampling.max_new_tokens, most // 2)) :]

    @cached_property
    def _renderer(self) -> Renderer:
        return self.renderer(DataConfig())  # its limits are for completions; a prompt has none

    @property
    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """Names and parameters that the optimizer moves."""
        return [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]

    @property
    def num_parameters(self) -> tuple[int, int]:
        """How many parameters train, and how many there are."""
        return sum(p.numel() for _, p in self.trainable), sum(p.numel() for p in self.network.parameters())

    @property
    def is_adapter(self) -> bool:
        """Whether an adapter is trained, and not all weights."""
        return isinstance(self.network, peft.PeftModel)

    @property
    def continues_adapter(self) -> bool:
        """Whether training goes on with an adapter that the model came with."""
        return self.is_adapter and self.source.adapter is not None

    @property
    def unmergeable(self) -> str | None:
        """Why the adapter cannot be added into the base model without changing it, in words; None where it can."""
        return obstacle(self.network, POLICY_ADAPTER) if self.is_adapter else None

    def checkpoint_activations(self) -> None:
        """Keep only the inputs of layers for the backward pass, and compute the rest again."""
        with warnings.catch_warnings():
            # transformers 5.23 warns of a new name that 5.0 lacks; remove when every supported version has it.
            warnings.simplefilter("ignore", FutureWarning)
            self.network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _scored(
    ranks: Ranks, key: str, adapter: str | None, examples: Sequence[Example], beside: Statistic | None
) -> TokenLogps:
    """Return what a model says of examples, each of which one process scores."""
    model: Model = ranks.kept[key]
    shares = ranks.shares(examples)
    own = [examples[place] for place in shares[ranks.rank]]
    with _led(ranks, model, adapter) as asked, torch.no_grad():
        said = asked.scorer.tokens(own, beside) if own else None
    nothing = torch.empty(0, device=model.device)
    values = ranks.gather(nothing if said is None else said.values)
    more = None
    if beside is not None:
        more = ranks.gather(nothing if said is None or said.beside is None else said.beside)
    lengths = [[len(completion) for completion in example.completions] for example in examples]
    order = [(place, number) for share in shares for place in share for number in range(len(lengths[place]))]
    found = TokenLogps(values, tuple(lengths[place][number] for place, number in order), more)
    return found.picked(sorted(range(len(order)), key=order.__getitem__))


def _answered(
    ranks: Ranks, key: str, adapter: str | None, prompts: Sequence[tuple[int, ...]], sampling: Sampling
) -> list[tuple[tuple[int, ...], bool]]:
    """Return a model's answers to prompts, each of which one process answers; no answer hangs on its company."""
    model: Model = ranks.kept[key]
    hands = deal([len(prompt) for prompt in prompts], ranks.size)
    with _led(ranks, model, adapter) as asked:
        own = asked._generated([prompts[place] for place in hands[ranks.rank]], sampling)
    num, found = sampling.num, dict[int, list[tuple[tuple[int, ...], bool]]]()
    for places, made in zip(hands, ranks.collect(own), strict=True):
        found |= {place: made[at * num : (at + 1) * num] for at, place in enumerate(places)}
    return [answer for place in range(len(prompts)) for answer in found[place]]


@contextlib.contextmanager
def _led(ranks: Ranks, model: Model, adapter: str | None) -> Iterator[Model]:
    """Yield a model with an adapter at work as in the first process, where it is already."""
    if ranks.writes:
        yield replace(model, adapter=adapter)
        return
    with model.at_work(adapter) as asked:
        yield asked
