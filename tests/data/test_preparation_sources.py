"""What sources bring besides pairs: weights, groups, files that are held out, thumbs, and how much of them is taken."""

from __future__ import annotations

import json

import pytest

from tiebreak.config import DataConfig, SourceConfig
from tiebreak.data.preparation import prepare
from tiebreak.data.render import Renderer
from tiebreak.errors import DataError


def rows(numbers, **more):
    return [{"prompt": f"the cat {n}", "chosen": f"yes {n}", "rejected": "no"} | more for n in numbers]


def saved(path, made):
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return str(path)


def prepared(tokenizer, **changes):
    data = DataConfig(max_length=128, **changes)
    return prepare(data, Renderer(tokenizer, (tokenizer.eos_token_id,), data))


def test_the_weight_of_a_pair_comes_along_and_is_part_of_what_the_data_are(tokenizer, tmp_path):
    plain = prepared(tokenizer, train=saved(tmp_path / "a.jsonl", rows(range(40))), heldout_share=0.2)
    made = [row | {"weight": 0.25 if n % 2 else 3} for n, row in enumerate(rows(range(40)))]
    weighted = prepared(tokenizer, train=saved(tmp_path / "b.jsonl", made), heldout_share=0.2)
    assert {pair.weight for pair in plain.train} == {1.0}
    assert {pair.weight for pair in weighted.train} == {0.25, 3.0}
    assert [pair.example_id for pair in weighted.train] == [pair.example_id for pair in plain.train]
    assert weighted.fingerprint != plain.fingerprint
    assert (plain.report["num_weighted_pairs"], weighted.report["num_weighted_pairs"]) == (0, len(weighted.train))


def test_all_comparisons_of_a_prompt_weigh_as_much_as_one_pair(tokenizer, tmp_path):
    rated = [
        {"instruction": f"the cat {n}", "completions": [{"response": f"yes {k}", "overall_score": k} for k in range(4)]}
        for n in range(20)
    ]
    found = prepared(tokenizer, train=saved(tmp_path / "a.jsonl", rated), pairing="all", heldout_share=0.2)
    assert len(found.train) == 6 * found.train.num_prompts
    assert sum(pair.weight for pair in found.train) == pytest.approx(found.train.num_prompts)


@pytest.mark.parametrize("weight", [0.1, 1.0, 3.0])
def test_the_weight_of_a_source_changes_no_share(tokenizer, tmp_path, weight):
    made = [*rows(range(95)), *({"prompt": "", "chosen": "a", "rejected": "b"} for _ in range(5))]
    source = SourceConfig(path=saved(tmp_path / "a.jsonl", made), weight=weight)
    found = prepared(tokenizer, train=(source,), heldout_share=0.2, max_dropped_share=0.06)
    assert found.report["num_dropped"] == 5
    with pytest.raises(DataError, match=r"^5% of the records would be dropped"):
        prepared(tokenizer, train=(source,), heldout_share=0.2, max_dropped_share=0.04)


def test_a_pair_that_is_repeated_is_left_out_once(tokenizer, tmp_path):
    source = SourceConfig(path=saved(tmp_path / "a.jsonl", rows(range(20))), weight=3)
    found = prepared(tokenizer, train=(source,), heldout=saved(tmp_path / "b.jsonl", rows(range(15, 25))))
    assert found.report["dropped_by_reason"] == {"heldout_prompt": 5}
    assert len(found.train) == 3 * 15


def test_groups_of_a_held_out_file_are_not_trained_on(tokenizer, tmp_path):
    train = [*rows(range(10), group="a"), *rows(range(10, 20), group="b"), *rows(range(20, 30))]
    held = saved(tmp_path / "b.jsonl", rows(range(100, 105), group="b"))
    found = prepared(tokenizer, train=saved(tmp_path / "a.jsonl", train), heldout=held)
    assert len(found.train) == 20
    assert found.report["dropped_by_reason"] == {"heldout_prompt": 10}
    assert {item.detail for item in found.dropped} == {"its group is also held out"}
    assert sorted(item.source.line for item in found.dropped) == list(range(11, 21))


def test_max_pairs_limits_thumbs_too(tokenizer, tmp_path):
    thumbs = [{"prompt": f"the cat {n // 2}", "completion": f"yes {n}", "label": n % 2 == 0} for n in range(120)]
    found = prepared(tokenizer, train=saved(tmp_path / "a.jsonl", thumbs), max_pairs=10, heldout_share=0.2)
    assert len(found.train) + len(found.heldout.tokenized) == 10
    assert found.report["num_beyond_max_pairs"] > 0
    everything = prepared(tokenizer, train=str(tmp_path / "a.jsonl"), heldout_share=0.2)
    assert len(everything.train) + len(everything.heldout.tokenized) == 60
