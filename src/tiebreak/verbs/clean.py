"""The verb clean: keep what is sound, set the rest aside with its reasons, account for every judgement.

Owns what each action does to a pair, or to a completion on its own, and the report whose counts add up. What is wrong
is the doctor's to say.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tiebreak.config import DataConfig, command, in_quotes
from tiebreak.config.commands import KEPT_FORM
from tiebreak.data.formats import RowError
from tiebreak.data.formats.checks import check
from tiebreak.data.formats.writing import BESIDE
from tiebreak.data.reader import records
from tiebreak.data.sheets import Written, sheet_of
from tiebreak.data.writer import SUFFIXES, Append, require_new, rows_to, writing
from tiebreak.doctor.examination import Audit, audit
from tiebreak.doctor.report import AuditReport
from tiebreak.doctor.rules import RULES, Action
from tiebreak.doctor.texts.flaws import visible
from tiebreak.errors import DataError, nearest, require_name
from tiebreak.files import appear, whole_folder, write_json
from tiebreak.progress import Progress, Silent
from tiebreak.records import Judgement, Source

KEPT, SET_ASIDE, REPORT = "kept.jsonl", "quarantined.jsonl", "report.json"
STRENGTH: tuple[Action, ...] = ("warn", "fix", "quarantine", "reject")
"""Where several rules speak of one judgement, the strongest action is taken."""


@dataclass(frozen=True)
class Cleaned:
    """What became of every record: num_records = num_used_records + num_dropped, num_judged = kept + set aside."""

    unit: str
    """What was judged: pairs, or completions on their own."""
    kept: str
    set_aside: str
    report: str
    num_records: int
    num_dropped: int
    num_judged: int
    num_kept: int
    num_set_aside: int
    num_fixed: int
    dropped_by_reason: dict[str, int]
    by_code: dict[str, dict[str, Any]]
    """For each code that a pair or a completion was fixed or set aside for: the action, and how many."""
    left_out: dict[str, int]
    held_out_by_name: list[str]
    """Files that are not for training by their own names: they are looked at for leaks and not written."""

    def as_dict(self) -> dict[str, Any]:
        """Return the account for JSON; what was judged is counted under its name, like num_pairs."""
        return _by_unit(vars(self)) | {"num_used_records": self.num_records - self.num_dropped}

    def lines(self) -> list[str]:
        """Return the account in words."""
        lines = [
            f"{self.num_records} records: {self.num_judged} {self.unit}, {self.num_dropped} records dropped",
            f"{self.num_judged} {self.unit}: {self.num_kept} kept ({self.num_fixed} of them mended), "
            f"{self.num_set_aside} set aside",
        ]
        lines += [f"  {entry['count']:>7}  {code} ({entry['action']})" for code, entry in self.by_code.items()]
        lines += [f"  {count:>7}  {reason} (dropped)" for reason, count in self.dropped_by_reason.items()]
        lines += [
            f"  {count:>7}  {self.unit} lose their {name} ({BESIDE[name]}) in this form"
            for name, count in self.left_out.items()
        ]
        lines += [f"  {name}: held out by its name, not written" for name in self.held_out_by_name]
        return [*lines, f"kept:      {self.kept}", f"set aside: {self.set_aside}", f"report:    {self.report}"]


def _by_unit(counts: Mapping[str, Any]) -> dict[str, Any]:
    return {f"num_{counts['unit']}" if name == "num_judged" else name: value for name, value in counts.items()}


def clean(
    data: DataConfig,
    out: str | Path,
    actions: Mapping[str, str] | None = None,
    to: str = KEPT_FORM,
    progress: Progress | None = None,
) -> Cleaned:
    """Audit what `data` trains on, act on what was found, and write what is kept and what is set aside with a report.

    `out` is a new folder, or the name of the file of what is kept, beside which the other two then stand. `actions` are
    rule code to action, over the rules' own. Raises DataError where `out` exists, an action is not one of a rule's, or
    nothing is left.
    """
    require_name(out, "the folder to write")
    chosen, sheet, target = _chosen(actions or {}), sheet_of(to, apart=data.keeps_apart), Path(out)
    names = _names(target)
    found = audit(data, progress=progress or Silent())
    unit = found.report.unit
    if not found.report.counts[f"num_{unit}"]:
        raise DataError(_nothing_left(found.report, data, f"no {unit[:-1]} can be read"))
    with writing(target), tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as hidden:
        sorting = _Sorting(found, chosen, sheet, to)
        sorting.run(Path(hidden), names)
        if not sorting.num_kept:
            raise DataError(_nothing_left(found.report, data, f"no {unit[:-1]} would be kept, nothing is written"))
        if names["kept"] == target.name:
            for name in reversed(list(names.values())):  # the file of kept pairs last
                appear(Path(hidden) / name, target.parent / name)
        else:
            with whole_folder(target, new=True) as folder:
                for name in names.values():
                    (Path(hidden) / name).replace(folder / name)
    return sorting.account(target, names)


def _nothing_left(report: AuditReport, data: DataConfig, outcome: str) -> str:
    """Say what the doctor found in a file of which nothing is left, and where first."""
    codes = ", ".join(f"{found.code} {found.count} {found.of}" for found in report.findings if found.grade != "info")
    places = [example for found in report.findings for example in found.examples]
    first = "".join(f"; {one.file}:{one.line}: {one.excerpt}" for one in places[:1])
    return f"{data.train_paths}: {outcome} ({codes}){first}; see {in_quotes(command('check', report.read))}"


def _chosen(wanted: Mapping[str, str]) -> dict[str, Action]:
    """Return the action of every rule; raises DataError where a wanted one is not possible."""
    chosen: dict[str, Action] = {code: rule.action for code, rule in RULES.items()}
    for code, action in wanted.items():
        if code not in RULES:
            raise DataError(f"--do {code}={action}: '{code}' is no rule.{nearest(code, RULES)}")
        possible = {name: name for name in RULES[code].actions}
        if action not in possible:
            raise DataError(f"--do {code}={action}: rule '{code}' can only {', '.join(possible)}")
        chosen[code] = possible[action]
    return chosen


def _names(target: Path) -> dict[str, str]:
    """Return the file names by purpose: in a new folder, or beside a named file of kept pairs."""
    as_file = any(target.name.lower().endswith(suffix) for suffix in SUFFIXES)
    stem = target.name.split(".")[0]
    names = (target.name, f"{stem}.{SET_ASIDE}", f"{stem}.{REPORT}") if as_file else (KEPT, SET_ASIDE, REPORT)
    if len(set(names)) < len(names):
        raise DataError(f"{target}: what is set aside would have this name; choose another")
    for path in (target, *(target.parent / name for name in names if as_file)):
        require_new(path)
    return dict(zip(("kept", "set_aside", "report"), names, strict=True))


class _Sorting:
    """One pass over the records in the doctor's order, each judgement to its pile."""

    def __init__(self, found: Audit, actions: Mapping[str, Action], sheet: Written, form: str) -> None:
        self._found = found
        self._unit = found.report.unit
        self._actions = actions
        self._form, self._sheet = form, sheet
        self._codes = found.codes_by_row()
        self._counts: Counter[str] = Counter()
        self._by_code: Counter[tuple[str, Action]] = Counter()
        self._dropped: Counter[str] = Counter()

    def run(self, folder: Path, names: Mapping[str, str]) -> None:
        """Write what is kept and what is set aside, and the doctor's report with the account."""
        number = 0
        with rows_to(folder / names["kept"]) as keep, rows_to(folder / names["set_aside"]) as set_aside:
            for record in chain.from_iterable(map(records, self._found.files)):
                self._counts["records"] += 1
                if dropped := record.dropped:
                    self._dropped[dropped.reason] += 1
                    row = {"file": dropped.source.file, "line": dropped.source.line, "codes": [dropped.reason]}
                    set_aside(row | {"action": "reject", "detail": dropped.detail, self._unit[:-1]: None})
                for one in record.judged:
                    self._sort(one, self._codes.get(number, ()), keep, set_aside)
                    number += 1
        write_json(folder / names["report"], self._found.report.as_dict() | {"cleaned": _by_unit(self._numbers())})

    def _sort(self, judged: Judgement, codes: Sequence[str], keep: Append, set_aside: Append) -> None:
        """Act on what the doctor found in a judgement; what mending makes unusable is set aside as it was."""
        self._counts["judged"] += 1
        action: Action = max((self._actions[code] for code in codes), key=STRENGTH.index, default="warn")
        if action in ("reject", "quarantine"):
            self._set_aside(judged, self._of(codes, "reject", "quarantine"), action, set_aside)
            return
        kept, mended = judged, self._of(codes, "fix")
        if mended:
            kept = visible(judged)
            try:
                check(kept)
            except RowError as error:
                self._set_aside(judged, [*mended, error.reason], "reject", set_aside)
                return
        try:
            rows = self._sheet.write(kept)
        except RowError as error:
            raise DataError(f"{judged.source}: {error.detail}; the form {self._form} cannot hold it") from None
        self._counts["kept"] += 1
        self._counts["fixed"] += bool(mended)
        self._by_code.update((code, "fix") for code in mended)
        for row in rows:
            keep(row)

    def _of(self, codes: Sequence[str], *actions: Action) -> list[str]:
        return [code for code in codes if self._actions[code] in actions]

    def _set_aside(self, judged: Judgement, codes: Sequence[str], action: Action, set_aside: Append) -> None:
        self._counts["set_aside"] += 1
        acting = self._of(codes, "reject", "quarantine")  # a flaw whose mending left nothing was not mended
        self._by_code.update((code, self._actions[code]) for code in acting)
        source = judged.source or Source("", 0)
        row = {"file": source.file, "line": source.line, "codes": list(codes), "action": action}
        set_aside(row | {"detail": "; ".join(RULES[code].title for code in codes), self._unit[:-1]: judged.as_dict()})

    def _numbers(self) -> dict[str, Any]:
        return {
            "unit": self._unit,
            "num_records": self._counts["records"],
            "num_dropped": self._dropped.total(),
            "num_judged": self._counts["judged"],
            "num_kept": self._counts["kept"],
            "num_set_aside": self._counts["set_aside"],
            "num_fixed": self._counts["fixed"],
            "dropped_by_reason": dict(self._dropped.most_common()),
            "by_code": {
                code: {"action": action, "count": count} for (code, action), count in self._by_code.most_common()
            },
            "left_out": dict(self._sheet.left_out),
            "held_out_by_name": [file["path"] for file in self._found.report.files if file["held_out_by_name"]],
        }

    @property
    def num_kept(self) -> int:
        """Judgements that were written as kept."""
        return self._counts["kept"]

    def account(self, target: Path, names: Mapping[str, str]) -> Cleaned:
        """Return what was done and where it stands."""
        base = target.parent if names["kept"] == target.name else target
        places = {purpose: str(base / name) for purpose, name in names.items()}
        numbers: dict[str, Any] = self._numbers()
        return Cleaned(kept=places["kept"], set_aside=places["set_aside"], report=places["report"], **numbers)
