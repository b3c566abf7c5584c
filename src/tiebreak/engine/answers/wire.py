"""The way to an OpenAI-compatible server: requests that end, answers of a bounded size, a key that nobody is told.

Owns what a key has to be, how long a whole request takes at most, and how much may come back for it, packed and
unpacked. Knows nothing of what is asked, nor of when it is asked again.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from tiebreak.errors import ConfigError, one_line
from tiebreak.secrecy import masked

OPENAI = "https://api.openai.com/v1"
_LEAST, _BYTES_PER_TOKEN = 4 * 2**20, 64
_TOLD = 200
_PLAIN, _ZIPPED = ("", "identity"), ("gzip", "x-gzip", "deflate")
_ANY_ZIP = 32 + zlib.MAX_WBITS

T = TypeVar("T")


class Unusable(Exception):  # noqa: N818 - it is what came, and no error of ours
    """What a server sent is too much, or packed as nobody asked for; the next answer may be well."""


class Wire:
    """A client of one server.

    Raises ConfigError where the client is missing, the key cannot be sent, or no client can be made for the address.
    """

    def __init__(
        self, base_url: str | None, key_variable: str, timeout_seconds: float, max_tokens: int, num_retries: int = 0
    ) -> None:
        try:
            import openai  # noqa: PLC0415 - an extra, and loads slowly
        except ImportError:
            raise ConfigError("a server is asked with the openai client: pip install 'tiebreak[server]'") from None
        self.openai: Any = openai
        self.key = key_in(key_variable)
        """'' where none is set."""
        self._seconds, self._num_retries = timeout_seconds, num_retries
        # What a server says besides the text, and text that is written as escapes, is no more than this.
        self._most = _LEAST + _BYTES_PER_TOKEN * max_tokens
        try:
            self._client = openai.OpenAI(
                api_key=self.key or "none",  # else the client would look for one of its own
                base_url=base_url or OPENAI,
                max_retries=num_retries,
                timeout=timeout_seconds,
                http_client=openai.DefaultHttpxClient(
                    # Where a server points to is not where its user sends a key and their data.
                    follow_redirects=False,
                    headers={"Accept-Encoding": "gzip, deflate"},
                    event_hooks={"response": [self._take]},
                ),
            )
        except Exception as error:  # noqa: BLE001 - of the address, of proxies and certificates in the environment
            raise ConfigError(f"base_url: no server can be asked there ({self.told(error)})") from None

    def close(self) -> None:
        """Give up the connections."""
        self._client.close()

    def ask(self, send: Callable[[Any], T]) -> T:
        """Return what `send` gets of the client.

        Raises TimeoutError where that takes longer than it may, Unusable for what came, and what the client raises. A
        server that sends a byte now and then keeps only a thread that nobody waits for.
        """
        told = Future[T]()

        def carry_out() -> None:
            try:
                told.set_result(send(self._client))
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                told.set_exception(error)

        threading.Thread(target=carry_out, daemon=True).start()
        try:
            return told.result(None if self._num_retries else self._seconds)
        except self.openai.APIConnectionError as error:
            if isinstance(error.__cause__, Unusable | TimeoutError):
                raise error.__cause__ from None
            raise

    def told(self, what: object) -> str:
        """Return in one line what a library or a server said, without the key."""
        said = what.decode(errors="replace") if isinstance(what, bytes) else what
        return one_line(masked(str(said), [self.key] if self.key else []), _TOLD)

    def _take(self, response: Any) -> None:
        """Read what comes, as far as it may, before the client does, which has no bound."""
        until, packed = time.monotonic() + self._seconds, bytearray()
        for chunk in response.stream:
            packed += chunk
            if len(packed) > self._most:
                raise self._too_much()
            if time.monotonic() > until:
                raise TimeoutError
        response.stream.close()
        body = self._unpacked(bytes(packed), response.headers.pop("content-encoding", "").strip().lower())
        # Of the library that the client stands on, whichever that is; and JSON is UTF-8, whatever a server calls it.
        response.stream = sys.modules[type(response).__module__.partition(".")[0]].ByteStream(body)
        response.headers["content-type"] = "application/json"

    def _unpacked(self, packed: bytes, encoding: str) -> bytes:
        if encoding in _PLAIN:
            return packed
        if encoding not in _ZIPPED:
            raise Unusable(f"packed as {one_line(encoding, 40)}, wanted gzip or nothing")
        try:
            opened = zlib.decompressobj(_ANY_ZIP).decompress(packed, self._most + 1)
        except zlib.error:
            raise Unusable(f"no {encoding}, though it is called so") from None
        if len(opened) > self._most:
            raise self._too_much()
        return opened

    def _too_much(self) -> Unusable:
        return Unusable(f"more than {self._most / 2**20:.0f} MiB for one answer")


def key_in(variable: str) -> str:
    """Return the key in an environment variable, '' where it holds none.

    Raises ConfigError where it is nothing that can be sent: of a key, libraries tell what is wrong by showing it.
    """
    key = os.environ.get(variable, "")
    if not all("!" <= character <= "~" for character in key):
        raise ConfigError(
            f"the environment variable {variable} holds blanks, line ends or characters beyond ASCII, which no key "
            "has; set it to the key alone"
        )
    return key
