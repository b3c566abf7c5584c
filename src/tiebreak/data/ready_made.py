"""The data of a run as an earlier start prepared them, where bytes, settings and tokenizer are the same.

Owns what is kept of prepared data, and that it comes back equal in every field. When an entry is believed is known to
`cache`, how data are prepared to `preparation`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiebreak.config import DataConfig
from tiebreak.data import spool, tokens
from tiebreak.data.account import Side
from tiebreak.data.cache import Cache, Content, Entry, Form, made_of
from tiebreak.data.preparation import PreparedData, fingerprint_of, prepare
from tiebreak.data.reader import DataFile, open_data
from tiebreak.data.render import Renderer
from tiebreak.data.scratch import read_table, write_table
from tiebreak.data.spool import PairSink, PairSpool
from tiebreak.data.tokens import TokenSink, TokenTable
from tiebreak.progress import Progress, Silent
from tiebreak.records import Dropped, Preference, Source, Vote


def ready_made(
    data: DataConfig, renderer: Renderer, progress: Progress | None = None, num_workers: int | None = None
) -> PreparedData:
    """Return what `prepare` does, and raise what it raises; where `data.store` knows it, without reading a record."""
    progress, files = progress or Silent(), open_data(data)
    form = Form("tokens", "prepared tokens", _write, lambda entry: _read(entry, data, files))

    def of() -> Content | None:
        identity = renderer.identity
        return None if identity is None else {**made_of(data, files), "renderer": identity}

    make = lambda: prepare(data, renderer, progress, num_workers, files)  # noqa: E731
    return Cache(data.store, progress).once(files, form, of, make)


def _write(made: PreparedData, folder: Path) -> dict[str, Any]:
    """Write the tables and what was dropped as files; return the rest."""
    write_table(folder / "train.arrow", tokens.SCHEMA, made.train.batches())
    for name, side in (("heldout", made.heldout), ("aside", made.aside)):
        write_table(folder / f"{name}.arrow", tokens.SCHEMA, TokenTable.of(side.tokenized).batches())
        write_table(folder / f"{name}-texts.arrow", spool.SCHEMA, PairSpool.of(side.pairs).batches())
    with (folder / "dropped.jsonl").open("w", encoding="ascii") as file:
        file.writelines(json.dumps(_row(one)) + "\n" for one in made.dropped)
    return {"report": made.report, "fingerprint": made.fingerprint}


def _read(entry: Entry, data: DataConfig, files: Sequence[DataFile]) -> PreparedData:
    """Return what was written, with the files called as they are now.

    Copied out of the entry, as fresh ones lie: in memory while they are small, else in a file without a name. So the
    entry may go meanwhile, on a network drive, too.
    """
    report = entry.said["report"]
    called = [told | {"path": file.spec} for told, file in zip(report["files"], files, strict=True)]
    # Lines end at \n alone: what else breaks one is escaped.
    with (entry.folder / "dropped.jsonl").open(encoding="ascii", newline="\n") as rows:
        dropped = tuple(_dropped(json.loads(row)) for row in rows)
    train, heldout = _tokens(entry.folder / "train.arrow"), _side(entry.folder, "heldout")
    if fingerprint_of(train, TokenTable.of(heldout.tokenized)) != entry.said["fingerprint"]:
        raise ValueError("its tokens are not of the fingerprint that it gives")
    return PreparedData(
        train=train,
        heldout=heldout,
        aside=_side(entry.folder, "aside") if data.set_aside else Side((), ()),
        dropped=dropped,
        report=report | {"files": called},
        fingerprint=entry.said["fingerprint"],
    )


def _side(folder: Path, name: str) -> Side:
    with PairSink() as sink:
        for batch in read_table(folder / f"{name}-texts.arrow", spool.SCHEMA):
            sink.add(batch)
        return Side(sink.spool(), _tokens(folder / f"{name}.arrow"))


def _tokens(path: Path) -> TokenTable:
    with TokenSink() as sink:
        for batch in read_table(path, tokens.SCHEMA):
            sink.add(batch)
        return sink.table()


def _row(one: Dropped) -> list[Any]:
    return [one.source.file, one.source.line, one.reason, one.detail, one.preference.as_dict()]


def _dropped(row: Sequence[Any]) -> Dropped:
    file, line, reason, detail, said = row
    votes = tuple(Vote(**vote) for vote in said.pop("votes", ()))
    return Dropped(Source(file, line), reason, detail, Preference(**said, votes=votes))
