"""Messages, what was judged of them, and what became of each record of a file, as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal
from unicodedata import category, normalize

from tiebreak.fingerprint import fingerprint

UNDECIDED = frozenset({"tie", "unpaired", "not_good"})
"""Reasons of records that are sound and give no pair: they do not count as unusable."""
ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True)
class Message:
    """One chat message, its text untouched."""

    role: str
    content: str
    name: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool_call_id: str | None = None
    reasoning: str = ""
    """What an assistant thought before it said its content, where it is told apart from that."""

    @staticmethod
    def from_dict(row: Mapping[str, Any]) -> Message:
        """Return the message that `as_dict` gave; raises KeyError or TypeError where it is none."""
        calls, thought = tuple(row.get("tool_calls") or ()), str(row.get("reasoning_content") or "")
        return Message(str(row["role"]), str(row["content"]), row.get("name"), calls, row.get("tool_call_id"), thought)

    def as_dict(self) -> dict[str, Any]:
        """Return the message as chat templates take it; absent fields are left out."""
        optional = {
            "name": self.name,
            "tool_calls": list(self.tool_calls),
            "tool_call_id": self.tool_call_id,
            "reasoning_content": self.reasoning,
        }
        return {"role": self.role, "content": self.content} | {k: v for k, v in optional.items() if v}


@dataclass(frozen=True)
class Source:
    """Where a record stands: file name and line, counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Vote:
    """What one annotator said of a pair."""

    choice: Literal["chosen", "rejected", "tie"]
    annotator: str = ""


@dataclass(frozen=True)
class Preference:
    """What is known of the judgement behind a pair: scores, strength, weight, who voted how."""

    chosen_score: float | None = None
    rejected_score: float | None = None
    margin: float | None = None
    """How much better chosen is, in the unit of the scores; stated, or their difference."""
    weight: float = 1.0
    soft_label: float | None = None
    """Probability that chosen is the better one (0..1)."""
    votes: tuple[Vote, ...] = ()
    chosen_win_rate: float | None = None
    rejected_win_rate: float | None = None
    """Probability (0..1) that a completion wins against a sample of the policy that is to be trained."""

    def __post_init__(self) -> None:
        shares = (self.soft_label, self.chosen_win_rate, self.rejected_win_rate)
        numbers = (self.chosen_score, self.rejected_score, self.margin, self.weight, *shares)
        if not all(math.isfinite(number) for number in numbers if number is not None):
            raise ValueError("scores, margin, weight, soft label and win rates are finite numbers")
        if self.weight < 0 or not all(0 <= share <= 1 for share in shares if share is not None):
            raise ValueError("a weight is at least 0, a soft label and a win rate between 0 and 1")

    def as_dict(self) -> dict[str, Any]:
        """Return what is stated, for JSON; {} where nothing is."""
        return _stated(self)


NOTHING_STATED = Preference()
FACTS = ("soft_label", "margin", "chosen_win_rate", "rejected_win_rate")
"""What an objective may read of a preference, besides its weight."""


@dataclass(frozen=True)
class Origin:
    """Where a pair comes from, as its file says: data set, licence, given split, group of related prompts."""

    dataset: str | None = None
    licence: str | None = None
    split: str | None = None
    group: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what is stated, for JSON; {} where nothing is."""
        return _stated(self)


def _stated(value: Preference | Origin) -> dict[str, Any]:
    defaults = {field.name: field.default for field in fields(value)}
    stated = {name: item for name, item in asdict(value).items() if item != defaults[name]}
    return {name: list(item) if isinstance(item, tuple) else item for name, item in stated.items()}


@dataclass(frozen=True)
class Pair:
    """A prompt and two completions, of which `chosen` is preferred over `rejected`."""

    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    tools: tuple[Mapping[str, Any], ...] = ()
    source: Source | None = None
    preference: Preference = NOTHING_STATED
    origin: Origin = Origin()

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("a pair needs at least one prompt message")
        if self.chosen.role != "assistant" or self.rejected.role != "assistant":
            raise ValueError("both completions are assistant messages")

    @cached_property
    def prompt_id(self) -> str:
        """Content hash of the prompt, as a reader sees it, and its tools."""
        return prompt_id_of(self.prompt, self.tools)

    @cached_property
    def pair_id(self) -> str:
        """Content hash of the prompt, to the letter, and both completions."""
        prompt = _hash_of(self.prompt, self.tools)
        return fingerprint([prompt, self.chosen.as_dict(), self.rejected.as_dict()])

    @property
    def example_id(self) -> str:
        """Content hash of all of it."""
        return self.pair_id

    @property
    def split_key(self) -> str:
        """What decides on which side of a split the pair falls."""
        return split_key_of(self.prompt_id, self.origin.group)

    @property
    def verdicts(self) -> dict[str, Message]:
        """Its completions by what was said of each."""
        return {"chosen": self.chosen, "rejected": self.rejected}

    def saying(self, prompt: tuple[Message, ...], chosen: Message, rejected: Message) -> Pair:
        """Return the same judgement of other messages."""
        return replace(self, prompt=prompt, chosen=chosen, rejected=rejected)

    @property
    def apart(self) -> tuple[Thumb, Thumb]:
        """Both completions on their own: chosen is good, rejected is bad."""
        return (
            Thumb(self.prompt, self.chosen, True, self.tools, self.source, self.origin, self.preference.weight),
            Thumb(self.prompt, self.rejected, False, self.tools, self.source, self.origin, self.preference.weight),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the whole pair for JSON: OpenAI's form, with `preference` and `origin` where anything is stated."""
        extras = {"preference": self.preference.as_dict(), "origin": self.origin.as_dict()}
        return self.as_openai() | {name: value for name, value in extras.items() if value}

    def as_openai(self) -> dict[str, Any]:
        """Return prompt and completions in OpenAI's preference fine-tuning form."""
        source: dict[str, Any] = {"messages": [m.as_dict() for m in self.prompt]}
        if self.tools:
            source["tools"] = list(self.tools)
        return {
            "input": source,
            "preferred_output": [self.chosen.as_dict()],
            "non_preferred_output": [self.rejected.as_dict()],
        }


@dataclass(frozen=True)
class Thumb:
    """One completion with a verdict of its own and no partner: liked or not."""

    prompt: tuple[Message, ...]
    completion: Message
    liked: bool
    tools: tuple[Mapping[str, Any], ...] = ()
    source: Source | None = None
    origin: Origin = Origin()
    weight: float = 1.0
    """Factor on its loss."""
    opening_id: str | None = None
    """Of one turn of a dialogue whose every turn is learned: the hash of the first one's prompt, by which all of them
    are held out, or none."""

    @cached_property
    def prompt_id(self) -> str:
        """Content hash of the prompt and its tools, as of a pair."""
        return prompt_id_of(self.prompt, self.tools)

    @cached_property
    def example_id(self) -> str:
        """Content hash of the prompt, to the letter, the completion and the verdict."""
        return fingerprint([_hash_of(self.prompt, self.tools), self.completion.as_dict(), self.liked])

    @property
    def split_key(self) -> str:
        """What decides on which side of a split it falls, as of a pair."""
        return self.opening_id or split_key_of(self.prompt_id, self.origin.group)

    @property
    def verdicts(self) -> dict[str, Message]:
        """Its completion by what was said of it."""
        return {"liked" if self.liked else "disliked": self.completion}

    def saying(self, prompt: tuple[Message, ...], completion: Message) -> Thumb:
        """Return the same judgement of other messages."""
        return replace(self, prompt=prompt, completion=completion)

    def as_dict(self) -> dict[str, Any]:
        """Return it whole, for JSON: TRL's form, with `tools`, `weight` and `origin` where anything is stated."""
        row = {"prompt": [one.as_dict() for one in self.prompt], "completion": [self.completion.as_dict()]}
        extras = {"tools": list(self.tools), "origin": self.origin.as_dict()}
        weight = {} if self.weight == 1 else {"weight": self.weight}
        return row | {"label": self.liked} | weight | {name: value for name, value in extras.items() if value}


Judgement = Pair | Thumb
"""What an example is made of: two completions held against each other, or one on its own."""


@dataclass(frozen=True)
class Rated:
    """One completion with a score of its own, higher is better, and no partner yet."""

    prompt: tuple[Message, ...]
    completion: Message
    score: float
    tools: tuple[Mapping[str, Any], ...] = ()
    source: Source | None = None
    origin: Origin = Origin()

    @cached_property
    def prompt_id(self) -> str:
        """Content hash of the prompt and its tools, as of a pair."""
        return prompt_id_of(self.prompt, self.tools)


def split_key_of(prompt_id: str, group: str | None) -> str:
    """Return what decides on which side of a split a prompt falls: its group where one is stated, else its hash."""
    return prompt_id if group is None else fingerprint(["group", group])


def prompt_id_of(prompt: tuple[Message, ...], tools: tuple[Mapping[str, Any], ...] = ()) -> str:
    """Return the content hash of a prompt. Prompts that a reader cannot tell apart are one: on both sides of a split,
    and counted as two, they would be a leak and evidence that is not there.
    """
    return _hash_of(tuple(_as_seen(message) for message in prompt), tools)


def _as_seen(message: Message) -> Message:
    """Return a message without what nobody sees: blanks around it, hidden characters, Unicode's forms."""
    text = message.content
    if not text.isascii():
        text = normalize("NFC", "".join(char for char in text if category(char) != "Cf"))
    return message if (text := text.strip()) == message.content else replace(message, content=text)


def _hash_of(prompt: tuple[Message, ...], tools: tuple[Mapping[str, Any], ...]) -> str:
    return fingerprint([[message.as_dict() for message in prompt], list(tools)])


@dataclass(frozen=True)
class Dropped:
    """A record that will not be used: where it stands, a short reason code, and the finding in words."""

    source: Source
    reason: str
    detail: str
    preference: Preference = NOTHING_STATED
    """What was known of the judgement, where it could be read; agreement and ties are counted over these, too. Of a
    record that nobody won, the first completion stands for chosen."""

    def as_dict(self) -> dict[str, Any]:
        """Return the row of `dropped.jsonl`."""
        return {"file": self.source.file, "line": self.source.line, "reason": self.reason, "detail": self.detail}


@dataclass(frozen=True)
class Record:
    """What became of one record of a file: pairs, completions to be paired later, or the reason why it is dropped."""

    source: Source
    pairs: tuple[Pair, ...] = ()
    thumbs: tuple[Thumb, ...] = ()
    rated: tuple[Rated, ...] = ()
    num_ties: int = 0
    """Comparisons of the record that nobody won; they give no pair."""
    dropped: Dropped | None = None
    unpaired: tuple[Thumb, ...] = ()
    """Completions to be learned from each on its own, where that was asked for; then there are no pairs."""

    def __post_init__(self) -> None:
        if bool(self.pairs or self.unpaired or self.waits) == (self.dropped is not None):
            raise ValueError("a record gives pairs or completions to pair, or it is dropped")

    @property
    def judged(self) -> tuple[Judgement, ...]:
        """What is to be learned from it."""
        return (*self.pairs, *self.unpaired)

    @property
    def waits(self) -> bool:
        """Whether its completions find their partners once the whole file is read."""
        return bool(self.thumbs or self.rated)
