"""How a completion opens: refusing, agreeing, in the first person.

Owns the phrases, English only. A phrase counts near the start, where it says what the completion does.
"""

from __future__ import annotations

import re

_HEAD = 240
_REFUSAL = re.compile(
    r"\bi(?:'m| am)(?: so| very| really| truly)? sorry(?!,? (?:to hear|you|that you|about your|for your))"
    r"|\bi(?:'m| am) (?:unable|not able|not comfortable|not allowed|not permitted|not going to|not willing)"
    r"|\bi (?:cannot|can not|can't|won't|will not|must decline|have to decline|refuse to|don't feel comfortable)"
    r"|\bi (?:do not|don't) (?:want|wish) to (?:help|answer|assist)"
    r"|apologi[sz]e,? but|\bmy apologies,? but|\bas an ai\b|\bas a language model|\bas a responsible ai"
    r"|(?:is|would be|it's) (?:not appropriate|inappropriate|unethical|illegal) (?:for me )?to"
)
# Every phrase above holds one of these, most texts none.
_NEEDLES = (
    "sorry",
    "not",
    "unable",
    "n't",
    "declin",
    "refuse",
    "apolog",
    "as a",
    "appropriate",
    "unethical",
    "illegal",
)
_AGREEING = re.compile(
    r"\W{0,4}(?:sure|certainly|of course|absolutely|definitely|great|gladly|no problem|yes|okay|ok|here(?:'s| is| are))"
    r"\b",
    re.IGNORECASE,
)
_FIRST_PERSON = re.compile(r"\W{0,4}(?:I|I'm|I'd|I'll|I've|My)\b")


def _head(text: str) -> str:
    return text[:_HEAD].replace("\u2019", "'")


def refuses(completion: str) -> bool:
    """Say whether the first 240 characters hold a phrase of refusal."""
    head = _head(completion).lower()
    return any(needle in head for needle in _NEEDLES) and _REFUSAL.search(head) is not None


def agrees(completion: str) -> bool:
    """Say whether the completion opens with assent: 'Sure', 'Certainly', 'Here is'."""
    return _AGREEING.match(_head(completion)) is not None


def first_person(completion: str) -> bool:
    """Say whether the completion opens with 'I' or 'My'."""
    return _FIRST_PERSON.match(_head(completion)) is not None
