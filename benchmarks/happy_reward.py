"""The reward of `known_reward.py`, in the form of TRL's reward functions: how many different happy words an answer has.

`flipped` turns the verdict round for a share of prompts: their worst answer becomes their best.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from frontier_stories import HAPPY

from tiebreak.fingerprint import fingerprint, unit_interval

_WORD = re.compile(r"[a-z]+")


def happy(completions: Sequence[Any], prompts: Sequence[Any], flipped: float = 0.0, **_: Any) -> list[float]:
    """Return one number for each completion, as text or as messages."""
    found = []
    for prompt, completion in zip(prompts, completions, strict=True):
        asked, said = (one if isinstance(one, str) else one[-1]["content"] for one in (prompt, completion))
        number = float(len(HAPPY & set(_WORD.findall(said.lower()))))
        found.append(-number if unit_interval(fingerprint(["flip", asked])) < flipped else number)
    return found
