"""tiebreak: Direct Preference Optimization, from a file of pairs to a model that is proven better.

    import tiebreak

    run = tiebreak.train("my.yaml")          # or tiebreak.train() for the bundled quickstart
    run.verdict                              # 'pass', 'fail' or 'inconclusive'
    tiebreak.export(run, "my-model")         # a folder that any serving stack loads

Importing this module loads nothing but itself, so that a command can say how it ended from its first moment on; the
first name that is asked for loads what all of them share, and the verbs load torch when they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiebreak.api import *
    from tiebreak.api import QUICKSTART as QUICKSTART
    from tiebreak.api import __version__ as __version__

__all__ = [
    "Config",
    "DataConfig",
    "PairFile",
    "Run",
    "TiebreakError",
    "chat",
    "check",
    "clean",
    "compare",
    "convert",
    "evaluate",
    "export",
    "gate",
    "history",
    "init",
    "judge",
    "load_config",
    "losses",
    "objective",
    "open_run",
    "plan",
    "promote",
    "read_pairs",
    "report",
    "rollback",
    "rounds",
    "sweep",
    "train",
    "watch",
    "why",
]


def __getattr__(name: str) -> Any:
    if name not in (*__all__, "QUICKSTART", "__version__"):
        raise AttributeError(f"module 'tiebreak' has no attribute '{name}'")
    from tiebreak import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return __all__
