"""A model: weights with their tokenizer, and all that is needed to use them.

Owns what goes together. Policy, reference, an exported artefact: all are Models, told apart by their weights and by the
adapter that is at work on them.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import peft
import torch
from torch import Tensor, nn

from tiebreak.config import DataConfig
from tiebreak.data.render import Renderer
from tiebreak.engine import tasks
from tiebreak.engine.answers.answerer import Answer, Chat, Done, Sampling, nothing
from tiebreak.engine.answers.local import Heard, Told, generate
from tiebreak.engine.answers.pieces import Hear, Pieces
from tiebreak.engine.attention import causal_model
from tiebreak.engine.loading import quietly
from tiebreak.engine.merging import obstacle
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.positions import Context, context_of
from tiebreak.engine.quantization import num_parameters, say_beside
from tiebreak.engine.ranks import Alone, Ranks
from tiebreak.engine.scorer import Scorer, Whole
from tiebreak.engine.sources import Source
from tiebreak.engine.weights import weights_digest
from tiebreak.fingerprint import fingerprint
from tiebreak.maths.distributions import Statistic
from tiebreak.maths.logps import TokenLogps
from tiebreak.records import Example

T = TypeVar("T")

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
    asked: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    """Where weights lie in shares, surrounds what each process asks of them without gradient, however often."""
    in_shares: bool = False
    """Whether each process holds a share of the weights: then all of them have to pass when one does."""
    ranks: Ranks = field(default_factory=Alone, compare=False)
    """Who is asked with this process; each keeps the same weights, or its share of them."""
    key: str = POLICY
    """What the processes call these weights among each other."""

    def score(
        self, examples: Sequence[Example], beside: Statistic | None = None, against: Whole | None = None
    ) -> TokenLogps:
        """Return the log-probability of every scored token, with a gradient where the weights have one.

        A statistic of its whole distribution comes from the same pass, without a gradient; and how far that is from
        what another model said of the same examples, with one.
        """
        if against is not None and not torch.is_grad_enabled():
            return self.accompanied(lambda: self.scorer.tokens(examples, beside, against))
        if self.ranks.num_asked == 1 or torch.is_grad_enabled():
            return self.scorer.tokens(examples, beside, against)
        return self.ranks.run(tasks.scored, self.key, self.adapter, [*examples], beside)

    def whole(self, examples: Sequence[Example]) -> Whole:
        """Return the log-probability of every scored token and of all that could stand there, without a gradient."""
        with torch.no_grad():
            return self.accompanied(lambda: self.scorer.whole(examples))

    def read(self, examples: Sequence[Example]) -> tuple[TokenLogps, Tensor]:
        """Return what `score` returns, and from the same pass the mean states [completions, hidden]; no gradient."""
        with torch.no_grad():
            return self.accompanied(lambda: self.scorer.read(examples))

    def answer(self, chats: Sequence[Chat], sampling: Sampling, done: Done = nothing) -> list[Answer]:
        """Return `sampling.num` answers for each chat, chat after chat; `done` is told chats as they are made.

        An answer ends where the model has no further positions. A prompt that leaves it none is cut at its start, as
        `data.truncation` cuts, so far that there is room.
        """
        renderer = self._renderer
        prompts = [self.prompt_ids(chat, sampling) for chat in chats]

        def told(made: Sequence[tuple[int, tuple[int, ...], bool]]) -> None:
            done([(index, Answer(renderer.text(ids), ids, finished)) for index, ids, finished in made])

        found = self.generated(prompts, sampling, told)
        return [Answer(renderer.text(ids), ids, finished) for ids, finished in found]

    def tell(self, chat: Chat, sampling: Sampling, hear: Hear) -> Answer:
        """Return what `answer` returns for a chat and one answer to it; `hear` is told its text while it comes."""
        renderer, prompt = self._renderer, self.prompt_ids(chat, sampling)
        pieces = Pieces(renderer.text, hear)

        def heard(_: int, token: int) -> bool:
            if token not in self.eos_ids:
                pieces.take(token)
            return False

        [(ids, finished)] = self.generated([prompt], sampling, heard=heard)
        answer = Answer(renderer.text(ids), ids, finished)
        pieces.end(answer.text)
        return answer

    def generated(
        self,
        prompts: Sequence[tuple[int, ...]],
        sampling: Sampling,
        done: Told = lambda _: None,
        heard: Heard | None = None,
    ) -> list[tuple[tuple[int, ...], bool]]:
        """Return `sampling.num` answers for each prompt in tokens: ids without the EOS, and if there was one."""
        if self.ranks.num_asked > 1 and heard is None:
            found = self.ranks.run(tasks.answered, self.key, self.adapter, [*prompts], sampling)
            done([(index, *answer) for index, answer in enumerate(found)])
            return found
        with evaluation_mode(self.network):
            return generate(self.network, prompts, sampling, self.eos_ids, self.pad_id, done, self.context.most, heard)

    def prompt_ids(self, chat: Chat, sampling: Sampling) -> tuple[int, ...]:
        """Return the tokens that an answer to a chat follows."""
        return self._with_room(self._renderer.prompt(chat.messages, chat.tools), sampling)

    def accompanied(self, work: Callable[[], T]) -> T:
        """Return what some work of this process alone returns, which asks the model without a gradient.

        Where weights lie in shares, the others make the passes with it.
        """
        if not self.in_shares or self.ranks.num_asked == 1:
            return work()
        self.ranks.kept[tasks.WORK] = work
        found: T = self.ranks.run(tasks.accompany, self.key)
        return found

    def digest(self) -> str:
        """Return the fingerprint of the weights at work, whatever their folder or name."""
        if self.in_shares:
            return self.ranks.run(tasks.digest, self.key, self.adapter)
        return weights_digest(self.network, causal_model(self.network).config, self.adapter)

    @property
    def identity(self) -> str:
        """What answers depend on besides chat and sampling: weights, dtype, template, its date, what ends a turn."""
        dated = [self.now.isoformat()] if self.now else []
        return fingerprint([self.digest(), str(self.dtype), self.tokenizer.chat_template, list(self.eos_ids), *dated])

    def save(self, folder: Path) -> None:
        """Write the adapter, or all weights where there is none, and the tokenizer, as transformers loads them.

        Weights that lie in shares are whole in main memory for it.
        """
        if self.is_adapter and self.adapter is None:
            raise ValueError("the adapter is switched off: it would be saved, and not what is at work")
        whole = self.ranks.run(tasks.gathered, self.key, self.adapter) if self.in_shares else None
        with quietly():
            if self.adapter is None:
                self.network.save_pretrained(folder, state_dict=whole)
            else:
                self.network.save_pretrained(folder, selected_adapters=[self.adapter], state_dict=whole)
                if (nested := folder / self.adapter).is_dir():
                    # peft writes every adapter but `default` into a folder of its own; lift it.
                    for file in nested.iterdir():
                        file.replace(folder / file.name)
                    nested.rmdir()
                say_beside(folder, self.network)
            self.tokenizer.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty form, with the path of the base model here

    def with_network(self, network: Any) -> Model:
        """Return the same model with other weights of the same make, and no adapter of ours on them."""
        return replace(
            self,
            network=network,
            adapter=None,
            scorer=self.scorer.of(network),
            asked=contextlib.nullcontext,
            in_shares=False,
            ranks=Alone(),
        )

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
        return sum(p.numel() for _, p in self.trainable), num_parameters(self.network)

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
        """Keep only the inputs of layers for the backward pass, and compute the rest again; in all processes."""
        self.ranks.run(tasks.checkpoint, self.key) if self.ranks.num_asked > 1 else self.keep_only_inputs()

    def keep_only_inputs(self) -> None:
        """Do so in this process."""
        with warnings.catch_warnings():
            # transformers 5.23 warns of a new name that 5.0 lacks; remove when every supported version has it.
            warnings.simplefilter("ignore", FutureWarning)
            self.network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
