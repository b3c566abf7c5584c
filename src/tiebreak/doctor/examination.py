"""The doctor's look at preference data, before any model is trained on it.

Owns the order: facts of every judgement in one pass, then the rules, then the texts of a few in a second pass. Memory
grows by some hundred bytes a judgement and not with its text. What is looked for is known to `pairs` and `apart`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from tiebreak.config import DataConfig, ModelConfig, reading
from tiebreak.data.account import unusable_share
from tiebreak.data.containers import Block
from tiebreak.data.formats.form import as_options
from tiebreak.data.reader import HELDOUT, DataFile, open_data, read_block, records, settled, training_files
from tiebreak.data.render import Renderer
from tiebreak.data.workers import mapped, num_workers_for
from tiebreak.doctor import measurements
from tiebreak.doctor.apart import COMPLETIONS, DEMONSTRATIONS
from tiebreak.doctor.blocks import merged
from tiebreak.doctor.facts import Rows
from tiebreak.doctor.findings import Hit, few_prompts, licence_hits, lone_thumbs, many_ties, row_hits
from tiebreak.doctor.looks import Kind
from tiebreak.doctor.pairs import PAIRS
from tiebreak.doctor.report import AuditReport, Example, Finding
from tiebreak.doctor.rules import READING_RULES, RULES, SEVERITIES, Of
from tiebreak.doctor.texts.flaws import masked
from tiebreak.doctor.token_counts import TokenCounts, count_tokens, token_hits
from tiebreak.engine.positions import Context
from tiebreak.errors import DataError, one_line
from tiebreak.progress import Progress, Silent
from tiebreak.records import UNDECIDED, Dropped, Record
from tiebreak.reporting.visible import visible

NUM_EXAMPLES = 3
MAX_SHOWN = 2**14
"""Characters of a text that are looked at for an excerpt of it: a secret that begins in the excerpt ends in them."""


KINDS: Mapping[str, Kind] = {"none": COMPLETIONS, "good": DEMONSTRATIONS}
"""What is examined, by `data.pairing` where that makes no pairs."""


@dataclass(frozen=True)
class Audit:
    """The doctor's report, and which rows each rule speaks of: judgements, numbered in the order of reading."""

    report: AuditReport
    hits: tuple[Hit, ...]
    files: tuple[DataFile, ...]

    def codes_by_row(self) -> dict[int, list[str]]:
        """Return the codes of the rules that each judgement breaks, those without any left out."""
        found: dict[int, list[str]] = {}
        for hit in self.hits:
            for row in hit.rows.tolist():
                found.setdefault(row, []).append(hit.code)
        return found


@dataclass(frozen=True)
class Tokens:
    """With which tokenizer to count, and the settings that it was loaded by."""

    model: ModelConfig
    renderer: Renderer
    context: Context


def audit(
    data: DataConfig,
    tokens: Tokens | None = None,
    progress: Progress | None = None,
    num_workers: int | None = None,
    opened: Sequence[DataFile] = (),
) -> Audit:
    """Look at every pair of `data`, or every completion on its own where `data.pairing` leaves them so.

    Facts, rules, examples; of the files of `data`, where they are `opened` already. Raises DataError where nothing can
    be read at all.
    """
    progress = progress or Silent()
    files, kind = opened or open_data(data), KINDS.get(data.pairing, PAIRS)
    workers = num_workers or num_workers_for(file.path for file in files)
    facts, counted, num_lone = _gathered(files, kind, tokens, progress, workers)
    if not facts.num_records:
        raise DataError(f"{files[0].name}: the file holds no record; wanted one preference pair per line")
    look = kind.look(facts, data.heldout_share, HELDOUT if any(file.side == HELDOUT for file in files) else None)
    by_tokens: list[Hit] = []
    if counted and tokens:
        by_tokens += token_hits(counted, facts.unit, data.max_length, data.truncation, tokens.context)
    hits = [*look.hits(), *row_hits(facts), *few_prompts(facts), *many_ties(facts), *lone_thumbs(num_lone, facts)]
    hits += [*by_tokens, *licence_hits(measurements.licences_of(facts), facts)]
    texts = _texts(files, facts, {row for hit in hits for row in _shown(hit)} | set(look.sampled.tolist()), progress)
    hits += look.hits_of([texts.words[row] for row in look.sampled.tolist()])
    told = [_finding(hit, facts, texts.excerpts) for hit in hits]
    lost = {row: hit.code for hit in by_tokens if hit.code in READING_RULES for row in hit.rows.tolist()}
    findings = [*_dropped(facts), *_missed(files), *_unusable(facts, lost, told, data.max_dropped_share), *told]
    report = AuditReport(
        files=tuple(_described(file, facts.num_records_by_file.get(file.name, 0)) for file in files),
        read=reading(data, tokens.model if tokens else None),
        counts=measurements.counts(facts, lost, look.counts()),
        findings=tuple(sorted(findings, key=_gravity)),
        measurements={
            **look.measurements(),
            "tokens": counted.as_dict(tokens.model.name, data.max_length, tokens.context)
            if counted and tokens
            else None,
        },
    )
    return Audit(report, tuple(hits), training_files(files))


def _described(file: DataFile, num_records: int) -> dict[str, Any]:
    """Return what the report says of a file; of its first record nothing that is secret or personal."""
    return file.as_dict(num_records, masked) | {"title": file.form.title if file.form else "unknown"}


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
    mapped = [column for column in first.missed if column in dict(first.remedy).values()]
    names = visible(", ".join(map(repr, mapped or first.missed[:1])))
    verb, remedy = "stand" if len(mapped) > 1 else "stands", visible(as_options(dict(first.remedy)))
    detail = f"so that {names} {verb} in the prompt: {remedy}" if mapped else f"{names} is in no text of a pair"
    yield Finding("unread_column", len(found), "files", len(found) / len(files), examples, detail)


def _gravity(finding: Finding) -> tuple[int, int]:
    return SEVERITIES.index(finding.grade), list(RULES).index(finding.code)


# ----------------------------------------------------------------------------------------------------------- first pass


@dataclass(frozen=True)
class _Seen:
    """What a worker brings back of one block; records with thumbs wait for the rest of the file."""

    facts: Rows
    tokens: TokenCounts | None
    waiting: tuple[Record, ...]


def _gathered(
    files: Sequence[DataFile], kind: Kind, tokens: Tokens | None, progress: Progress, num_workers: int
) -> tuple[Rows, TokenCounts | None, int]:
    """Return facts and tokens of all files, and how many records hold a thumb that found no partner."""
    see = partial(_seen, kind, tokens.renderer if tokens else None)
    parts: list[_Seen] = []
    num_lone = 0
    for file in files:
        waiting: list[Record] = []
        with progress.stage(f"reading {file.name}", None) as advance:
            for seen in mapped(partial(_of_block, see), ((block, file) for block in file.blocks()), num_workers):
                parts.append(replace(seen, waiting=()))
                waiting += seen.waiting
                advance(seen.facts.num_records + len(seen.waiting))
        found, with_thumbs = (
            list(settled(waiting, file.pairing)),
            {record.source for record in waiting if record.thumbs},
        )
        alone = [record for record in found if record.dropped and record.dropped.reason == "unpaired"]
        num_lone += sum(record.source in with_thumbs for record in alone)
        parts.append(see(found))
    counted = [part.tokens for part in parts if part.tokens]
    facts = merged(kind.facts, [part.facts for part in parts])
    return facts, TokenCounts.merged(counted) if counted else None, num_lone


def _of_block(see: Callable[[Sequence[Record]], _Seen], item: tuple[Block, DataFile]) -> _Seen:
    found = read_block(*item)
    seen = see([record for record in found if not record.waits])
    return replace(seen, waiting=tuple(record for record in found if record.waits))


def _seen(kind: Kind, renderer: Renderer | None, found: Sequence[Record]) -> _Seen:
    judged = [one for record in found for one in record.judged]
    return _Seen(kind.facts_of(found), count_tokens(judged, kind.facts.sides, renderer) if renderer else None, ())


# ---------------------------------------------------------------------------------------------------------- second pass


@dataclass(frozen=True)
class _Texts:
    """Of some judgements: a line to recognise them by, and the completions."""

    excerpts: dict[int, str]
    words: dict[int, tuple[str, ...]]


def _texts(files: Sequence[DataFile], facts: Rows, wanted: set[int], progress: Progress) -> _Texts:
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
                    first -= 1  # to the first row of the record
                for row, one in enumerate(record.judged, first):
                    said = {name: message.content for name, message in one.verdicts.items()}
                    sides = (f"{name}: {_short(text, 80 // len(said))}" for name, text in said.items())
                    found.excerpts[row] = " | ".join([_short(one.prompt[-1].content, 60), *sides])
                    found.words[row] = tuple(said.values())
            advance(len(own))
    return found


def _short(text: str, limit: int) -> str:
    line = one_line(masked(text[:MAX_SHOWN]))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _shown(hit: Hit) -> list[int]:
    rows = hit.shown if len(hit.shown) else hit.rows
    found: list[int] = rows[:NUM_EXAMPLES].tolist()
    return found


# ------------------------------------------------------------------------------------------------------------- findings


def _finding(hit: Hit, facts: Rows, excerpts: dict[int, str]) -> Finding:
    examples = [
        Example(facts.file_names[facts.file[row]], int(facts.line[row]), hit.excerpts.get(row) or excerpts[row])
        for row in _shown(hit)
    ]
    share = hit.count / hit.total if hit.total else 0.0
    return Finding(hit.code, hit.count, hit.of, share, tuple(examples), hit.detail, hit.severity)


def _unusable(
    facts: Rows, lost: Mapping[int, str], told: Sequence[Finding], max_dropped_share: float
) -> Iterator[Finding]:
    """Yield a finding where nothing is left, or where training would refuse what is: by `lost`, which no model takes.

    `told` are the findings that say why, row by row.
    """
    broken = [reason for reason in facts.num_dropped if reason not in UNDECIDED]
    num_broken, num_dropped = sum(facts.num_dropped[reason] for reason in broken), sum(facts.num_dropped.values())
    num_sound = facts.num_rows - len(lost)
    of: Of = facts.unit if lost else "records"
    by_model = [example for one in told if one.code in {*lost.values()} for example in one.examples]
    if not num_sound:
        shown = (*_examples(facts.dropped), *by_model)[:NUM_EXAMPLES]
        hint = "; lone_thumbs says what to do" if any(one.code == "lone_thumbs" for one in told) else ""
        yield Finding("unusable", num_dropped + len(lost), of, 1.0, shown, f"no {facts.unit[:-1]} is left{hint}")
        return
    share = unusable_share(num_broken + len(lost), num_dropped - num_broken, num_sound)
    if share > max_dropped_share:
        shown = (*_examples([item for item in facts.dropped if item.reason in broken]), *by_model)[:NUM_EXAMPLES]
        detail = f"more than data.max_dropped_share {max_dropped_share:g}"
        yield Finding("unusable", num_broken + len(lost), of, share, shown, detail)


def _dropped(facts: Rows) -> Iterator[Finding]:
    """Yield one finding for each reason that records were dropped for."""
    for reason, count in facts.num_dropped.items():
        shown = _examples([item for item in facts.dropped if item.reason == reason])
        yield Finding(reason, count, "records", count / facts.num_records, shown)


def _examples(dropped: Sequence[Dropped]) -> tuple[Example, ...]:
    return tuple(Example(item.source.file, item.source.line, item.detail) for item in dropped[:NUM_EXAMPLES])
