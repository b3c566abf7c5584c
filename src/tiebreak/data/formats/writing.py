"""Pairs to rows: one pure function for each form that others read, and one table of them.

Owns what a form can say. What a form cannot say is either left out and counted (scores, names), or it is so much part
of the pair that the pair is refused (tools, earlier turns): a row written here reads back as the same pair. Only
thumbs are paired anew when they are read: what becomes of pairs that share a prompt, the writer of a file must see to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tiebreak.data.formats import detect, read_row
from tiebreak.data.formats.form import Reading, RowError
from tiebreak.records import Message, Origin, Pair, Preference, Source

WrittenRow = dict[str, Any]

# Without these the pair would be another one: a form that cannot carry them refuses it.
NEEDED = {
    "system": "a system message",
    "developer": "a developer message",
    "history": "earlier turns",
    "tools": "tools",
    "tool_calls": "tool calls",
    "reasoning": "reasoning beside the content",
}
# These stand beside the pair: a form that cannot carry them leaves them out.
BESIDE = {
    "preference": "scores, margin, weight and soft label",
    "votes": "votes",
    "origin": "data set, licence, split and group",
    "names": "names of speakers",
    "call_ids": "ids of tool calls",
    "blanks": "blanks around the texts",
    "pairing": "who was compared with whom",
}


@dataclass(frozen=True)
class Writer:
    """A form to write: what builds the rows of one pair, and which of `NEEDED` and `BESIDE` they carry.

    A form that does not carry `pairing` has a row for each completion, that of chosen first; any other has one row.
    """

    name: str
    title: str
    builders: tuple[Callable[[Pair], WrittenRow], ...]
    carries: frozenset[str]

    def write(self, pair: Pair) -> list[WrittenRow]:
        """Return the rows of a pair, or raise RowError `not_expressible`; what they read back as is the same pair."""
        lost = [words for name, words in NEEDED.items() if name in traits(pair) - self.carries]
        if lost:
            raise _not_expressible(f"the '{self.name}' form has no place for {' and '.join(lost)}")
        rows = [build(pair) for build in self.builders]
        if not all(_reads_back(row, pair, self.carries) for row in rows):
            raise _not_expressible(f"in the '{self.name}' form it would read back as another pair")
        return rows

    def left_out(self, pair: Pair) -> tuple[str, ...]:
        """Return which of `BESIDE` the pair has and the form does not carry."""
        has = traits(pair)
        return tuple(name for name in BESIDE if name in has and name not in self.carries)


def traits(pair: Pair) -> frozenset[str]:
    """Return which of `NEEDED` and `BESIDE` a pair has by itself; `pairing` is only of pairs that share a prompt."""
    messages, roles = (*pair.prompt, pair.chosen, pair.rejected), [message.role for message in pair.prompt]
    calls = [call for message in messages for call in message.tool_calls]
    has = {
        "system": "system" in roles,
        "developer": "developer" in roles,
        "history": sum(role not in ("system", "developer") for role in roles) > 1,
        "tools": bool(pair.tools),
        "tool_calls": bool(calls) or "tool" in roles,
        "reasoning": any(message.reasoning for message in messages),
        "preference": replace(pair.preference, votes=()) != Preference(),
        "votes": bool(pair.preference.votes),
        "origin": pair.origin != Origin(),
        "names": any(message.name is not None for message in messages),
        "call_ids": any(message.tool_call_id is not None for message in messages)
        or any("id" in call for call in calls),
        "blanks": any(message.content != message.content.strip() for message in messages),
    }
    return frozenset(name for name, is_there in has.items() if is_there)


def _not_expressible(detail: str) -> RowError:
    return RowError("not_expressible", detail)


def _reads_back(row: WrittenRow, pair: Pair, carries: frozenset[str]) -> bool:
    form = detect(row)
    try:
        reading = read_row(row, form, Source("", 0)) if form else Reading()
    except RowError:
        return False
    if len(reading.pairs) + len(reading.thumbs) != 1:
        return False
    if reading.pairs:
        (found,) = reading.pairs
        told, wanted = (*found.prompt, found.chosen, found.rejected), (*pair.prompt, pair.chosen, pair.rejected)
        tools = found.tools
    else:
        (thumb,) = reading.thumbs
        told, wanted = (*thumb.prompt, thumb.completion), (*pair.prompt, pair.chosen if thumb.liked else pair.rejected)
        tools = thumb.tools
    is_same = [_kept(message, carries) for message in told] == [_kept(message, carries) for message in wanted]
    return is_same and tools == pair.tools


def _kept(message: Message, carries: frozenset[str]) -> Message:
    """Return the message without what a form does not carry."""
    if "names" not in carries:
        message = replace(message, name=None)
    if "call_ids" not in carries:
        message = replace(message, tool_call_id=None, tool_calls=tuple(_told_call(call) for call in message.tool_calls))
    return message if "blanks" in carries else replace(message, content=message.content.strip())


def _told_call(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return name and arguments of a call; OpenAI tells arguments as JSON text, open models as an object."""
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return call
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return call
    return {"name": function["name"], "arguments": arguments}


def _beside(pair: Pair) -> WrittenRow:
    """Return the columns that stand beside a pair in any form, those that say something."""
    known, origin = pair.preference, pair.origin
    columns = {
        "score_chosen": known.chosen_score,
        "score_rejected": known.rejected_score,
        "margin": known.margin,
        "weight": None if known.weight == 1.0 else known.weight,
        "soft_label": known.soft_label,
        "chosen_win_rate": known.chosen_win_rate,
        "rejected_win_rate": known.rejected_win_rate,
        "dataset": origin.dataset,
        "license": origin.licence,
        "split": origin.split,
        "group": origin.group,
    }
    return {name: value for name, value in columns.items() if value is not None}


def _dicts(messages: Sequence[Message]) -> list[WrittenRow]:
    return [message.as_dict() for message in messages]


def _with_tools(row: WrittenRow, pair: Pair) -> WrittenRow:
    return row | ({"tools": list(pair.tools)} if pair.tools else {}) | _beside(pair)


def _trl(pair: Pair) -> WrittenRow:
    row = {"prompt": _dicts(pair.prompt), "chosen": _dicts([pair.chosen]), "rejected": _dicts([pair.rejected])}
    return _with_tools(row, pair)


def _trl_text(pair: Pair) -> WrittenRow:
    row = {"prompt": pair.prompt[-1].content, "chosen": pair.chosen.content, "rejected": pair.rejected.content}
    return row | _beside(pair)


FLAT_COLUMNS = (
    "system", "prompt", "chosen", "rejected", "score_chosen", "score_rejected", "margin", "weight", "soft_label",
    "chosen_win_rate", "rejected_win_rate", "dataset", "license", "split", "group",
)  # fmt: skip


def _flat(pair: Pair) -> WrittenRow:
    """Every column in every row, as a table has them; nothing stands where nothing is said."""
    system = next((message.content for message in pair.prompt if message.role == "system"), None)
    return dict.fromkeys(FLAT_COLUMNS) | {"system": system} | _trl_text(pair)


_HH_NAMES = {"user": "Human", "assistant": "Assistant"}
_HH_MARK = re.compile(r"\n\n(?:Human|Assistant):")


def _hh(pair: Pair) -> WrittenRow:
    if any(_HH_MARK.search(message.content) for message in (*pair.prompt, pair.chosen, pair.rejected)):
        raise _not_expressible("a text holds the marks of turns, '\\n\\nHuman:' or '\\n\\nAssistant:'")
    start = "".join(f"\n\n{_HH_NAMES[message.role]}: {message.content}" for message in pair.prompt)
    sides = (("chosen", pair.chosen), ("rejected", pair.rejected))
    return {name: f"{start}\n\nAssistant: {side.content}" for name, side in sides}


_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


def _sharegpt(pair: Pair) -> WrittenRow:
    row: WrittenRow = {"conversations": [_spoken(message) for message in pair.prompt]}
    row |= {"chosen": _spoken(pair.chosen), "rejected": _spoken(pair.rejected)}
    if pair.tools:
        row["tools"] = json.dumps(pair.tools, ensure_ascii=False)  # LLaMA-Factory wants the text of the list
    return row | _beside(pair)


def _spoken(message: Message) -> WrittenRow:
    if not message.tool_calls:
        return {"from": _SPEAKERS[message.role], "value": message.content}
    if message.content:
        raise _not_expressible("a turn of the 'sharegpt' form has either text or tool calls")
    calls = [_told_call(call) for call in message.tool_calls]
    return {"from": "function_call", "value": json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False)}


def _alpaca(pair: Pair) -> WrittenRow:
    system = next((message.content for message in pair.prompt if message.role == "system"), None)
    *earlier, last = [message for message in pair.prompt if message.role != "system"]
    if [message.role for message in earlier] != ["user", "assistant"] * (len(earlier) // 2):
        raise _not_expressible("'history' of the 'alpaca' form is rounds of the user and then the assistant")
    row: WrittenRow = {"instruction": last.content, "input": "", "chosen": pair.chosen.content}
    row["rejected"] = pair.rejected.content
    if system is not None:
        row["system"] = system
    if earlier:
        texts = [message.content for message in earlier]
        row["history"] = [list(both) for both in zip(texts[0::2], texts[1::2], strict=True)]
    return _with_tools(row, pair)


def _rejected_response(pair: Pair) -> WrittenRow:
    prompt = [turn for message in pair.prompt for turn in _swift_turns(message)]
    row: WrittenRow = {"messages": [*prompt, *_swift_turns(pair.chosen)]}
    if pair.rejected.tool_calls or pair.rejected.name or pair.rejected.reasoning:
        row["rejected_messages"] = [*prompt, *_swift_turns(pair.rejected)]
    else:
        row["rejected_response"] = pair.rejected.content
    return _with_tools(row, pair)


def _swift_turns(message: Message) -> list[WrittenRow]:
    """ms-swift tells a tool call as a turn of its own, after the text of the message."""
    says = message.content or message.reasoning or not message.tool_calls
    text = replace(message, tool_calls=()).as_dict() if says else None
    calls = [
        {"role": "tool_call", "content": json.dumps(_told_call(call), ensure_ascii=False)}
        for call in message.tool_calls
    ]
    return ([text] if text else []) + calls


def _axolotl(pair: Pair) -> WrittenRow:
    row = {"messages": _dicts(pair.prompt), "chosen": pair.chosen.as_dict(), "rejected": pair.rejected.as_dict()}
    return _with_tools(row, pair)


def _thumb(pair: Pair, *, liked: bool) -> WrittenRow:
    row: WrittenRow = {"prompt": _dicts(pair.prompt)} | ({"tools": list(pair.tools)} if pair.tools else {})
    row |= {"completion": _dicts([pair.chosen if liked else pair.rejected]), "label": liked}
    return row | _beside(replace(pair, preference=Preference()))


_ALL = frozenset((*NEEDED, *BESIDE))
_TEXT = frozenset(("preference", "origin", "blanks", "pairing"))
_TURNS = _TEXT | {"system", "history", "tools"}
_STATED = frozenset(("preference", "votes", "origin"))
_BOTH_THUMBS = (partial(_thumb, liked=True), partial(_thumb, liked=False))
WRITERS: dict[str, Writer] = {
    writer.name: writer
    for writer in (
        Writer("openai", "OpenAI, Azure, Together, Fireworks", (Pair.as_openai,), _ALL - _STATED),
        Writer("tiebreak", "OpenAI's form with all that tiebreak knows", (Pair.as_dict,), _ALL),
        Writer("trl", "TRL, conversational", (_trl,), _ALL - {"votes"}),
        Writer("trl_text", "TRL, plain text", (_trl_text,), _TEXT),
        Writer("hh", "Anthropic HH-RLHF", (_hh,), frozenset(("history", "pairing"))),
        Writer("sharegpt", "LLaMA-Factory (ShareGPT form)", (_sharegpt,), _TURNS | {"tool_calls"}),
        Writer("alpaca", "LLaMA-Factory (Alpaca form)", (_alpaca,), _TURNS),
        Writer("rejected_response", "ms-swift", (_rejected_response,), _ALL - {"votes", "call_ids"}),
        Writer("axolotl", "Axolotl", (_axolotl,), _ALL - {"votes"}),
        Writer("thumbs", "TRL, unpaired (KTO)", _BOTH_THUMBS, _ALL - {"preference", "votes", "pairing"}),
        Writer("flat", "one table, a column for each thing said", (_flat,), _TEXT | {"system"}),
    )
}
