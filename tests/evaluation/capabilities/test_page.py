"""docs/capabilities.md says what is so: every setting, the examples, the numbers of questions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tiebreak.config import Compliance, ExactAnswer, LmEvalConfig, MultipleChoice, PlainText, Refusal, load_config
from tiebreak.errors import ConfigError
from tiebreak.evaluation.capabilities.taskfiles import load_tasks
from tiebreak.maths.power import clusters_to_decide

PAGE = (Path(__file__).parents[3] / "docs" / "capabilities.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("section", [MultipleChoice, ExactAnswer, Refusal, Compliance, PlainText, LmEvalConfig])
def test_every_setting_is_on_the_page_and_described(section):
    for name, field in section.model_fields.items():
        written = field.alias or name
        assert field.description
        assert f"`{written}`" in PAGE or re.search(rf"^ *{written}:", PAGE, re.MULTILINE), written


def test_the_examples_are_tasks(tmp_path):
    (tmp_path / "capitals.jsonl").write_text('{"question": "q", "choices": ["a", "b"], "answer": "b"}\n')
    (tmp_path / "harmful.jsonl").write_text('{"prompt": "p"}\n')
    (tmp_path / "handbook.txt").write_text("a line\n")
    written = [block for block in BLOCKS if "kind: " in block and "gate:" not in block]
    paths = []
    for number, block in enumerate(written):
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(block, encoding="utf-8")
    assert [load_tasks([path])[0].kind.name for path in paths] == ["multiple_choice"] * 2 + ["refusal", "text"]
    assert len(written[0].strip().splitlines()) <= 10


def test_the_settings_of_the_examples_are_settings_of_a_run(tmp_path):
    found = [
        block for block in BLOCKS if block not in [one for one in BLOCKS if re.search("^kind: ", one, re.MULTILINE)]
    ]
    assert len(found) == 3
    for block in found:
        path = tmp_path / "my.yaml"
        path.write_text(block, encoding="utf-8")
        config = load_config(path)
        tree = yaml.safe_load(block)
        if "tasks" in tree.get("evaluation", {}):
            assert config.evaluation.tasks == ("tasks/capitals.yaml",)
        if "lm_eval" in tree.get("evaluation", {}):
            assert config.evaluation.lm_eval == LmEvalConfig(
                include_path="lm_eval_tasks", tasks=("my_task",), limit=500
            )


def test_numbers_of_questions_are_computed():
    for share in (0.02, 0.05, 0.1, 0.2):
        numbers = [clusters_to_decide(margin, share**0.5, 1 - margin) for margin in (0.03, 0.05)]
        assert f"| {100 * share:.0f} % | {numbers[0]:,} | {numbers[1]:,} |" in PAGE
    for spread in (0.05, 0.1):
        assert f"{clusters_to_decide(0.03, spread, 0.1)} " in PAGE


def test_settings_of_lm_eval_that_are_none_are_refused():
    with pytest.raises(ConfigError, match=r"evaluation\.lm_eval"):
        load_config(None, {"evaluation.lm_eval": {"include_path": "x"}})
    with pytest.raises(ConfigError, match=r"evaluation\.lm_eval"):
        load_config(None, {"evaluation.lm_eval": {"include_path": "x", "tasks": []}})
    assert load_config(
        None, {"evaluation.lm_eval": {"include_path": "x", "tasks": "one"}}
    ).evaluation.lm_eval.tasks == ("one",)
