"""Drawn examples of a step for oracles, and the same as an objective takes them."""

from __future__ import annotations

import random

import torch

from tiebreak.config.losses import SECTIONS
from tiebreak.maths.logps import Logps
from tiebreak.maths.objectives import OBJECTIVES, Objective, Stated
from tiebreak.records import TokenizedThumb


def objective(name: str, **settings) -> Objective:
    return Objective.of(SECTIONS[name](**settings))


def drawn(seed: int, num: int = 7) -> list[dict[str, float]]:
    draw = random.Random(seed)
    pairs = []
    for _ in range(num):
        nw, nl = draw.randint(1, 30), draw.randint(1, 30)
        w, l = -draw.uniform(0.05, 3) * nw, -draw.uniform(0.05, 3) * nl  # noqa: E741 - as papers call them
        pairs.append(
            {"w": w, "l": l, "rw": w + draw.gauss(0, 4), "rl": l + draw.gauss(0, 4), "nw": nw, "nl": nl}
            | {"margin": draw.uniform(0.2, 3), "soft": draw.random(), "pw": draw.random(), "pl": draw.random()}
            | {"z": 0.7}
        )
    for pair in pairs:
        pair |= {"kw": draw.uniform(0, 9), "kl": draw.uniform(0, 9)}
        pair |= {"hw": draw.uniform(0.01, 0.9), "hl": draw.uniform(0.01, 0.9)}
    return pairs


def as_tensors(pairs, dtype=torch.float64, name: str = "") -> tuple[Logps, Logps, Stated]:
    """Return what an objective sees of pairs; one of completions on their own sees both sides of each, good and bad."""
    flat = lambda *keys: torch.tensor([pair[key] for pair in pairs for key in keys], dtype=dtype)  # noqa: E731
    counts = torch.tensor([pair[key] for pair in pairs for key in ("nw", "nl")])
    if name and OBJECTIVES[name].learns_from is TokenizedThumb:
        stated = Stated(liked=torch.tensor([1.0, 0.0] * len(pairs), dtype=dtype), baseline=flat("z")[0])
    else:
        luck = flat("g") if "g" in pairs[0] else None
        stated = Stated(flat("soft"), flat("margin"), flat("pw"), flat("pl"), luck=luck)
    apart = flat("kw", "kl") if all("kw" in pair for pair in pairs) else None
    still = flat("hw", "hl") if all("hw" in pair for pair in pairs) else None
    return Logps(flat("w", "l"), counts, divergence=apart), Logps(flat("rw", "rl"), counts, entropy=still), stated
