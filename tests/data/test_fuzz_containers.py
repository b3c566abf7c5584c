"""Any bytes at all: rows, RowErrors or one DataError of one line, and never anything else."""

from __future__ import annotations

import csv
import gzip
import io
import json

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from bounds import examples
from tiebreak.data.containers import blocks, rows
from tiebreak.data.containers.json_lines import parsed
from tiebreak.data.containers.json_lists import RECORD_KEYS
from tiebreak.data.formats import RowError
from tiebreak.errors import DataError

many = settings(
    max_examples=examples(100, 1000), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
few = settings(many, max_examples=examples(50, 300))

texts = st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
records = st.lists(st.dictionaries(st.sampled_from(["prompt", "chosen", "data", "a"]) | texts, values), max_size=6)
STARTS = (
    b"", b"{", b"[", b"[\n", b'{"data": [', b'{"a": "', b"a,b\n",
    b"PAR1", b"ARROW1", b"\xff" * 4, b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd",
)  # fmt: skip
PACKS = {"plain": bytes, "gzip": gzip.compress, "zstd": lambda content: pa.compress(content, "zstd", asbytes=True)}
packs = pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "x"


def read(path, size: int = 256) -> list[tuple[int, object]]:
    """Number and row of each record, a RowError by its words, and at the end the DataError where there is one."""
    found: list[tuple[int, object]] = []
    try:
        for block in blocks(path, "x", size):
            assert 1 <= len(block) <= size
            for source, row in rows(block):
                found.append((source.line, (row.reason, row.detail) if isinstance(row, RowError) else row))
                if isinstance(row, RowError):
                    assert row.detail.isprintable()
                    assert len(row.detail) < 400
    except DataError as error:
        assert str(error).startswith("x:")
        assert "\n" not in str(error)
        assert len(str(error)) < 400
        found.append((-1, str(error)))
    numbers = [number for number, _ in found if number > 0]
    assert numbers == sorted(set(numbers))
    return found


def mutated(content: bytes) -> st.SearchStrategy[bytes]:
    """Some bytes of a valid file changed, cut, doubled or put in."""
    at = st.integers(0, len(content))

    def change(changes: list[tuple[int, int, bytes]]) -> bytes:
        made = content
        for start, length, new in changes:
            made = made[:start] + new + made[start + length :]
        return made

    return st.lists(st.tuples(at, st.integers(0, 40), st.binary(max_size=6)), min_size=1, max_size=4).map(change)


# ---------------------------------------------------------------------------------------------------------- any bytes


@packs
@many
@given(content=st.binary(max_size=300), start=st.sampled_from(STARTS))
def test_any_bytes_end_as_rows_or_one_line(place, pack, content, start):
    place.write_bytes(pack(start + content))
    read(place)


@packs
@many
@given(content=st.text(alphabet="{}[]\",:\\ \n\r\tu0aé\x00\ufeff;'", max_size=60))
@example(content=':\t\n""0')  # the message names the delimiter, a tab
def test_any_mixture_of_json_and_tables_ends_as_rows_or_one_line(place, pack, content):
    place.write_bytes(pack(content.encode()))
    whole = read(place)
    for size in (1, 2, 3):
        assert read(place, size) == whole


# ------------------------------------------------------------------------------------------------------- valid files


def may_be_a_table(row: dict) -> bool:
    """Whether an object that stands alone may list its records, or hold columns of one length, or objects alone."""
    cells = list(row.values())
    has_columns = all(isinstance(cell, list) for cell in cells) and len(set(map(len, cells))) == 1
    has_objects = bool(cells) and all(isinstance(cell, dict) for cell in cells)
    lists = any(isinstance(row.get(key), list) and row[key] for key in RECORD_KEYS)
    return lists or has_columns or has_objects


@packs
@many
@given(made=records)
@example(made=[{"prompt": [None], "": [None]}])  # a table of one row, as one with more would be written
@example(made=[{"prompt": [None], "": [None]}] * 2)
@example(made=[{"prompt": {"0": None}}])
def test_every_line_that_is_not_blank_is_one_row(place, pack, made):
    content = "".join(f" {json.dumps(row)}\r\n \n" for row in made)
    place.write_bytes(pack(content.encode()))
    wanted = [(2 * index + 1, row) for index, row in enumerate(made)]
    if len(made) == 1 and may_be_a_table(made[0]):
        return
    assert read(place) == wanted
    assert read(place, 1) == wanted


@packs
@many
@given(lines=st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=8))
def test_lines_of_any_bytes_are_counted_once(place, pack, lines):
    place.write_bytes(pack(b'{"a": 1}\n' + b"\n".join(lines) + b'\n{"a": 2}'))
    numbers = [number for number, _ in read(place)]
    assert numbers == [1] + [at for at, line in enumerate(lines, 2) if line.strip()] + [len(lines) + 2 + (not lines)]


@packs
@few
@given(made=records, indent=st.sampled_from([None, 0, 2]), key=st.sampled_from([None, "data", "train"]))
def test_a_document_gives_what_json_gives(place, pack, made, indent, key):
    document = made if key is None else {"about": {"n": 1}, key: made, "more": []}
    rows = [document] if key and not made and indent is None else made  # on a line of its own it may be a record
    place.write_bytes(pack(json.dumps(document, indent=indent).encode()))
    assert read(place) == list(enumerate(rows, 1))
    assert read(place, 2) == list(enumerate(rows, 1))


cells = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)


@packs
@few
@given(made=st.lists(st.tuples(cells, cells, cells), max_size=6), delimiter=st.sampled_from(",\t;|"))
def test_a_table_gives_the_cells_that_were_written(place, pack, made, delimiter):
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("one", "two", "three"), *made])
    place.write_bytes(pack(file.getvalue().encode()))
    looks_like_json = any(cell.startswith(("[", "{")) for row in made for cell in row)
    found = [row for _, row in read(place)]
    assert len(found) == len(made)
    if not looks_like_json:
        assert [tuple(row.values()) for row in found] == made


# ------------------------------------------------------------------------------------------------------ mutated files

ROWS = [
    {"prompt": f"Why {n}?", "chosen": [{"role": "assistant", "content": "é" * n}], "score": n / 2} for n in range(5)
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
TABLE = b'prompt,chosen,rejected\n"a ""b""",c,"d\ne"\n1,"[{""x"": 1}]",3\n\n4,5,6\n'


def columnar(how: str) -> bytes:
    made, file = pa.Table.from_pylist(ROWS), io.BytesIO()
    if how.startswith("parquet"):
        pq.write_table(made, file, row_group_size=2, compression=how.partition(" ")[2] or "none")
        return file.getvalue()
    new = pa.ipc.new_file if how == "arrow file" else pa.ipc.new_stream
    with new(file, made.schema) as writer:
        writer.write_table(made, max_chunksize=2)
    return file.getvalue()


FILES = {
    "lines": LINES,
    "document": json.dumps({"about": 1, "rows": ROWS}, indent=1).encode(),
    "list": json.dumps(ROWS).encode(),
    "table": TABLE,
    "gzip": gzip.compress(LINES),
    "zstd": PACKS["zstd"](LINES * 20),
    "gzip of a table": gzip.compress(TABLE),
    **{how: columnar(how) for how in ("parquet", "parquet zstd", "arrow file", "arrow stream")},
}


@pytest.mark.parametrize("name", FILES)
def test_a_mutated_file_ends_as_rows_or_one_line(place, name):
    # The same files each time: on a new one Arrow itself may crash, and that would end the whole test run.
    @settings(many, max_examples=examples(100, 300), derandomize=True)
    @given(content=mutated(FILES[name]))
    def check(content):
        place.write_bytes(content)
        whole = read(place)
        assert repr(read(place, 2)) == repr(whole)  # NaN may come of it

    check()


# --------------------------------------------------------------------------------------------------------- strict JSON


def oracle(text: str) -> object:
    """What the standard library makes of a text, or 'bad' where strict JSON has no value for it."""

    def unique(items):
        if len({key for key, _ in items}) < len(items):
            raise ValueError(items)
        return dict(items)

    def constant(literal):
        raise ValueError(literal)

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=constant)
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        return "bad"
    return [value]


@settings(many, max_examples=examples(400, 5000))
@given(
    st.text(alphabet='{}[]",:\\ud8300aénulNaIfity-1.e \n', max_size=30)
    | values.map(json.dumps)
    | values.map(json.dumps).flatmap(lambda text: mutated(text.encode()).map(lambda raw: raw.decode("utf-8", "ignore")))
)
@example('{"a": 1, "\\u0061": 2}')
@example('"\\ud800\\udc00 \\udc00"')
@example("NaN")
def test_a_line_is_parsed_as_the_standard_library_parses_it(text):
    try:
        found: object = [parsed(text.encode())]
    except RowError:
        found = "bad"
    assert repr(found) == repr(oracle(text))
