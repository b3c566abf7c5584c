"""The doctor's look at preference data, before any model is trained on it.

Owns the order: facts of every pair in one pass, then the rules, then the texts of a few pairs in a second pass. Memory
grows by some hundred bytes a pair and not with its text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Literal

import numpy as np

from tiebreak.config import DataConfig, ModelConfig, reading
from tiebreak.data.account import unusable_share
from tiebreak.data.containers import Block
from tiebreak.data.formats.form import as_options
from tiebreak.data.reader import HELDOUT, DataFile, open_data, read_block, records, settled, training_files
from tiebreak.data.render import Renderer
from tiebreak.data.workers import mapped, num_workers_for
from tiebreak.doctor import measurements
from tiebreak.doctor.facts import Facts, merged
from tiebreak.doctor.findings import (
    Hit,
    agreement_hits,
    few_prompts,
    licence_hits,
    many_ties,
    noise_hits,
    pair_hits,
    shortcut_hits,
)
from tiebreak.doctor.intake import facts_of
from tiebreak.doctor.labels.crossfit import subsample
from tiebreak.doctor.report import AuditReport, Example, Finding
from tiebreak.doctor.rules import READING_RULES, RULES, SEVERITIES
from tiebreak.doctor.texts.flaws import masked
from tiebreak.doctor.token_counts import TokenCounts, count_tokens, token_hits
from tiebreak.engine.positions import Context
from tiebreak.errors import DataError, one_line
from tiebreak.progress import Progress, Silent
from tiebreak.records import UNDECIDED, Dropped, Record
from tiebreak.reporting.visible import visible

NUM_EXAMPLES = 3
NUM_SAMPLED = 4_000
"""Pairs whose words the label-noise estimate reads."""
MAX_SHOWN = 2000
"""Characters of a text that are looked at for an excerpt of it."""


@dataclass(frozen=True)
class Audit:
    """The doctor's report, and which pairs each rule speaks of (numbered in the order of reading)."""

    report: AuditReport
    hits: tuple[Hit, ...]
    files: tuple[DataFile, ...]

    def codes_by_pair(self) -> dict[int, list[str]]:
        """Return the codes of the rules that each pair breaks, pairs without any left out."""
        found: dict[int, list[str]] = {}
        for hit in self.hits:
            for pair in hit.pairs.tolist():
                found.setdefault(pair, []).append(hit.code)
        return found


@dataclass(frozen=True)
class Tokens:
    """With which tokenizer to count, and the settings that it was loaded by."""

    model: ModelConfig
    renderer: Renderer
    context: Context


def audit(
    data: DataConfig, tokens: Tokens | None = None, progress: Progress | None = None, num_workers: int | None = None
) -> Audit:
    """Look at every pair of `data`: facts, rules, examples. Raises DataError where nothing can be read at all."""
    progress = progress or Silent()
    files = open_data(data)
    facts, counted = _gathered(files, tokens, progress, num_workers or num_workers_for(file.path for file in files))
    if not facts.num_records:
        raise DataError(f"{files[0].name}: the file holds no record; wanted one preference pair per line")
    by_tokens: list[Hit] = []
    if counted and tokens:
        by_tokens += token_hits(counted, data.max_length, data.truncation, tokens.context)
    hits = [*pair_hits(facts), *few_prompts(facts), *many_ties(facts), *by_tokens]
    measured = measurements.measure(facts)
    hits += shortcut_hits(measured.shortcut)
    hits += agreement_hits(measured.alpha, measured.annotators, facts.annotator_names)
    hits += licence_hits(measured.licences, facts.num_pairs)
    sampled = subsample(facts.prompt_key, NUM_SAMPLED) if facts.num_pairs else np.zeros(0, dtype=np.int64)
    wanted = {row for hit in hits for row in _shown(hit)}
    texts = _texts(files, facts, wanted | set(sampled.tolist()), progress)
    noise = measurements.noise_of(facts, sampled, [texts.words[row] for row in sampled.tolist()])
    hits += noise_hits(noise, sampled, facts.num_pairs)
    told = [_finding(hit, facts, texts.excerpts) for hit in hits]
    lost = {row: hit.code for hit in by_tokens if hit.code in READING_RULES for row in hit.pairs.tolist()}
    findings = [*_dropped(facts), *_missed(files), *_unusable(facts, lost, told, data.max_dropped_share), *told]
    report = AuditReport(
        files=tuple(_described(file, facts.num_records_by_file.get(file.name, 0)) for file in files),
        read=reading(data, tokens.model if tokens else None),
        counts=measurements.counts(facts, lost),
        findings=tuple(sorted(findings, key=_gravity)),
        measurements=measurements.measurements(
            facts, measured, noise, data.heldout_share, HELDOUT if any(file.side == HELDOUT for file in files) else None
        )
        | {
            "tokens": counted.as_dict(tokens.model.name, data.max_length, tokens.context)
            if counted and tokens
            else None
        },
    )
    return Audit(report, tuple(hits), training_files(files))


def _described(file: DataFile, num_records: int) -> dict[str, Any]:
    """Return what the report says of a file; of its first record nothing that is secret or personal."""
    told = file.as_dict(num_records) | {"title": file.form.title if file.form else "unknown"}
    if first := told["first_record"]:
        told["first_record"] = {key: masked(item) if isinstance(item, str) else item for key, item in first.items()}
    return told


def _missed(files: Sequence[DataFile]) -> Iterator[Finding]:
    """Yield a finding where a column that was not read looks as if the prompt needed it."""
    found = [file for file in files if file.look.missed and file.look.first]
    if not found:
        return
    shown = [(file, file.look.first.source.line, file.look.missed) for file in found if file.look.first]
    examples = tuple(
        Example(file.name, line, f"not read: {visible(', '.join(missed))}")
        for file, line, missed in shown[:NUM_EXAMPLES]
    )
    first = found[0].look
    name, remedy = visible(first.missed[0]), visible(as_options(dict(first.remedy)))
    detail = f"so that '{name}' stands in the prompt: {remedy}" if first.remedy else f"'{name}' is in no text of a pair"
    yield Finding("unread_column", len(found), "files", len(found) / len(files), examples, detail)


def _gravity(finding: Finding) -> tuple[int, int]:
    return SEVERITIES.index(finding.grade), list(RULES).index(finding.code)


# ----------------------------------------------------------------------------------------------------------- first pass


@dataclass(frozen=True)
class _Look:
    """What a worker brings back of one block; records with thumbs wait for the rest of the file."""

    facts: Facts
    tokens: TokenCounts | None
    waiting: tuple[Record, ...]


def _gathered(
    files: Sequence[DataFile], tokens: Tokens | None, progress: Progress, num_workers: int
) -> tuple[Facts, TokenCounts | None]:
    renderer = tokens.renderer if tokens else None
    parts: list[_Look] = []
    for file in files:
        waiting: list[Record] = []
        with progress.stage(f"reading {file.name}", None) as advance:
            for look in mapped(partial(_look, renderer), ((block, file) for block in file.blocks()), num_workers):
                parts.append(replace(look, waiting=()))
                waiting += look.waiting
                advance(look.facts.num_records + len(look.waiting))
        parts.append(_looked(list(settled(waiting, file.pairing)), renderer))
    counted = [part.tokens for part in parts if part.tokens]
    return merged([part.facts for part in parts]), TokenCounts.merged(counted) if counted else None


def _look(renderer: Renderer | None, item: tuple[Block, DataFile]) -> _Look:
    found = read_block(*item)
    looked = _looked([record for record in found if not record.waits], renderer)
    return replace(looked, waiting=tuple(record for record in found if record.waits))


def _looked(found: Sequence[Record], renderer: Renderer | None) -> _Look:
    pairs = [pair for record in found for pair in record.pairs]
    return _Look(facts_of(found), count_tokens(pairs, renderer) if renderer else None, ())


# ---------------------------------------------------------------------------------------------------------- second pass


@dataclass(frozen=True)
class _Texts:
    """Of some pairs: a line to recognise them by, and both completions."""

    excerpts: dict[int, str]
    words: dict[int, tuple[str, str]]


def _texts(files: Sequence[DataFile], facts: Facts, wanted: set[int], progress: Progress) -> _Texts:
    found = _Texts({}, {})
    rows, named = np.array(sorted(wanted), dtype=np.int64), {file.name: file for file in files}
    with progress.stage("examples", None) as advance:
        for code, name in enumerate(facts.file_names):
            own = rows[facts.file[rows] == code]
            places: dict[int, int] = {}
            for row in own.tolist():
                places.setdefault(int(facts.line[row]), row)
            blocks = named[name].blocks() if places else ()
            some = [read_block(block.only(places), named[name]) for block in blocks]
            # Thumbs need the whole file to find their partners.
            waits = any(record.waits for block in some for record in block)
            for record in records(named[name]) if waits else chain.from_iterable(some):
                if (first := places.get(record.source.line)) is None:
                    continue
                while first and (facts.file[first - 1], facts.line[first - 1]) == (code, record.source.line):
                    first -= 1  # to the first pair of the record
                for row, pair in enumerate(record.pairs, first):
                    chosen, rejected = pair.chosen.content, pair.rejected.content
                    sides = f"chosen: {_short(chosen, 40)} | rejected: {_short(rejected, 40)}"
                    found.excerpts[row] = f"{_short(pair.prompt[-1].content, 60)} | {sides}"
                    found.words[row] = (chosen, rejected)
            advance(len(own))
    return found


def _short(text: str, limit: int) -> str:
    line = one_line(masked(text[:MAX_SHOWN]))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _shown(hit: Hit) -> list[int]:
    rows = hit.shown if len(hit.shown) else hit.pairs
    found: list[int] = rows[:NUM_EXAMPLES].tolist()
    return found


# ------------------------------------------------------------------------------------------------------------- findings


def _finding(hit: Hit, facts: Facts, excerpts: dict[int, str]) -> Finding:
    examples = [
        Example(facts.file_names[facts.file[row]], int(facts.line[row]), hit.excerpts.get(row) or excerpts[row])
        for row in _shown(hit)
    ]
    share = hit.count / hit.total if hit.total else 0.0
    return Finding(hit.code, hit.count, hit.of, share, tuple(examples), hit.detail, hit.severity)


def _unusable(
    facts: Facts, lost: Mapping[int, str], told: Sequence[Finding], max_dropped_share: float
) -> Iterator[Finding]:
    """Yield a finding where nothing is left, or where training would refuse what is: by `lost`, which no model takes.

    `told` are the findings that say why, pair by pair.
    """
    broken = [reason for reason in facts.num_dropped if reason not in UNDECIDED]
    num_broken, num_dropped = sum(facts.num_dropped[reason] for reason in broken), sum(facts.num_dropped.values())
    num_sound = facts.num_pairs - len(lost)
    of: Literal["pairs", "records"] = "pairs" if lost else "records"
    by_model = [example for one in told if one.code in {*lost.values()} for example in one.examples]
    if not num_sound:
        shown = (*_examples(facts.dropped), *by_model)[:NUM_EXAMPLES]
        yield Finding("unusable", num_dropped + len(lost), of, 1.0, shown, "no pair is left")
        return
    share = unusable_share(num_broken + len(lost), num_dropped - num_broken, num_sound)
    if share > max_dropped_share:
        shown = (*_examples([item for item in facts.dropped if item.reason in broken]), *by_model)[:NUM_EXAMPLES]
        detail = f"more than data.max_dropped_share {max_dropped_share:g}"
        yield Finding("unusable", num_broken + len(lost), of, share, shown, detail)


def _dropped(facts: Facts) -> Iterator[Finding]:
    """Yield one finding for each reason that records were dropped for."""
    for reason, count in facts.num_dropped.items():
        shown = _examples([item for item in facts.dropped if item.reason == reason])
        yield Finding(reason, count, "records", count / facts.num_records, shown)


def _examples(dropped: Sequence[Dropped]) -> tuple[Example, ...]:
    return tuple(Example(item.source.file, item.source.line, item.detail) for item in dropped[:NUM_EXAMPLES])
