"""A judge by rule: a Python function that rates answers, built in or the user's own.

Owns how a function is found and called, and that only numbers count. A function of the user is their own code and runs
as such: it is named by who runs the command, never by data.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from tiebreak.config import RuleJudge
from tiebreak.engine.answers.answerer import Chat
from tiebreak.errors import ConfigError, Preempted, nearest, one_line
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.judge import ByRating, Judge
from tiebreak.evaluation.judges.rewards import REWARDS
from tiebreak.fingerprint import file_digest, files_named, fingerprint
from tiebreak.progress import Progress, aside
from tiebreak.secrecy import masked, secrets_of

_TOLD = ("prompts", "completions")
_TRAINERS = ("completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
"""What only a trainer has."""


@contextlib.contextmanager
def make(settings: RuleJudge, given: Given) -> Iterator[Judge]:
    """Find the function and check its arguments. Raises ConfigError where it is not there or does not take them."""
    function, code = _found(settings.reward)
    wants_prompts = _check_arguments(settings, function)
    yield ByRating(RuleRater(settings, function, code, wants_prompts, given.progress))


class RuleRater:
    """Rates answers by a function; an answer that it cannot rate has no rating, and the first reason is told."""

    def __init__(
        self, settings: RuleJudge, function: Callable[..., Any], code: str, wants_prompts: bool, progress: Progress
    ) -> None:
        self._settings, self._function, self._progress = settings, function, progress
        self._wants_prompts = wants_prompts
        name = settings.reward.rpartition(":")[2]
        self.identity = fingerprint(
            ["rule", name, settings.arguments, files_named(settings.arguments), code, metadata.version("tiebreak")]
        )
        """A changed function, or one with other arguments or files that they name, is another judge."""

    def rate(self, chats: Sequence[Chat], answers: Sequence[str]) -> list[float | None]:
        """Return the function's numbers. Where it fails for all at once, each answer is tried alone."""
        if not answers:
            return []
        prompts = [[message.as_dict() for message in chat.messages] for chat in chats]
        completions = [[{"role": "assistant", "content": answer}] for answer in answers]
        try:
            found, reasons = self._call(prompts, completions)
        except _Raised:
            found, reasons = [], []
            for prompt, completion in zip(prompts, completions, strict=True):
                try:
                    one, why = self._call([prompt], [completion])
                except _Raised as error:
                    one, why = [None], [str(error)]
                found += one
                reasons += why
        if reasons:
            self._progress.warn(
                f"rule {self._settings.reward}: {len(reasons)} of {len(answers)} answers have no rating: {reasons[0]}"
            )
        return found

    def _call(self, prompts: list[Any], completions: list[Any]) -> tuple[list[float | None], list[str]]:
        told = {"prompts": prompts} if self._wants_prompts else {}
        with _of_the_user():  # what it returns may be of its own make, too
            found = self._function(completions=completions, **told, **self._settings.arguments)
            return _numbers(found, len(completions))


class _Raised(Exception):  # noqa: N818 - what a function did
    """The user's code raised."""


@contextlib.contextmanager
def _of_the_user() -> Iterator[None]:
    """Run code of the user's: what it prints is no result of ours. Raises _Raised for whatever it raises."""
    try:
        with aside():
            yield
    except (KeyboardInterrupt, Preempted):
        raise
    except BaseException as error:  # noqa: BLE001 - it may raise anything, also what is derived from no Exception
        raise _Raised(f"{type(error).__name__}: {_said(error)}".rstrip(": ")) from None


def _said(error: BaseException) -> str:
    try:
        return one_line(masked(str(error), secrets_of(os.environ)), 200)
    except Exception:  # noqa: BLE001 - its words are the user's code, too
        return ""


def _numbers(told: object, num: int) -> tuple[list[float | None], list[str]]:
    """Return one number or None for each answer, and why there is none, once for each that should have one."""
    if not isinstance(told, Sequence) or isinstance(told, str | bytes):
        return [None] * num, [f"it returned {type(told).__name__}, wanted a list of {num} numbers"] * num
    if len(told) != num:
        return [None] * num, [f"it returned {len(told)} numbers for {num} completions"] * num
    found: list[float | None] = []
    reasons: list[str] = []
    for one in told:
        number = None
        if isinstance(one, bool):
            reasons.append(f"it returned {one}; return a number, such as {float(one)}")
        elif one is None:  # it has nothing to say of this one, as TRL's functions may
            pass
        elif not isinstance(one, Real):
            reasons.append(f"it returned {type(one).__name__} in its list, wanted a number")
        else:
            number = _as_float(one)
            if not math.isfinite(number):
                reasons.append(f"it returned {number}, which is no number to compare")
                number = None
        found.append(number)
    return found, reasons


def _as_float(number: Real) -> float:
    try:
        return float(number)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf


def _found(name: str) -> tuple[Callable[..., Any], str]:
    """Return a function by its name, and the digest of the code that it stands in."""
    if ":" not in name:
        if name not in REWARDS:
            raise ConfigError(
                f"rule {name}: is not built in, wanted one of {', '.join(REWARDS)}, FILE.py:FUNCTION or "
                f"MODULE:FUNCTION.{nearest(name, REWARDS)}"
            )
        return REWARDS[name], file_digest(Path(inspect.getfile(REWARDS[name])))
    place, _, attribute = name.rpartition(":")
    if place.endswith(".py") and not Path(place).is_file():
        raise ConfigError(f"rule {name}: no such file {place}")
    try:
        with _of_the_user():
            module = _module(place)
            known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            function = getattr(module, attribute, None)
    except _Raised as error:
        raise ConfigError(f"rule {name}: cannot be imported ({error})") from None
    if not callable(function):
        raise ConfigError(f"rule {name}: {place} has no function '{attribute}'.{nearest(attribute, known)}")
    if inspect.iscoroutinefunction(function):
        raise ConfigError(f"rule {name}: is asynchronous; wrap it in a function that runs it, as with asyncio.run")
    file = getattr(module, "__file__", None)  # one that is built into Python has none
    return function, file_digest(Path(file)) if file else place


def _module(place: str) -> ModuleType:
    """Run the user's code and return its module; raises whatever that raises."""
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(place).resolve()
    found = importlib.util.spec_from_file_location(f"tiebreak_rule_{fingerprint(str(path))[:12]}", path)
    if found is None or found.loader is None:
        raise ImportError("no Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # dataclasses and the like look their module up
    found.loader.exec_module(module)
    return module


def _check_arguments(settings: RuleJudge, function: Callable[..., Any]) -> bool:
    """Return whether a function takes prompts.

    Raises ConfigError where it does not take its arguments, or wants some that are not given.
    """
    where = f"rule {settings.reward}"
    try:
        with _of_the_user():
            parameters = inspect.signature(function).parameters.values()
    except _Raised:  # written in C: it will say so itself
        return True
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    by_name = [one for one in parameters if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)]
    own = [one.name for one in by_name if one.name not in (*_TOLD, *_TRAINERS)]
    takes = [told for told in _TOLD if takes_any or told in [one.name for one in by_name]]
    if "completions" not in takes:
        raise ConfigError(f"{where}: takes no 'completions'; wanted def f(completions, prompts=None, **kwargs)")
    for name in settings.arguments:
        if name in _TOLD or (name not in own and not takes_any):
            known = f"takes {', '.join(own)}" if own else "takes none"
            raise ConfigError(f"{where}: has no argument '{name}'; it {known}.{nearest(name, own)}")
    for one in by_name:
        if one.default is one.empty and one.name not in (*_TOLD, *settings.arguments):
            more = "which only a trainer has" if one.name in _TRAINERS else f"as in judge.arguments.{one.name}=…"
            raise ConfigError(f"{where}: wants the argument '{one.name}', {more}")
    if settings.reward in REWARDS:
        try:
            function(completions=[], **settings.arguments)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{where}: {one_line(error, 300)}") from None
    return "prompts" in takes
