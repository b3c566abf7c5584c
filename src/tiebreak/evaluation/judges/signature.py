"""What a function that rates completions takes by name, and what it is given: the keywords of TRL's reward functions.

Owns these keywords (TRL 1.16, `GRPOTrainer._calculate_rewards`): prompts, completions, completion_ids, the columns of
the prompt file as lists, trainer_state, log_extra and log_metric. What only a trainer has is None, or does nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiebreak.engine.answers.answerer import Chat
from tiebreak.errors import ConfigError, nearest
from tiebreak.evaluation.judges.functions import Raised, of_the_user

_TOLD = ("prompts", "completions")
_OF_A_TRAINER: Mapping[str, Any] = {
    "trainer_state": None,
    "log_extra": lambda *_, **__: None,
    "log_metric": lambda *_, **__: None,
}
IDS = "completion_ids"
_NEVER = ("environments",)
"""What nobody but a trainer can give."""
_OURS = (*_TOLD, IDS, *_OF_A_TRAINER, *_NEVER)


@dataclass(frozen=True)
class Signature:
    """What a function takes by name."""

    names: Sequence[str]
    required: Sequence[str]
    """Names without a default."""
    takes_any: bool = False
    is_known: bool = True

    @staticmethod
    def of(function: Callable[..., Any]) -> Signature:
        """Return what a function takes; one that is written in C is taken to take prompts and completions."""
        try:
            with of_the_user():
                parameters = inspect.signature(function).parameters.values()
        except Raised:
            return Signature(_TOLD, (), is_known=False)
        by_name = [one for one in parameters if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)]
        return Signature(
            [one.name for one in by_name],
            [one.name for one in by_name if one.default is one.empty],
            any(one.kind is one.VAR_KEYWORD for one in parameters),
        )

    def takes(self, name: str) -> bool:
        """Return whether it can be given this."""
        return self.takes_any or name in self.names

    def check(self, where: str, arguments: Collection[str], columns: Collection[str] | None) -> None:
        """Raise ConfigError where it does not take its arguments, or wants what is not there.

        `columns` are those of the prompts, None where answers come without ids and rows without columns.
        """
        if not self.is_known:  # it will say so itself
            return
        own = [name for name in self.names if name not in _OURS]
        if not self.takes("completions"):
            raise ConfigError(f"{where}: takes no 'completions'; wanted def f(completions, prompts=None, **kwargs)")
        for name in arguments:
            if name in _TOLD or (name not in own and not self.takes_any):
                known = f"takes {', '.join(own)}" if own else "takes none"
                raise ConfigError(f"{where}: has no argument '{name}'; it {known}.{nearest(name, own)}")
        given = {*_TOLD, *_OF_A_TRAINER, *arguments, *(() if columns is None else (IDS, *columns))}
        for name in self.required:
            if name in given:
                continue
            if name in (IDS, *_NEVER):
                raise ConfigError(f"{where}: wants the argument '{name}', which only a trainer has")
            if columns is None:
                raise ConfigError(f"{where}: wants the argument '{name}', as in judge.arguments.{name}=…")
            known = f"they have {', '.join(sorted(columns))}" if columns else "they have none"
            raise ConfigError(
                f"{where}: wants the column '{name}', which no row of the prompts has; {known}; name the function's "
                f"own argument as judge.arguments.{name}=….{nearest(name, columns)}"
            )

    def keywords(
        self,
        told: Mapping[str, Any],
        chats: Sequence[Chat],
        ids: Sequence[Sequence[int]] | None,
        columns: Collection[str],
        arguments: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return what it is called with: of all that there is, what it takes; its own arguments come before columns.

        A row that lacks a column has None in its place.
        """
        there = {name: [chat.columns.get(name) for chat in chats] for name in columns}
        there |= {**_OF_A_TRAINER, **told} | ({} if ids is None else {IDS: [list(one) for one in ids]})
        if not self.is_known:
            there = dict(told)
        return {name: value for name, value in there.items() if self.takes(name)} | dict(arguments)


def columns_of(chats: Sequence[Chat]) -> list[str]:
    """Return the columns that any row of the prompts has, but those whose names are TRL's own keywords."""
    found = {name for chat in chats for name in chat.columns}
    return sorted(found - {*_OURS, "prompt", "completion"})
