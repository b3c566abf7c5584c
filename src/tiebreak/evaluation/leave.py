"""Leave to reach out of a run folder: code that is run, servers that are asked.

A run's config.yaml may come from elsewhere. What it names is run or asked where this user once named it, in a
configuration that was trained by or on a command line, and is refused where not. Owns what is remembered of that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import platformdirs

from tiebreak.config import EvaluationConfig, quoted
from tiebreak.errors import RunError
from tiebreak.fingerprint import fingerprint

_JUDGE, _LM_EVAL = "evaluation.judge", "evaluation.lm_eval.include_path"
NAMED_BY = {
    _JUDGE: {_JUDGE, *(f"{_JUDGE}.{last}" for last in ("reward", "base_url", "key_variable"))},
    _LM_EVAL: {_LM_EVAL, "evaluation.lm_eval"},
}
"""Settings that reach out of a run, and those that say where to: who gives one of these has asked for it."""


def give(evaluation: EvaluationConfig, named: Iterable[str] | None = None) -> None:
    """Remember that this user asked for what the settings reach, or for those of it that are `named` by their keys."""
    reached = {key: where for key, where in _reached(evaluation).items() if named is None or _is_named(key, named)}
    new = {fingerprint(where) for where in reached.values()} - _given()
    if new:
        with contextlib.suppress(OSError):  # where nothing can be kept, it has to be named again
            _file().parent.mkdir(parents=True, exist_ok=True)
            with _file().open("a", encoding="ascii") as file:
                file.writelines(f"{one}\n" for one in sorted(new))


def require(evaluation: EvaluationConfig, named: Iterable[str], run: Path) -> None:
    """Raise RunError where a run's settings reach what this user never asked for, and does not name now."""
    given = _given()
    for key, where in _reached(evaluation).items():
        if not _is_named(key, named) and fingerprint(where) not in given:
            raise RunError(
                f"{run}: its configuration reaches {where} ({key}), which you never asked for: the folder may come "
                f"from elsewhere; look at it, and ask for it with --set {key}={quoted(where)}"
            )


def _reached(evaluation: EvaluationConfig) -> Mapping[str, str]:
    judge, lm_eval = evaluation.judge and evaluation.judge.reaches, evaluation.lm_eval
    found = {_JUDGE: judge, _LM_EVAL: lm_eval and str(Path(lm_eval.include_path).absolute())}
    return {key: where for key, where in found.items() if where}


def _is_named(key: str, named: Iterable[str]) -> bool:
    return not NAMED_BY[key].isdisjoint(named)


def _given() -> set[str]:
    with contextlib.suppress(OSError, ValueError):
        return set(_file().read_text(encoding="ascii").split())
    return set()


def _file() -> Path:
    return Path(platformdirs.user_state_path("tiebreak")) / "asked_for"
