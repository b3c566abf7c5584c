"""The notebooks of examples/ run as they stand, in a kernel, and are kept without what they printed."""

from __future__ import annotations

import json
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))
SMALL = """
MODEL, PAIRS = {model!r}, "pairs.jsonl"
SETTINGS |= {{
    "model.name": MODEL, "model.device": "cpu", "data.train": PAIRS, "data.heldout_share": 0.3, "data.max_length": 96,
    "adapter.rank": 2, "evaluation.num_samples": 2, "evaluation.max_new_tokens": 4,
    "output.trackers": [],
}}
"""


def _read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def ran(tiny_model, tmp_path_factory) -> nbformat.NotebookNode:
    """The first run with a model of two layers, a cell behind that of its parameters."""
    folder, notebook = tmp_path_factory.mktemp("notebook"), _read(NOTEBOOKS[0])
    rows = [{"prompt": f"the cat {number}", "chosen": f"yes {number}", "rejected": "no"} for number in range(40)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    [place] = [place for place, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(SMALL.format(model=str(tiny_model))))
    client = nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
    client.execute()
    return notebook


def _outputs(notebook: nbformat.NotebookNode, code: str) -> list[nbformat.NotebookNode]:
    [cell] = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.startswith(code)]
    return cell.outputs


def test_there_is_a_notebook_of_the_first_run():
    assert [path.name for path in NOTEBOOKS] == ["first_run.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_outputs(path):
    notebook = _read(path)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all((cell.outputs, cell.execution_count) == ([], None) for cell in code)


@pytest.mark.parametrize(
    ("code", "words"),
    [("tiebreak.check", "no errors"), ("tiebreak.plan", "micro-batches of at most"), ("run = ", "on held-out prompts")],
)
def test_runs_audits_and_plans_are_shown_as_pages(ran, code, words):
    [shown] = [one for one in _outputs(ran, code) if one.output_type == "execute_result"]
    assert words in shown.data["text/html"]


def test_progress_is_told_in_lines_and_no_library_asks_for_widgets(ran):
    cells = [cell for cell in ran.cells if cell.cell_type == "code"]
    told = {cell.source: "".join(one.text for one in cell.outputs if one.get("name") == "stderr") for cell in cells}
    assert [code.partition(" ")[0] for code, text in told.items() if text] == ["run"], told
    [lines] = filter(None, told.values())
    assert "training" in lines
    assert not {"\r", "\x1b"} & set(lines)
    for word in ("widgets", "tqdm", "IProgress", "Warning", "%|"):
        assert word not in lines
    assert {one.output_type for cell in cells for one in cell.outputs} == {"stream", "execute_result"}


def test_the_model_before_and_after_is_shown(ran):
    [printed] = _outputs(ran, "for sample")
    assert printed.text.count("before: ") == printed.text.count("after: ") == 2
    assert _outputs(ran, "talk = ")
    [made] = _outputs(ran, "made = ")
    assert made.data["text/plain"].startswith("('merged', ")
