"""Rows in the Alpaca form of LLaMA-Factory: an instruction with its input, earlier rounds, two completions.

Owns this shape. Pure: a row in, a pair out, or RowError.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tiebreak.data.formats.candidates import started
from tiebreak.data.formats.cells import text_of
from tiebreak.data.formats.form import Format, Pairing, Reading, Row
from tiebreak.data.formats.messages import tools_of
from tiebreak.data.formats.pieces import completion_from, history_of, prompt_of
from tiebreak.data.formats.rankings import RANKS
from tiebreak.data.formats.ratings import SCORES
from tiebreak.data.formats.verdicts import side_of
from tiebreak.data.formats.votes import VERDICTS
from tiebreak.records import Message, Pair

_JUDGEMENTS = (*VERDICTS, *SCORES, *RANKS, "score", "order")


def _is_alpaca(row: Row) -> bool:
    if "instruction" not in row or row.get("prompt") is not None:
        return False
    output: Any = row.get("output")
    is_two = isinstance(output, list) and len(output) == 2 and all(isinstance(text, str) for text in output)
    # Two texts beside a judgement stand in no order of their own: the judgement says which is the better one.
    return _has_sides(row) or (is_two and not any(_judges(name, row.get(name)) for name in _JUDGEMENTS))


def _judges(name: str, value: Any) -> bool:
    """Whether a column says which of two texts is better; a topic or one score of the row does not."""
    return isinstance(value, list | Mapping) or (name in VERDICTS and side_of(value) is not None)


def _has_sides(row: Row) -> bool:
    return isinstance(row.get("chosen"), str) and isinstance(row.get("rejected"), str)


def _read_alpaca(row: Row, _: Pairing) -> Reading:
    """LLaMA-Factory: the chosen and the rejected text, in its older files `output` with the better one first.

    Dolly (Conover et al. 2023) calls `context` what Alpaca calls `input`.
    """
    texts = (row["chosen"], row["rejected"]) if _has_sides(row) else row["output"]
    # An instruction and its input stand on lines of their own, as LLaMA-Factory joins them.
    more = "context" if not row.get("input") and isinstance(row.get("context"), str) else "input"
    stated = [text_of(row[name], name) for name in ("instruction", more) if row.get(name) is not None]
    asked = Message("user", "\n".join(text for text in stated if text))
    history_of(row.get("history"))  # text is refused: in this form it can be nothing else
    prompt = prompt_of(started(row, [asked]))
    chosen, rejected = completion_from(texts[0], "chosen"), completion_from(texts[1], "rejected")
    return Reading((Pair(prompt, chosen, rejected, tools_of(row.get("tools"))),))


ALPACA = Format(
    "alpaca",
    "LLaMA-Factory (Alpaca form)",
    '{"instruction": …, "input": …, "chosen": …, "rejected": …}',
    _is_alpaca,
    _read_alpaca,
)
