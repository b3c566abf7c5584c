"""The nouns that stations hand to each other.

judged      messages, pairs, thumbs, dropped records, as text      tokenized     examples as token ids
asked       prompts that are to be answered

Frozen values; constructors refuse what must not exist. No I/O, no tokenizer, no torch.
"""

from __future__ import annotations

from tiebreak.records.asked import Asked
from tiebreak.records.judged import (
    FACTS,
    NOTHING_STATED,
    ROLES,
    UNDECIDED,
    Dropped,
    Judgement,
    Message,
    Origin,
    Pair,
    Preference,
    Rated,
    Record,
    Source,
    Thumb,
    Vote,
    prompt_id_of,
)
from tiebreak.records.tokenized import (
    Example,
    Ids,
    Tokenized,
    TokenizedPair,
    TokenizedThumb,
    longest_row,
    num_unique_tokens,
    unit_of,
)

__all__ = [
    "FACTS",
    "NOTHING_STATED",
    "ROLES",
    "UNDECIDED",
    "Asked",
    "Dropped",
    "Example",
    "Ids",
    "Judgement",
    "Message",
    "Origin",
    "Pair",
    "Preference",
    "Rated",
    "Record",
    "Source",
    "Thumb",
    "Tokenized",
    "TokenizedPair",
    "TokenizedThumb",
    "Vote",
    "longest_row",
    "num_unique_tokens",
    "prompt_id_of",
    "unit_of",
]
