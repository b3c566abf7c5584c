"""A reward function as TRL's GRPO takes them, for `tiebreak judge` and `tiebreak rounds`.

    tiebreak judge pairs.jsonl --judge examples/rewards.py:score

The preference is the quickstart's: an answer speaks of its matter, and not of who gives it. The quickstart's rule says
yes or no ("no word of itself"); where all answers to a prompt say no, or all say yes, nothing can be learned of them.
So this one counts: fewer words of itself are better, and an answer without any is the best. An answer of a word or two
has none either and says nothing; below five words it counts for less. Nothing else is looked at: neither whether an
answer is right, nor how long it is beyond five words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

OF_ITSELF = re.compile(r"\b(?:I|[Mm]e|[Mm]y|[Mm]ine|[Mm]yself)\b")
LEAST_WORDS = 5


def score(completions: Sequence[Any], **_: Any) -> list[float]:
    """Return 1 for an answer without a word of itself, ½ for one such word, ⅓ for two, and so on.

    One of fewer than five words gets its share of that: an empty one 0. Completions are texts, or lists of messages.
    """
    texts = [one if isinstance(one, str) else one[-1]["content"] for one in completions]
    return [min(1.0, len(text.split()) / LEAST_WORDS) / (1 + len(OF_ITSELF.findall(text))) for text in texts]
