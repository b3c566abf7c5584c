"""examples/grpo_handover.py runs as it stands: an exported model goes into TRL's GRPOTrainer, and learns."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiebreak
from tiny import drawn_pairs, settings

pytest.importorskip("trl", reason="the example hands over to TRL, which pip install 'tiebreak[test]' brings")

PATH = Path(__file__).parents[1] / "examples" / "grpo_handover.py"
# Raised inside trl, transformers and accelerate, by their calls of each other's old names; none is a call of ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("grpo_handover_example", PATH)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def exported(tiny_model, tmp_path_factory) -> Path:
    """What a run of the tiny model learned, merged."""
    folder = tmp_path_factory.mktemp("exported")
    own = {"evaluation__num_samples": 0, "evaluation__probes": 0, "output__trackers": []}
    own |= {"data__train": drawn_pairs(folder), "data__heldout_share": 0.3, "output__dir": str(folder / "run")}
    run = tiebreak.train(settings(tiny_model, **own), quiet=True)
    tiebreak.export(run, folder / "model", "merged", quiet=True)
    return folder / "model"


def test_its_help_names_every_setting(example, capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        example.main(["--help"])
    shown = capsys.readouterr().out
    for option in ("model", "--prompts", "--pattern", "--steps", "--answers", "--max-new-tokens", "--seed", "--out"):
        assert option in shown


def test_an_exported_model_takes_two_steps_of_grpo_unedited(example, exported, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in exported.iterdir() if path.is_file()}
    rows = [{"prompt": f"the cat {number // 2}", "chosen": "yes", "rejected": "no"} for number in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    few = ["--max-new-tokens", "6", "--pattern", "[aeiou]", "--out", str(tmp_path / "out")]
    found = example.main([str(exported), "--prompts", str(tmp_path / "pairs.jsonl"), *few])
    assert len(found.rewards) == len(found.ended) == 2
    assert any(0 < reward < 1 for reward in found.rewards), "answers of one reward teach nothing"
    assert found.moved > 0
    assert {path.name: path.read_bytes() for path in exported.iterdir() if path.is_file()} == before
    # It saw the prompt as training did, and what it became is read like any model.
    assert found.rendered == "<|im_start|>user\nthe cat 0<|im_end|>\n<|im_start|>assistant\n"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    printed = capsys.readouterr().out
    assert f"step 2: reward {found.rewards[1]:.3f}" in printed
    assert len(printed.splitlines()) == 4


def test_where_all_answers_have_one_reward_it_says_that_nothing_was_learned(example, exported, capsys):
    assert example.main([str(exported), "--max-new-tokens", "2", "--pattern", "^$^never"]).moved == 0
    assert "all answers had one reward" in capsys.readouterr().out


def test_a_model_without_a_chat_template_is_refused_in_one_line(example, exported, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(exported)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(SystemExit, match="has no chat template"):
        example.main([str(tmp_path)])
