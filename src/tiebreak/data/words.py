"""The ids of words, remembered: for tokenizers that provably treat the words of a text one by one.

Owns which tokenizers those are. A byte-level BPE first splits a text by a regular expression and then looks at no more
than one part at a time. The expressions listed here all part a text in front of a space that a Latin letter follows,
where no space stands before it: none has an alternative that takes a space but as its first character, or as one of
nothing but white space, and none looks back. So the ids of a text are the ids of what lies between such places, joined.
Wherever one of the conditions is not seen to hold, nothing is remembered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, Final

_WORD_STARTS: Final = re.compile(r"(?<=[!-~])(?= [A-Za-z])")
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LINES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_LOWER, _UPPER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_MARKS = r"| ?[^\s\p{L}\p{N}]+[\r\n"
KNOWN_SPLITS: Final = frozenset(
    {
        # GPT-2
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        # Llama 3, and Qwen, which takes digits one by one
        *(
            _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|" + n + _MARKS + "]*" + _LINES
            for n in (r"\p{N}{1,3}", r"\p{N}")
        ),
        # gpt-oss and others of o200k
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
        rf"{_CONTRACTIONS}?|\p{{N}}{{1,3}}{_MARKS}/]*{_LINES}",
    }
)
"""Regular expressions of `Split` that part a text at the places of `_WORD_STARTS`."""
MOST_WORDS = 2**17
"""Remembered at a time, about 30 MB; beyond that all are forgotten."""
LONGEST_WORD = 64
"""Characters; what is longer hardly comes again."""
_PROBE = "It's a  test,\n\nof 1234 words:\t\"(naïve) Straße\" ☃ e\u0301 don't x=f(a b) -- ok .  \n end "


class WordIds:
    """The ids of texts, put together from those of their words; made by `word_ids`."""

    def __init__(self, backend: Any, separator: tuple[str, int] | None) -> None:
        self._backend = backend
        self._separator = separator
        self._known: dict[str, tuple[int, ...]] = {}

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text; raises what the tokenizer raises."""
        words = _WORD_STARTS.split(text)
        try:
            return list(chain.from_iterable(map(self._known.__getitem__, words)))
        except KeyError:
            fresh = self._fresh(words)
        known = self._known
        ids = list(chain.from_iterable(fresh[word] if word in fresh else known[word] for word in words))
        self._remember(fresh)
        return ids

    def _fresh(self, words: Iterable[str]) -> dict[str, tuple[int, ...]]:
        new = list(dict.fromkeys(word for word in words if word not in self._known))
        return dict(zip(new, self._encoded(new), strict=True))

    def _encoded(self, words: list[str]) -> list[tuple[int, ...]]:
        """Return the ids of each word: in one go, with a control token between, where nothing speaks against it."""
        self._backend.no_truncation()
        self._backend.no_padding()
        if self._separator is not None and len(words) > 1:
            text, token = self._separator
            [found] = self._backend.encode_batch_fast([text.join(words)], add_special_tokens=False)
            parts = _parted(found.ids, token)
            if len(parts) == len(words):
                return parts
        return [tuple(found.ids) for found in self._backend.encode_batch_fast(words, add_special_tokens=False)]

    def _remember(self, fresh: Mapping[str, tuple[int, ...]]) -> None:
        if len(self._known) + len(fresh) > MOST_WORDS:
            self._known.clear()
        self._known.update((word, ids) for word, ids in fresh.items() if len(word) <= LONGEST_WORD)


def word_ids(tokenizer: Any) -> WordIds | None:
    """Return the memory of words of a tokenizer, None where its words are not known to stand alone."""
    backend = getattr(tokenizer, "backend_tokenizer", None)  # only tokenizers that are written in Rust have one
    if backend is None or not _treats_words_alone(backend):
        return None
    made = WordIds(backend, _separator(backend))
    return made if made.ids(_PROBE) == list(tokenizer.encode(_PROBE, add_special_tokens=False)) else None


def _separator(backend: Any) -> tuple[str, int] | None:
    """Return a token that can stand between two texts, and its id."""
    found = backend.get_added_tokens_decoder().items()
    return next(((token.content, id) for id, token in found if token.content.strip() and not token.normalized), None)


def _treats_words_alone(backend: Any) -> bool:
    model, added = backend.model, backend.get_added_tokens_decoder().values()
    if type(model).__name__ != "BPE" or model.dropout:
        return False
    if any(token.lstrip or token.rstrip or token.single_word or _WORD_STARTS.search(token.content) for token in added):
        return False
    steps = _steps(backend.pre_tokenizer)
    return (
        all(step["type"] == "NFC" for step in _steps(backend.normalizer))
        and all(map(_keeps_word_starts, steps))
        and any(map(_parts_at_word_starts, steps))
    )


def _steps(component: Any) -> list[Mapping[str, Any]]:
    """Return a normalizer or pre-tokenizer as its steps; what cannot be looked into is one step of no known type."""
    if component is None:
        return []
    try:
        state = json.loads(component.__getstate__())
    except Exception:  # noqa: BLE001 - one written in Python refuses
        return [{"type": "unknown"}]
    return (
        list(state.get("normalizers") or state.get("pretokenizers") or []) if state["type"] == "Sequence" else [state]
    )


def _keeps_word_starts(step: Mapping[str, Any]) -> bool:
    """Say whether a step makes the same parts of a text as of what lies between its word starts."""
    plain = step["type"] == "ByteLevel" and not step["add_prefix_space"]
    return plain or step["type"] == "Digits" or _is_known_split(step)


def _parts_at_word_starts(step: Mapping[str, Any]) -> bool:
    return _is_known_split(step) or (step["type"] == "ByteLevel" and step["use_regex"])


def _is_known_split(step: Mapping[str, Any]) -> bool:
    isolated = (step.get("behavior"), step.get("invert")) in {("Isolated", False), ("Removed", True)}
    return step["type"] == "Split" and isolated and step["pattern"].get("Regex") in KNOWN_SPLITS


def _parted(ids: list[int], separator: int) -> list[tuple[int, ...]]:
    parts, start = [], 0
    for _ in range(ids.count(separator)):
        end = ids.index(separator, start)
        parts.append(tuple(ids[start:end]))
        start = end + 1
    return [*parts, tuple(ids[start:])]
