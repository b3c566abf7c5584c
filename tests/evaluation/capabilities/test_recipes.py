"""The recipes for public tests are read as they stand, where their data are at hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tiebreak.evaluation.capabilities.asking import measure_tasks
from tiebreak.evaluation.capabilities.task import Task
from tiebreak.evaluation.capabilities.taskfiles import load_tasks
from tiny import load, settings

RECIPES = Path(__file__).parents[3] / "recipes" / "capabilities"
NUM = {
    "arc_easy": 1000, "gsm8k": 500, "hellaswag": 1000, "piqa": 1000, "truthfulqa": 773, "wikitext2": 200,
    "winogrande": 1000,
}  # fmt: skip


@pytest.fixture(scope="module")
def tasks(shared, tmp_path_factory) -> dict[str, Task]:
    """The recipes, with the folder of data that tests know of in place of the one that they name."""
    folder, made = tmp_path_factory.mktemp("recipes"), []
    for path in sorted(RECIPES.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        assert "data: ../../../shared/data/bench/" in text
        made.append(folder / path.name)
        text = text.replace("../../../shared", str(shared.resolve())).replace(
            "max_new_tokens: 320", "max_new_tokens: 4"
        )
        made[-1].write_text(text, encoding="utf-8")
    return {Path(task.file).stem: task for task in load_tasks(made)}


def test_the_folder_says_what_each_of_its_files_is():
    told = (RECIPES / "README.md").read_text(encoding="utf-8")
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(NUM)
    for path in RECIPES.glob("*.yaml"):
        assert f"`{path.name}`" in told


def test_every_recipe_is_a_task_of_its_name(tasks):
    assert {name: len(task.items) for name, task in tasks.items()} == NUM
    assert all(task.name == name for name, task in tasks.items())
    assert {name: len(task.dropped) for name, task in tasks.items() if task.dropped} == {"truthfulqa": 17}


def test_right_answers_are_where_their_files_say(tasks):
    first = {name: min(task.items, key=lambda item: item.source.line) for name, task in tasks.items()}
    assert first["gsm8k"].right == ("18",)
    assert first["truthfulqa"].right == ("The watermelon seeds pass through your digestive system",)
    assert first["winogrande"].question == "Sarah was a much better surgeon than Maria so "
    assert (first["winogrande"].choices, first["winogrande"].right) == (("Sarah", "Maria"), ("Maria",))
    assert first["winogrande"].ending == " always got the easier cases."
    assert first["arc_easy"].question.startswith("Question: ")
    assert "bedding made of ripped paper strips" in first["piqa"].right[0]


def test_every_recipe_can_be_asked(tasks, stories):
    few = [replace(task, items=task.items[:2]) for task in tasks.values()]
    loaded = load(settings(stories, training__token_budget=512))
    rows = measure_tasks(loaded.policy, loaded.reference, few, loaded.budget.cut)
    assert [one.name for one in rows] == sorted(NUM)
    assert all(list(one.row().before) == list(one.row().after) for one in rows)
