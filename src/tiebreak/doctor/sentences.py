"""What the doctor's numbers say in words: the verdict, what to do next, and one sentence for each measurement.

Owns these words, for the screen and the page alike. Pure: the report as plain JSON in, text out. Whatever is absent or
null is left out. Names from data are cut and made visible; who shows them still has to escape them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiebreak.config import command
from tiebreak.data.formats.guesses import UNKNOWN
from tiebreak.doctor.rules import FINAL_RULES, READING_RULES, SEVERITIES, TOKEN_RULES
from tiebreak.reporting.numbers import count, is_number, numbered, percent, shown
from tiebreak.reporting.visible import visible

Report = Mapping[str, Any]

NOUNS = {"error": "error", "warning": "warning", "info": "note"}
CLEANING = {
    "reject": "clean drops them",
    "quarantine": "clean sets them aside",
    "fix": "clean mends them",
    "warn": "clean leaves them",
}
MAX_LISTED = 12
TOKEN_SIDES = ("prompt", "chosen", "rejected", "completion")
"""Of what tokens are counted; a report holds those that its examples have."""

MAX_NAME = 40
MAX_SHOWN = 80
"""Characters of a text of the first record."""
MAX_COMMAND = 100_000
"""A command is shown whole, so that it can be pasted: a system takes no longer one, either."""


@dataclass(frozen=True)
class Step:
    """A command to type next, and what it is good for."""

    command: str
    reason: str


@dataclass(frozen=True)
class Measurement:
    """One measured thing: its name and a sentence."""

    name: str
    text: str


def estimated(found: Mapping[str, Any] | None, key: str, unit: str = "share") -> str:
    """Return the number under `key` with the interval beside it; nothing where it is not known."""
    found = found or {}
    mean = found.get(key)
    if not is_number(mean):
        return ""
    low, high = (found.get(end) if is_number(found.get(end)) else mean for end in ("low", "high"))
    return shown({"mean": mean, "low": low, "high": high}, unit)


def of_severity(report: Report, severity: str) -> list[Mapping[str, Any]]:
    """Return the findings of one severity, in the report's order; what has no known one is info."""
    known = (f.get("severity") if f.get("severity") in SEVERITIES else "info" for f in report.get("findings") or ())
    return [found for found, own in zip(report.get("findings") or (), known, strict=True) if own == severity]


def is_clean(report: Report) -> bool:
    """Whether nothing was found that would ruin a run."""
    return not of_severity(report, "error") and report.get("verdict") != "errors"


def verdict(report: Report) -> str:
    """Return the verdict in one line."""
    errors, warnings = of_severity(report, "error"), of_severity(report, "warning")
    if not is_clean(report):
        return f"{numbered(len(errors), 'error')}: {listed(_codes(errors))}"
    read = f"; {numbered(len(warnings), 'warning')} to read" if warnings else ""
    return f"clean: nothing that would ruin a run{read}"


def next_steps(report: Report) -> list[Step]:
    """Return the commands that follow from the verdict."""
    read = _reading(report)
    errors = of_severity(report, "error")
    lone = "lone_thumbs" in _codes(report.get("findings") or ())
    on_their_own = Step(command("check", {**read, "pairing": "none"}), "looks at each completion on its own")
    start = Step(command("init", read), "a starting configuration from what was measured here")
    clean = Step(command("clean", read, "OUT"), "writes what can be kept, and beside it what was set aside and why")
    if lone:
        return [on_their_own, Step(start.command, "a starting configuration that learns from each on its own")]
    if not is_clean(report):
        mended = any(found.get("action") != "warn" for found in errors)
        # What this model cannot take, another template or length may.
        by_model = {*_codes(report.get("findings") or ())} & TOKEN_RULES & READING_RULES
        repaired = (
            "once its findings are answered: in the file, or by --set" if by_model else "once the file is repaired"
        )
        steps = [clean if mended else Step(command("check", read), f"again, {repaired}")]
        files: Sequence[Mapping[str, Any]] = report.get("files") or ()
        proposed = files[0].get("columns_proposed") if len(files) == 1 else None
        if proposed and not read.get("columns") and UNKNOWN not in proposed.values():
            named = command("check", {**read, "columns": proposed})
            steps = [Step(named, "with the columns named, if these are the right ones: see how record 1 is read then")]
        # Records that cannot be read have a setting of their own.
        codes = [code for code in _codes(errors) if code not in {"unusable", *FINAL_RULES}]
        if codes:
            steps.append(Step(f"data.allow: [{', '.join(codes)}]", "in the configuration trains on them all the same"))
        return steps
    mendable = any(found.get("action") != "warn" for found in of_severity(report, "warning"))
    return [start, clean] if mendable else [start]


def _codes(findings: Sequence[Mapping[str, Any]]) -> list[str]:
    return [visible(found.get("code"), MAX_NAME) for found in findings]


def _reading(report: Report) -> Report:
    """Return how the files of the report were read; of a report that does not say it, its one file, or FILE."""
    files: Sequence[Mapping[str, Any]] = report.get("files") or ()
    name = str(files[0].get("path") or "") if len(files) == 1 else ""
    return report.get("read") or {"train": name or "FILE"}


def listed(names: Sequence[str], limit: int = MAX_LISTED) -> str:
    """Return names with commas; only the first `limit` of many."""
    more = len(names) - limit
    return ", ".join([*names[:limit], *([f"and {more:,} more"] if more > 0 else [])])


def counted(shares: Mapping[str, Any] | None, limit: int = MAX_LISTED) -> str:
    """Return `train 1,000, eval 193` of a table of counts."""
    return listed([f"{visible(name, MAX_NAME)} {count(number)}" for name, number in (shares or {}).items()], limit)


def unit_of(report: Report) -> str:
    """Return what is counted: pairs, or completions on their own."""
    return "completions" if report.get("unit") == "completions" else "pairs"


def numbered_rows(report: Report, found: Mapping[str, Any], key: str = "num_{}") -> str:
    """Return how many pairs, or completions, stand under a key in which `{}` is their name."""
    unit = unit_of(report)
    return numbered(found.get(key.format(unit)), unit[:-1])


def totals(report: Report) -> list[str]:
    """Return what became of the records, as clauses."""
    groups, dropped = report.get("num_groups"), report.get("num_dropped")
    labels = [f"{count(report[key])} {key[4:]}" for key in ("num_liked", "num_disliked") if key in report]
    rows = numbered_rows(report, report) + (f" ({', '.join(labels)})" if labels else "")
    clauses = [f"{rows} on {numbered(report.get('num_prompts'), 'prompt')}"]
    clauses[0] += f" in {numbered(groups, 'group')}" if groups else ""
    clauses.append(f"{numbered(report.get('num_records'), 'record')}, {count(dropped)} dropped")
    reasons = counted(report.get("dropped_by_reason"))
    clauses[-1] += f" ({reasons})" if reasons and dropped else ""
    return clauses + [
        f"{numbered(report[key], noun)}"
        for key, noun in (("num_ties", "tie"), ("num_duplicates", "exact duplicate"))
        if report.get(key)
    ]


def reading_of(file: Mapping[str, Any]) -> list[Measurement]:
    """Return how the first record of a file was read, and which of its columns were."""
    told = []
    if first := file.get("first_record"):
        earlier = (first.get("num_prompt_messages") or 1) - 1
        before = f" (and {numbered(earlier, 'message')} before it)" if earlier else ""
        sides = {side: f"'{visible(first[side], MAX_SHOWN)}'" for side in ("chosen", "rejected") if first.get(side)}
        said = " over ".join(sides.values()) if len(sides) == 2 else " ".join(f"{k} {v}" for k, v in sides.items())
        prompt = f"'{visible(first.get('prompt') or '', MAX_SHOWN)}'{before}"
        told.append(Measurement(f"record {first.get('line')}", f"{prompt} → {said}: {visible(first.get('why') or '')}"))
    for key, name in (("columns_read", "read"), ("columns_unread", "not read")):
        if columns := file.get(key):
            told.append(Measurement(name, listed([visible(column, MAX_NAME) for column in columns])))
    return told


def measurements(report: Report) -> list[Measurement]:
    """Return one sentence for everything that was measured, in the order in which people ask."""
    parts = (_completions, _labels, _prompts, _tokens)
    return [Measurement(name, text) for part in parts for name, text in part(report) if text]


def _completions(report: Report) -> Iterator[tuple[str, str]]:
    """Yield how long texts are, and what the surface of completions gives away."""
    sides = {side: spread for side, spread in (report.get("words") or {}).items() if spread}
    middle, most = (counted({side: spread.get(key) for side, spread in sides.items()}) for key in ("median", "max"))
    yield "words", f"median: {middle}; longest: {most}" if sides else ""
    share = report.get("chosen_longer_share")
    yield "longer", f"the chosen completion is the longer one in {percent(share)} of pairs" if is_number(share) else ""
    found = report.get("shortcut") or {}
    length, features = (estimated(found.get(key), "accuracy") for key in ("length", "features"))
    yield "length alone", f"{length}: {_LENGTH_SAYS[unit_of(report)]}" if length else ""
    best = strongest_feature(report)
    yield "all features", features + (f", most by {best}" if best else "") if features else ""
    yield "shortcut", visible(found.get("note") or "")


_LENGTH_SAYS = {
    "pairs": "the number DPO must beat",
    "completions": "how often a liked completion is longer than a disliked one; 50 % says nothing",
}


def strongest_feature(report: Report) -> str:
    """Return the surface feature that tells best what is preferred, with its accuracy."""
    rows = [
        row for row in (report.get("shortcut") or {}).get("by_feature") or () if is_number((row or {}).get("accuracy"))
    ]
    best = max(rows, key=lambda row: abs(row["accuracy"] - 0.5), default=None)
    return f"{visible(best.get('name'), MAX_NAME).replace('_', ' ')} ({percent(best['accuracy'])})" if best else ""


def _labels(report: Report) -> Iterator[tuple[str, str]]:
    """Yield how far annotators agree, how even labels are, and how many look wrong."""
    found = report.get("agreement") or {}
    alpha = estimated(found, "krippendorff_alpha", "")
    who = f"{numbered(found.get('num_annotators'), 'annotator')}, {numbered(found.get('num_items'), 'pair')}"
    whole = f"; unanimous in {percent(found['unanimous_share'])}" if is_number(found.get("unanimous_share")) else ""
    yield "agreement", f"Krippendorff's alpha {alpha} of {who}{whole}" if alpha else f"{who}{whole}" if found else ""
    labels = report.get("labels") or {}
    weights = {name: value for name, value in (labels.get("weights") or {}).items() if value != 1}
    even = "".join(f"; {name} {value:g} makes them weigh alike" for name, value in weights.items())
    both = f"{count(labels.get('num_liked'))} liked to {count(labels.get('num_disliked'))} disliked, to train on"
    yield "labels", both + even if labels else ""
    noise = report.get("label_noise") or {}
    low, high = noise.get("low"), noise.get("high")
    told = is_number(low) and is_number(high)
    yield "label noise", f"between {percent(low)} and {percent(high)} of the labels are turned round" if told else ""


def _prompts(report: Report) -> Iterator[tuple[str, str]]:
    """Yield how examples lie on prompts, on the sides of the split, and under licences."""
    found = report.get("prompts") or {}
    worth, num, most = (found.get(key) for key in ("effective", "num_prompts", "largest"))
    clustered = is_number(most) and most > 1
    weigh = f"{numbered(num, 'prompt')}, the largest with {numbered(most, unit_of(report)[:-1])}"
    yield "prompts", f"{weigh}; as telling as {count(worth)} with equally many" if clustered else ""
    split = report.get("split") or {}
    train, heldout = numbered_rows(report, split, "num_train_{}"), split.get(f"num_heldout_{unit_of(report)}")
    share = f" at data.heldout_share {split['heldout_share']:g}" if is_number(split.get("heldout_share")) else ""
    yield "split", f"{train} to train on, {count(heldout)} held out{share}" if split else ""
    yield "given splits", counted(report.get("given_splits"))
    yield "licences", counted(report.get("licences"), 6)


def _tokens(report: Report) -> Iterator[tuple[str, str]]:
    """Yield how long examples are in tokens, which length holds what share of them, and what the chosen one costs."""
    found = report.get("tokens") or {}
    sides = {side: found[side].get("median") for side in TOKEN_SIDES if found.get(side)}
    row = found.get("row") or {}
    longest = f"; longest row {count(row['max'])}" if is_number(row.get("max")) else ""
    model = f" with {visible(found['model'], 2 * MAX_NAME)}" if found.get("model") else ""
    yield "tokens", f"median: {counted(sides)}{longest}{model}" if sides else ""
    rows = [row for row in found.get("fits") or () if is_number((row or {}).get("share"))]
    fits = listed([f"{row.get('max_length')} fits {percent(row['share'])}" for row in rows])
    kinds = (("num_too_long", "too long"), ("num_truncated", "cut"))
    costs = listed([f"{numbered_rows(report, found, key)} {words}" for key, words in kinds if found.get(key)])
    cut = f"at {found.get('max_length')} {costs}" if costs else ""
    context = found.get("context") or {}
    most, made_for = context.get("positions"), context.get("made_for")
    ends = f"the model has {count(most)} positions" if is_number(most) else ""
    sees = f"the model was made for {count(made_for)} tokens" if is_number(made_for) and made_for != most else ""
    yield "max_length", "; ".join(part for part in (fits, cut, ends, sees) if part)
