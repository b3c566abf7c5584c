"""What is said of both sides before there is a tokenizer is what a run then makes of them."""

from __future__ import annotations

import json

import pytest

from tiebreak.config import DataConfig
from tiebreak.data.preparation import prepare
from tiebreak.data.prompts import may_disagree, prompts_of
from tiebreak.data.render import Renderer
from tiebreak.progress import Silent


@pytest.fixture
def files(tmp_path):
    def saved(name, numbers, **more):
        made = [{"prompt": f"the cat {n}", "chosen": f"yes {n % 3}", "rejected": "no"} | more for n in numbers]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in made))
        return str(tmp_path / name)

    thumbs = [{"prompt": f"the dog {n % 30}", "completion": f"yes {n}", "label": n >= 30} for n in range(60)]
    (tmp_path / "thumbs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in thumbs))
    return {
        "plain": saved("plain.jsonl", range(60)),
        "grouped": saved("grouped.jsonl", range(40, 70), group="a"),
        "own": saved("own.jsonl", range(50, 60), group="a"),
        "apart": saved("apart.jsonl", range(200, 230)),
        "thumbs": str(tmp_path / "thumbs.jsonl"),
    }


@pytest.mark.parametrize(
    "said",
    [
        {"train": "plain"},
        {"train": "plain", "heldout_share": 0.5, "max_pairs": 20},
        {"train": "plain", "heldout": "own"},
        {"train": ("plain", "grouped"), "heldout": "own"},
        {"train": ("plain", "grouped"), "heldout_share": 0.4},
        {"train": ({"path": "plain", "weight": 0.4}, "apart"), "heldout_share": 0.3},
        {"train": "thumbs", "heldout_share": 0.3},
        {"train": "thumbs", "heldout_share": 0.3, "pairing": "none"},
        {"train": "thumbs", "heldout_share": 0.3, "pairing": "good"},
    ],
    ids=str,
)
def test_the_prompts_are_those_of_the_run(said, files, tokenizer):
    def named(one):
        if isinstance(one, tuple):
            return [named(each) for each in one]
        return one | {"path": files[one["path"]]} if isinstance(one, dict) else files[one]

    told = {key: named(one) if key in ("train", "heldout") else one for key, one in said.items()}
    data = DataConfig.model_validate(told | {"max_dropped_share": 0.9})
    made, found = prepare(data, Renderer(tokenizer, (tokenizer.eos_token_id,), data)), prompts_of(data, Silent())
    assert found.train == set(made.train.prompt_ids())
    assert found.heldout == {example.prompt_id for example in made.heldout.tokenized}
    assert found.train
    assert found.heldout


def test_data_are_read_for_it_only_where_the_hash_of_a_prompt_does_not_decide_alone(files):
    def of(train, **more):
        return DataConfig(train=files[train], **more)

    plain = of("plain")
    assert not may_disagree(plain, plain)
    assert not may_disagree(plain, of("apart"))
    assert not may_disagree(plain, of("plain", heldout_share=0.05, pairing="good"))
    assert may_disagree(plain, of("plain", heldout_share=0.2))
    assert may_disagree(plain, of("apart", heldout=files["own"]))
    assert may_disagree(plain, of("grouped")), "a group is held out as a whole, and the other file has none"
    assert not may_disagree(of("grouped"), of("grouped", pairing="good"))
