"""A function of the user's: found by its name, run as their own code, and believed only where it gives numbers.

Owns what such a function may do to us: raise anything, print, return anything. It is named by who runs the command,
never by data. What it is given is not known here.
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
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from tiebreak.errors import ConfigError, Preempted, nearest, one_line
from tiebreak.evaluation.judges.judge import Rating
from tiebreak.evaluation.judges.rewards import REWARDS
from tiebreak.fingerprint import file_digest, fingerprint
from tiebreak.progress import aside
from tiebreak.secrecy import masked, secrets_of


class Raised(Exception):  # noqa: N818 - what a function did
    """The user's code raised."""


@contextlib.contextmanager
def of_the_user() -> Iterator[None]:
    """Run code of the user's: what it prints is no result of ours. Raises Raised for whatever it raises."""
    try:
        with aside():
            yield
    except (KeyboardInterrupt, Preempted):
        raise
    except BaseException as error:  # noqa: BLE001 - it may raise anything, also what is derived from no Exception
        raise Raised(f"{type(error).__name__}: {_said(error)}".rstrip(": ")) from None


def _said(error: BaseException) -> str:
    try:
        return one_line(masked(str(error), secrets_of(os.environ)), 200)
    except Exception:  # noqa: BLE001 - its words are the user's code, too
        return ""


def found(name: str) -> tuple[Callable[..., Any], str]:
    """Return a function by its name, and the digest of the code that it stands in.

    Raises ConfigError where there is none.
    """
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
        with of_the_user():
            module = _module(place)
            known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            function = getattr(module, attribute, None)
    except Raised as error:
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
    spec = importlib.util.spec_from_file_location(f"tiebreak_rule_{fingerprint(str(path))[:12]}", path)
    if spec is None or spec.loader is None:
        raise ImportError("no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and the like look their module up
    spec.loader.exec_module(module)
    return module


def numbers(told: object, num: int) -> list[Rating]:
    """Return for each of `num` completions a number, None where the function has nothing to say, or what is wrong."""
    if not isinstance(told, Sequence) or isinstance(told, str | bytes):
        return [f"it returned {type(told).__name__}, wanted a list of {num} numbers"] * num
    if len(told) != num:
        return [f"it returned {len(told)} numbers for {num} completions"] * num
    return [_number(one) for one in told]


def _number(one: object) -> Rating:
    if isinstance(one, bool):
        return f"it returned {one}; return a number, such as {float(one)}"
    if one is None:  # it has nothing to say of this one, as TRL's functions may
        return None
    if not isinstance(one, Real):
        return f"it returned {one_line(masked(repr(one)), 80)} in its list, wanted a number"
    try:
        number = float(one)
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    return number if math.isfinite(number) else f"it returned {number}, which is no number to compare"
