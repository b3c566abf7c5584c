"""What judging costs: reckoned beforehand, counted as it goes, and stopped at a cap before the request that breaks it.

Owns the rough measure of tokens and what counts as a call. Safe for several threads.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from tiebreak.config import ServerJudge
from tiebreak.errors import CapReached, ConfigError

BYTES_PER_TOKEN = 3
"""The rough measure: English takes more bytes for a token, most other text fewer or as many."""
_MILLION = 1_000_000


@dataclass(frozen=True)
class Estimate:
    """What is about to be asked: tokens by the rough measure, the cost where it is priced."""

    num_calls: int
    num_kept: int
    """Answers that nobody has to be asked for."""
    tokens_in: int
    most_tokens_out: int
    most_cost: float | None

    def times(self, num: int) -> Estimate:
        """Return what so many times as much would take."""
        cost = None if self.most_cost is None else num * self.most_cost
        return Estimate(
            num * self.num_calls, num * self.num_kept, num * self.tokens_in, num * self.most_tokens_out, cost
        )

    @property
    def says(self) -> str:
        """One sentence."""
        if not self.num_calls:
            return f"nothing to ask: {self.num_kept} answers are kept"
        cost = "its cost is not known without prices" if self.most_cost is None else f"at most {self.most_cost:.4g}"
        return (
            f"{self.num_calls} calls ({self.num_kept} more are kept), about {self.tokens_in:,} tokens sent at "
            f"{BYTES_PER_TOKEN} bytes each, at most {self.most_tokens_out:,} answered; {cost}"
        )


@dataclass(frozen=True)
class Spent:
    """What was asked and answered."""

    num_calls: int
    """Requests that were sent, those that failed and were tried again among them."""
    num_kept: int
    tokens_in: int
    tokens_out: int
    cost: float | None
    """None where nothing is priced."""
    is_rough: bool
    """Whether the server did not say how many tokens some answers took."""

    @staticmethod
    def together(several: Sequence[Spent]) -> Spent | None:
        """Return what was spent one after the other on the same questions; None where nothing was.

        Answers that were kept are those of the first time: later ones had been paid for by then.
        """
        if not several:
            return None
        costs = [one.cost for one in several if one.cost is not None]
        return Spent(
            sum(one.num_calls for one in several),
            several[0].num_kept,
            sum(one.tokens_in for one in several),
            sum(one.tokens_out for one in several),
            math.fsum(costs) if costs else None,
            any(one.is_rough for one in several),
        )


def within(settings: ServerJudge, cost: float) -> ServerJudge:
    """Return settings that also keep to a cost; raises ConfigError where what a request costs is not known."""
    if None in (settings.price_in, settings.price_out):
        raise ConfigError(
            f"judge server:{settings.model}: a cap on the cost needs judge.price_in and judge.price_out: what a "
            "request costs is not known without them"
        )
    own = cost if settings.max_cost is None else min(cost, settings.max_cost)
    return settings.model_copy(update={"max_cost": max(0.0, own)})


class Purse:
    """Counts requests and their cost, and refuses the one that could go beyond a cap.

    Caps are of all goes at the same questions: `before` is what earlier ones spent. What is counted is this go's.
    """

    def __init__(self, settings: ServerJudge, before: Spent | None = None) -> None:
        self._settings = settings
        self._before_calls, self._before_cost = 0, 0.0
        if before:
            at_these_prices = self._cost(before.tokens_in, before.tokens_out)
            self._before_calls = before.num_calls
            self._before_cost = (at_these_prices or 0.0) if before.cost is None else before.cost
        self._lock = threading.Lock()
        self._settled = threading.Condition(self._lock)
        self._num_under_way = 0
        self._tokens_per_byte = 1 / BYTES_PER_TOKEN
        self._num_calls = self._num_kept = self._tokens_in = self._tokens_out = 0
        self._reserved = 0.0
        self._is_rough = False

    def estimate(self, num_kept: int, sizes: Sequence[int]) -> Estimate:
        """Return what requests of so many bytes would take, besides those whose answers are kept."""
        tokens_in = sum(map(self._tokens, sizes))
        most_out = len(sizes) * self._settings.max_tokens
        return Estimate(len(sizes), num_kept, tokens_in, most_out, self._cost(tokens_in, most_out))

    def take_kept(self, num: int) -> None:
        """Count answers that nobody had to be asked for."""
        with self._lock:
            self._num_kept += num

    def reserve(self, size: int) -> float:
        """Count a request of so many bytes before it is sent; return what is put aside for it, to be settled.

        Where only what is under way could bring it beyond a cap on the cost, it waits: most requests take less than is
        put aside for them. Raises CapReached where the request could go beyond a cap whatever comes back.
        """
        caps = self._settings
        with self._lock:
            if caps.max_calls is not None and self._before_calls + self._num_calls >= caps.max_calls:
                raise CapReached(f"max_calls {caps.max_calls} is reached")
            while caps.max_cost is not None:
                most = self._most(size)
                spent = self._before_cost + (self._cost(self._tokens_in, self._tokens_out) or 0.0)
                if spent + self._reserved + most <= caps.max_cost:
                    break
                if spent + most > caps.max_cost or not self._num_under_way:
                    raise CapReached(f"max_cost {caps.max_cost:g} is reached: {spent:.4g} is spent")
                self._settled.wait()
            most = self._most(size)
            self._num_under_way += 1
            self._num_calls += 1
            self._reserved += most
            return most

    def settle(self, reserved: float, size: int, answer: str | None, tokens: tuple[int, int] | None = None) -> None:
        """Give back what was put aside, and count what was taken: tokens as the server says, else by the measure.

        A request without an answer counts as a call that cost nothing.
        """
        with self._lock:
            self._reserved = max(0.0, self._reserved - reserved)
            self._num_under_way -= 1
            self._settled.notify_all()
            if answer is None:
                return
            self._is_rough |= tokens is None
            sent, answered = tokens or (self._tokens(size), self._tokens(len(answer.encode(errors="replace"))))
            # Where this server's tokens are shorter than thought, the next estimate is larger.
            self._tokens_per_byte = max(self._tokens_per_byte, sent / size)
            self._tokens_in += sent
            self._tokens_out += answered

    @property
    def spent(self) -> Spent:
        """What was spent until now."""
        with self._lock:
            cost = self._cost(self._tokens_in, self._tokens_out)
            tokens = self._tokens_in, self._tokens_out
            return Spent(self._num_calls, self._num_kept, *tokens, cost, self._is_rough)

    def _tokens(self, size: int) -> int:
        return round(size * self._tokens_per_byte)

    def _most(self, size: int) -> float:
        return self._cost(self._tokens(size), self._settings.max_tokens) or 0.0

    def _cost(self, tokens_in: int, tokens_out: int) -> float | None:
        into, out = self._settings.price_in, self._settings.price_out
        if into is None or out is None:
            return None
        return (tokens_in * into + tokens_out * out) / _MILLION
