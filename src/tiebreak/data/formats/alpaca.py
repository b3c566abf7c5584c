"""Rows in the Alpaca form of LLaMA-Factory: an instruction with its input, earlier rounds, two completions.

Owns this shape. Pure: a row in, a pair out, or RowError.
"""

from __future__ import annotations

from typing import Any

from tiebreak.data.formats.form import Format, Pairing, Reading, Row
from tiebreak.data.formats.pieces import completion_from, history_of, prompt_of, text_of, tools_of, with_system
from tiebreak.records import Message, Pair


def instruction_text(row: Row) -> str:
    """Return instruction and input on lines of their own, as LLaMA-Factory joins them; an absent one is left out."""
    parts = [text_of(row[name], name) for name in ("instruction", "input") if row.get(name) is not None]
    return "\n".join(part for part in parts if part)


def _is_alpaca(row: Row) -> bool:
    return "instruction" in row and row.get("prompt") is None and (_has_sides(row) or _has_two_outputs(row))


def _has_sides(row: Row) -> bool:
    return isinstance(row.get("chosen"), str) and isinstance(row.get("rejected"), str)


def _has_two_outputs(row: Row) -> bool:
    output: Any = row.get("output")
    return isinstance(output, list) and len(output) == 2 and all(isinstance(text, str) for text in output)


def _read_alpaca(row: Row, _: Pairing) -> Reading:
    """LLaMA-Factory: the chosen and the rejected text, in its older files `output` with the better one first."""
    texts = (row["chosen"], row["rejected"]) if _has_sides(row) else row["output"]
    rounds = [*history_of(row.get("history")), Message("user", instruction_text(row))]
    prompt = prompt_of(with_system(row.get("system"), rounds))
    chosen, rejected = completion_from(texts[0], "chosen"), completion_from(texts[1], "rejected")
    return Reading((Pair(prompt, chosen, rejected, tools_of(row.get("tools"))),))


ALPACA = Format(
    "alpaca",
    "LLaMA-Factory (Alpaca form)",
    '{"instruction": …, "input": …, "chosen": …, "rejected": …}',
    _is_alpaca,
    _read_alpaca,
)
