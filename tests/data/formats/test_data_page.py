"""docs/data.md is true: every form, every reason code, and every example on it is read as it says."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

import pytest

import tiebreak
from tiebreak.data.formats import FORMATS, detect, read_row
from tiebreak.data.formats.columns import KEYS, columns_form
from tiebreak.data.formats.writing import BESIDE, NEEDED, WRITERS
from tiebreak.records import Source

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
PARTS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
FORMS = dict(re.findall(r"^### `(\w+)` · .+?\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL))
READ_LATER = {"heldout_prompt", "unpaired", "contradictory_thumbs"}


def examples(text):
    return [json.loads(line) for line in re.findall(r"```json\n(.+?)\n```", text)]


def codes_of_the_source():
    """Every reason code of records that is written down in the source; a question of a task is no record."""
    folder = Path(tiebreak.__file__).parent
    files = [file for file in folder.rglob("*.py") if not file.is_relative_to(folder / "evaluation" / "capabilities")]
    calls = [node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8"))) if is_refusal(node)]
    return {node.args[0].value for node in calls if isinstance(node.args[0], ast.Constant)}


def is_refusal(node):
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return is_call and node.func.id in ("RowError", "RenderError") and bool(node.args)


def test_the_forms_stand_in_the_order_in_which_they_are_tried():
    assert list(FORMS) == list(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_the_example_of_a_form_is_of_that_form_and_can_be_read(name):
    (row,) = examples(FORMS[name])
    assert detect(row).name == name
    reading = read_row(row, FORMATS[name], Source("data.md", 1))
    assert reading.pairs or reading.thumbs or reading.rated
    for pair in reading.pairs:
        assert (pair.chosen.content, pair.rejected.content) in {("Because.", "No."), ("Hello", "Bye")}
    for thumb in reading.thumbs:
        assert thumb.liked


def test_the_title_of_a_form_is_that_of_the_table():
    titles = dict(re.findall(r"^### `(\w+)` · (.+)$", PAGE, re.MULTILINE))
    plain = {name: title.replace("`", "") for name, title in titles.items()}
    assert {name for name, form in FORMATS.items() if form.title != plain[name]} <= {"tiebreak"}


def test_the_guessed_examples_are_guessed():
    rows = examples(PARTS["Columns of other names"])
    assert len(rows) == 3
    for row in rows:
        form = detect(row)
        reading = read_row(row, form, Source("data.md", 1))
        assert form.name == "columns"
        assert reading.pairs or reading.thumbs
    assert f"`{detect(rows[0]).title}`" in PARTS["Columns of other names"]


MAPPINGS = re.findall(r"```mapping\n(.+?)\n(.+?)\n```", PARTS["Columns of other names"])


@pytest.mark.parametrize(("row", "options"), MAPPINGS)
def test_the_example_of_a_mapping_is_read_as_it_is_written(row, options):
    words = shlex.split(options)
    assert set(words[::2]) == {"-c"}
    form = columns_form(dict(word.split("=", 1) for word in words[1::2]))
    reading = read_row(json.loads(row), form, Source("data.md", 1))
    for pair in reading.pairs:
        assert pair.prompt[-1].content == "Why?"
        assert pair.chosen.content.removeprefix("First: ") == "Because."
        assert pair.rejected.content.removeprefix("First: ") == "No."
    alone = [thumb.completion for thumb in reading.thumbs if thumb.liked] + [one.completion for one in reading.rated]
    assert reading.pairs or [said.content for said in alone] == ["Because."]


def test_every_example_of_a_mapping_is_found():
    assert len(MAPPINGS) == PAGE.count("```mapping") > 5


def test_every_name_of_a_mapping_is_told():
    table = re.findall(r"^\|(?! what)(?!-).*\|(.*)\|$", PARTS["Columns of other names"], re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(table))) == set(KEYS)


def test_every_reason_is_told_and_no_other():
    told = re.findall(r"^\| `(\w+)` \|", PARTS["Why a record is dropped"], re.MULTILINE)
    assert len(told) == len(set(told))
    assert set(told) == codes_of_the_source() | READ_LATER


def test_what_each_written_form_refuses_and_leaves_out_is_told():
    rows = re.findall(r"^\| `(\w+)` \|.*?\|(.*?)\|(.*?)\|$", PARTS["Writing"], re.MULTILINE)
    assert [name for name, _, _ in rows] == list(WRITERS)
    for name, refused, left_out in rows:
        for told, known in ((refused, NEEDED), (left_out, BESIDE)):
            wanted = [trait for trait in known if trait not in WRITERS[name].carries]
            assert re.findall(r"\w+", told) == wanted, name
