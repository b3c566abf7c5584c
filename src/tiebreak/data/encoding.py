"""Text to ids, alone or behind other text: exactly what the tokenizer itself gives, sooner.

Owns how a text continues another, and which work of a tokenizer is saved on the way: a text in front is read from its
last control token on, and a tokenizer that is written in Rust is asked without its wrapper in Python. Where that is not
known to give the same ids, nothing is saved. Knows nothing of messages, templates and pairs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from tiebreak.data.panics import is_panic, unsaid
from tiebreak.errors import RenderError, one_line
from tiebreak.fingerprint import fingerprint

# Texts that a continuation can be tokenised behind, for tokenizers that treat the start of a text specially.
_ANCHORS = ("\n", ".", ":", "a")
_MOST_HEADS = 64
_NEAR = 256
# The methods of transformers that add nothing to what the tokenizer in Rust gives; some families have their own, which
# do: CodeLlama's fills gaps. Where one is not found here, under a new name too, the tokenizer itself is asked.
_PLAIN_WRAPPERS = {"encode": "PreTrainedTokenizerBase.encode", "_encode_plus": "TokenizersBackend._encode_plus"}


class Tokenizer(Protocol):
    """What rendering needs of a tokenizer; transformers' tokenizers have it."""

    def get_chat_template(self, chat_template: str | None = None, tools: list[dict[str, Any]] | None = None) -> str:
        """Return the template that a chat is written by, with these tools."""

    def apply_chat_template(self, conversation: list[dict[str, Any]], **kwargs: Any) -> Any:
        """Return the conversation as one text."""

    def encode(self, text: str, **kwargs: Any) -> list[int]:
        """Return token ids."""

    def decode(self, token_ids: Sequence[int], **kwargs: Any) -> Any:
        """Return text."""

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Id to added token (`content`, `special`)."""


class Encoder:
    """Turns texts into the ids that the tokenizer gives for them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        own = type(tokenizer)
        plain = all(getattr(getattr(own, name, None), "__qualname__", "") == at for name, at in _PLAIN_WRAPPERS.items())
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None) if plain else None
        if self._backend is not None:
            tokenizer.encode("", add_special_tokens=False)  # sets how the backend is to find control tokens
        self._boundaries = _Boundaries(tokenizer)
        self._head = lru_cache(_MOST_HEADS)(self.ids)  # both completions have the same, and often all pairs of a file

    def __reduce__(self) -> tuple[Any, ...]:
        return Encoder, (self._tokenizer,)  # another process remembers for itself

    @property
    def identity(self) -> str | None:
        """A fingerprint of all that ids, and what a template is told, depend on; None where that cannot be told.

        It is told by a tokenizer in Rust whose wrapper adds nothing. Costs up to a second, for a large vocabulary.
        """
        if self._backend is None:
            return None
        tokenizer: Any = self._tokenizer  # of transformers, since it has such a backend
        self._backend.no_truncation()  # as `ids` does, or the same tokenizer would have two names
        self._backend.no_padding()
        names = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        said = [type(tokenizer).__qualname__, names, tokenizer.chat_template]
        return fingerprint([self._backend.to_str(), self._backend.encode_special_tokens, *said])

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text; raises RenderError where the tokenizer refuses it."""
        try:
            if self._backend is None:
                return list(self._tokenizer.encode(text, add_special_tokens=False))
            self._backend.no_truncation()
            self._backend.no_padding()
            with unsaid():
                [found] = self._backend.encode_batch_fast([text], add_special_tokens=False)
            return list(found.ids)
        except BaseException as error:  # a tokenizer may raise anything, on half a surrogate pair for one
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            cause = one_line(error, 200) or type(error).__name__
            raise RenderError("tokenizer", f"the tokenizer refuses the text: {cause}") from None

    def continuation(self, text: str, before: str) -> list[int]:
        """Return the ids of `text` as the continuation of another text, which keeps its own ids.

        Tokenised on its own, a text may get a leading space (SentencePiece); tokenised together, a token may reach
        over the seam. So it is tokenised behind an anchor whose ids stay the same with and without it.
        """
        if not text:
            return []
        for anchor in (self._boundaries.last_of(before), *_ANCHORS):
            head, joint = self._head(anchor), self.ids(anchor + text)
            if joint[: len(head)] == head:
                return joint[len(head) :]
        raise RenderError("seam", f"the tokenizer cannot continue the prompt at {text[:40]!r}")


class _Boundaries:
    """Finds the last control token of a text: what lies before it has no say in the ids from there on.

    A tokenizer written in Rust finds added tokens before anything else, from left to right and the longest first, and
    treats what lies between two of them on its own. That holds for tokens that are looked for before the text is
    normalised, and not only as whole words. Such a token is found wherever it stands unless another one that begins
    before it takes part of it, or all; so it must not begin as one ends, nor be inside one.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)  # only tokenizers that are written in Rust have one
        added = {} if backend is None or backend.encode_special_tokens else backend.get_added_tokens_decoder()
        self._tokens = [token.content for token in added.values() if not token.normalized]
        ends = {content[start:] for content in self._tokens for start in range(1, len(content))}
        whole = [token.content for token in added.values() if token.content and not token.single_word]
        clear = [text for text in whole if not any(text[:length] in ends for length in range(1, len(text)))]
        ordered = sorted(set(clear) & set(self._tokens), key=len, reverse=True)
        self._clear = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        self._inside: dict[str, bool] = {}  # whether a token is a part of another one

    def last_of(self, text: str) -> str:
        """Return the text from its last control token on; all of it where none stands near its end."""
        last = 0
        for found in self._clear.finditer(text, max(0, len(text) - _NEAR)) if self._clear else ():
            content = found[0]
            if content not in self._inside:
                self._inside[content] = any(content in other for other in self._tokens if other != content)
            if not self._inside[content]:
                last = found.start()
        return text[last:]
