"""The verb convert: pairs, or completions on their own, of any form to a file of one form.

Owns the account of what was written and what the form could not carry, and what of a file stands in it already. It
knows no form and no container.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tiebreak.config import DataConfig, command, reading
from tiebreak.data.formats import RowError
from tiebreak.data.formats.writing import BESIDE
from tiebreak.data.reader import open_data, records, training_files
from tiebreak.data.sheets import Written, sheet_of
from tiebreak.data.whole import forms_of, refuse_unusable
from tiebreak.data.writer import Append, require_new, rows_to
from tiebreak.errors import DataError, require_name
from tiebreak.records import Dropped, Record

NUM_EXAMPLES = 3


@dataclass(frozen=True)
class Conversion:
    """What was read, what was written, and what stayed behind: num_judged = num_written + num_not_expressible."""

    unit: str
    """What was judged: pairs, or completions on their own."""
    path: str
    form: str
    read_as: str
    num_records: int
    num_dropped: int
    num_judged: int
    num_written: int
    num_rows: int
    num_not_expressible: int
    dropped_by_reason: dict[str, int]
    left_out: dict[str, int]
    """How many lose something beside them, by its name in `BESIDE`."""
    examples: tuple[str, ...]
    held_out_by_name: tuple[str, ...]
    """Files that are not for training by their own names, and were not read."""

    def as_dict(self) -> dict[str, Any]:
        """Return the account for JSON; what was judged is counted under its name, like num_pairs."""
        told = asdict(self) | {"examples": list(self.examples)}
        return {f"num_{self.unit}" if name == "num_judged" else name: value for name, value in told.items()}

    def lines(self) -> list[str]:
        """Return the account in words."""
        lines = [
            f"{self.num_records} records ({self.read_as}): {self.num_judged} {self.unit}, {self.num_dropped} records "
            "dropped"
        ]
        lines += [f"  {count:>7}  {reason} (dropped)" for reason, count in self.dropped_by_reason.items()]
        if self.num_not_expressible:
            lines.append(f"  {self.num_not_expressible:>7}  {self.unit} that {self.form} cannot express, left out:")
            lines += [f"           {example}" for example in self.examples]
        lines += [
            f"  {count:>7}  {self.unit} lose their {name} ({BESIDE[name]}): {self.form} has no place for it"
            for name, count in self.left_out.items()
        ]
        lines += [f"  {name}: held out by its name, not written" for name in self.held_out_by_name]
        return [*lines, f"{self.path}: {self.num_written} {self.unit} in {self.num_rows} rows ({self.form})"]


def convert(data: DataConfig, form: str, out: str | Path) -> Conversion:
    """Read what `data` trains on and write them in another form; raises DataError where none can be.

    The file appears whole or not at all. What the form cannot express is counted and left out.
    """
    require_name(out, "the file to write")
    target = Path(out)
    sheet = sheet_of(form, apart=data.keeps_apart)
    require_new(target)
    opened = open_data(data)
    files = training_files(opened)
    account = _Account(form, sheet, "completions" if data.keeps_apart else "pairs")
    with rows_to(target) as append:
        for file in files:
            for record in records(file):
                account.take(record, append)
        see = command("check", reading(data))
        refuse_unusable(data.train_paths, account.num_records, account.num_judged, account.dropped, 1.0, see)
        account.refuse_empty()
    return account.conversion(str(target), forms_of(files), tuple(file.name for file in opened if file.by_name))


class _Account:
    """Counts what goes by, so that in = out + dropped + not expressible."""

    def __init__(self, form: str, sheet: Written, unit: str) -> None:
        self._form, self._sheet, self._unit = form, sheet, unit
        self.num_records = self.num_judged = self.num_rows = self.num_unwritten = 0
        self.dropped: list[Dropped] = []
        self.examples: list[str] = []

    def take(self, record: Record, append: Append) -> None:
        self.num_records += 1
        if record.dropped:
            self.dropped.append(record.dropped)
        for one in record.judged:
            self.num_judged += 1
            try:
                rows = self._sheet.write(one)
            except RowError as error:
                self.num_unwritten += 1
                if len(self.examples) < NUM_EXAMPLES:
                    self.examples.append(f"{one.source}: {error.detail}")
                continue
            self.num_rows += len(rows)
            for row in rows:
                append(row)

    def refuse_empty(self) -> None:
        """Raise DataError where nothing could be written."""
        if self.num_unwritten == self.num_judged:
            raise DataError(
                f"{self.examples[0]} (not_expressible; no {self._unit[:-1]} of {self.num_judged} can be written as "
                f"'{self._form}'; choose another form)"
            )

    def conversion(self, path: str, read_as: str, held_out: tuple[str, ...]) -> Conversion:
        return Conversion(
            unit=self._unit,
            path=path,
            form=self._form,
            read_as=read_as,
            num_records=self.num_records,
            num_dropped=len(self.dropped),
            num_judged=self.num_judged,
            num_written=self.num_judged - self.num_unwritten,
            num_rows=self.num_rows,
            num_not_expressible=self.num_unwritten,
            dropped_by_reason=dict(Counter(item.reason for item in self.dropped).most_common()),
            left_out=dict(self._sheet.left_out),
            examples=tuple(self.examples),
            held_out_by_name=held_out,
        )
