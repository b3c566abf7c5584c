"""One request to an OpenAI-compatible server: sent within the caps, tried again where that may help, never guessed.

Owns which faults may pass, how long is waited, and that the key is written nowhere.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from tiebreak.config import ServerJudge
from tiebreak.engine.answers.wire import Unusable, Wire
from tiebreak.errors import ConfigError, JudgeError
from tiebreak.evaluation.judges.capped import Purse
from tiebreak.evaluation.judges.given import EVALUATION
from tiebreak.fingerprint import fingerprint, unit_interval
from tiebreak.progress import Progress

_FIRST_WAIT, _LONGEST_WAIT, _MOST_ASKED_WAIT = 0.5, 30.0, 120.0
_MAY_PASS, _FOR_ALL = (408, 409, 425, 429), (401, 402, 403, 404, 405)
_IN_A_ROW = 5
"""So many questions without an answer, one after the other, and nobody is asked any more."""
_OF_THE_QUESTION = ("context_length", "context length", "content_filter", "content management policy")
"""In a refusal: it says nothing of the next question."""
_OF_ONE = (400, 413, 422)
"""Of a server that answered others, they are about what it was asked."""
_MOST_TOKENS = 10**9
"""What no request takes: a count above it is none."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class NoAnswer(Exception):  # noqa: N818 - it is what came, and no error of ours
    """The server did not answer this question; it may answer others."""


class _NotAsked(NoAnswer):
    """Nothing was sent, or this question alone is refused, which says nothing of the server."""


class Endpoint:
    """A server, as its settings name it. Raises ConfigError where the client or the key is missing."""

    def __init__(self, settings: ServerJudge, purse: Purse, progress: Progress, where: str = EVALUATION) -> None:
        self._wire = Wire(settings.base_url, settings.key_variable, settings.timeout_seconds, settings.max_tokens)
        self._openai, self._key = self._wire.openai, self._wire.key
        if not self._key and settings.base_url is None:
            raise ConfigError(
                f"{where}: the environment variable {settings.key_variable} holds no key; set it, or name "
                "another with judge.key_variable, or a server with judge.base_url"
            )
        host = urlsplit(settings.base_url or "")
        if self._key and host.scheme == "http" and host.hostname not in _LOOPBACK:
            progress.warn(f"the key in {settings.key_variable} goes to {host.hostname} without encryption")
        self._settings, self._purse = settings, purse
        self._stopping, self._lock, self._in_a_row = threading.Event(), threading.Lock(), 0
        self.has_answered = False
        """Whether it ever did, now or in a run before whose answers are kept."""
        self._causes: list[JudgeError] = []
        """Why nothing more is sent; the first one is told."""

    def close(self) -> None:
        """Give up the connections."""
        self._wire.close()

    def stop(self) -> None:
        """Send nothing more; what is under way may come to its end."""
        self._stopping.set()

    def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return what the server answers.

        Raises NoAnswer where it has none to this question, and JudgeError where asking on is of no use: a cap is
        reached, nobody is there, the key or the model is refused, several questions in a row had no answer. From then
        on nothing more is sent.
        """
        if self._causes:
            raise self._causes[0]
        try:
            answer = self._tried(messages)
        except _NotAsked:
            raise
        except NoAnswer as error:
            with self._lock:
                self._in_a_row += 1
                if self._in_a_row < _IN_A_ROW:
                    raise
            told = f"no answer to {_IN_A_ROW} questions in a row, the last: {error}"
            raise self._ended(JudgeError(f"{self._settings.model}: {told}")) from None
        except JudgeError as error:
            raise self._ended(error) from None
        with self._lock:
            self._in_a_row, self.has_answered = 0, True
        return answer

    def _ended(self, cause: JudgeError) -> JudgeError:
        """Send nothing more, and return why: the first cause."""
        self._causes.append(cause)
        self.stop()
        return self._causes[0]

    def _tried(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Send a request as often as it may help."""
        name, tries = self._settings.model, self._settings.num_retries + 1
        draw = unit_interval(
            fingerprint(list(messages))
        )  # so that those who were refused together do not come again so
        for number in range(tries):
            if self._stopping.is_set():
                raise self._causes[0] if self._causes else _NotAsked("not asked any more")
            try:
                return self._once(messages)
            except self._openai.APIStatusError as error:
                code, told = error.status_code, self._wire.told(error)
                if code in _FOR_ALL or "insufficient_quota" in told:
                    raise JudgeError(f"{name}: refused ({code}: {told})") from None
                if code not in _MAY_PASS and code < 500:
                    alone = any(words in told for words in _OF_THE_QUESTION) or (self.has_answered and code in _OF_ONE)
                    raise (_NotAsked if alone else NoAnswer)(f"refused ({code}: {told})") from None
                why, asked = f"{code}: {told}", _asked_wait(error.response.headers)
            except (TimeoutError, self._openai.APITimeoutError):
                why, asked = f"nothing within {self._settings.timeout_seconds:g} s", None
            except self._openai.APIConnectionError as error:
                why, asked = f"no connection: {self._wire.told(error.__cause__ or error)}", None
                if number + 1 == tries:
                    raise JudgeError(f"{name}: {why}, tried {tries} times") from None
            if asked is not None and asked > _MOST_ASKED_WAIT:
                raise JudgeError(f"{name}: asks to wait {asked:.6g} s ({why})")
            if number + 1 < tries:
                wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2**number) * (1 + draw / 2) if asked is None else asked
                self._stopping.wait(wait)
        raise NoAnswer(f"{why}, tried {tries} times")

    def _once(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Send one request. Raises what the client raises, and NoAnswer where the answer is in no known form."""
        settings = self._settings
        # OpenAI's own newer models refuse max_tokens; other servers know nothing else.
        limit = "max_tokens" if settings.base_url else "max_completion_tokens"
        body: dict[str, Any] = {"model": settings.model, "messages": list(messages), limit: settings.max_tokens}
        if settings.temperature is not None:
            body["temperature"] = settings.temperature
        size = size_of(messages)
        reserved, answer, tokens = self._purse.reserve(size), None, None
        try:
            told = self._sent(body)
            try:
                whole = json.loads(told)
                answer = _text_of(whole["choices"][0]["message"]["content"])
            except (ValueError, LookupError, TypeError, RecursionError):
                raise NoAnswer(f"in no form of a chat completion: {self._wire.told(told)}") from None
            tokens = _tokens_of(whole.get("usage"))
        finally:
            self._purse.settle(reserved, size, answer, tokens)
        return answer.replace(self._key, "***") if self._key else answer

    def _sent(self, body: Mapping[str, Any]) -> bytes:
        try:
            return self._wire.ask(
                lambda client: bytes(client.chat.completions.with_raw_response.create(**body).content)
            )
        except Unusable as error:
            raise NoAnswer(f"of no use: {error}") from None
        except (TimeoutError, self._openai.OpenAIError):
            raise
        except Exception as error:  # noqa: BLE001 - the client says in many ways that it cannot send this
            said = self._wire.told(f"{type(error).__name__}: {error}")
            raise JudgeError(f"{self._settings.model}: the request cannot be sent ({said})") from None


def size_of(messages: Sequence[Mapping[str, str]]) -> int:
    """Return the bytes of the text that is sent."""
    return sum(len(message["content"].encode(errors="replace")) for message in messages)


def _text_of(content: Any) -> str:
    """Return the text of an answer; none is an empty one. Raises TypeError for what is no text."""
    if not isinstance(content, str | None):
        raise TypeError
    return (content or "").encode(errors="replace").decode()  # half characters could not be kept


def _tokens_of(usage: Any) -> tuple[int, int] | None:
    """Return tokens sent and answered as a server says; None where it does not, or not in numbers."""
    found = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, Mapping) else []
    sent, answered = found or (None, None)
    if type(sent) is int and type(answered) is int and 0 <= min(sent, answered) <= max(sent, answered) <= _MOST_TOKENS:
        return sent, answered
    return None


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait (Retry-After, RFC 9110): a number or a date; None where neither."""
    said = headers.get("retry-after")
    if said is None:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, OverflowError):  # before and after the years that a clock knows
        return None
