from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

import oracles
from tiebreak.engine.attention import use_plain_attention
from tiebreak.engine.scorer import PlainScorer
from tiebreak.evaluation.draws import draw
from tiebreak.evaluation.kept import KeptRows
from tiebreak.evaluation.samples import AnswerFiles
from tiebreak.files import appended_jsonl
from tiebreak.progress import Silent
from tiebreak.records import Message, Pair
from tiny import disturb, load, settings

PAIRS = [
    Pair((Message("user", text),), Message("assistant", "yes"), Message("assistant", "no"))
    for text in ("the cat sat", "a dog ran in the park", "the user")
]


def _drawn(loaded, config, folder, pairs=PAIRS):
    return draw(
        loaded.policy, loaded.reference, pairs, config.evaluation, seed=3, cut=loaded.budget.cut, progress=Silent(),
        said=AnswerFiles(folder / "answers.jsonl"), kept=KeptRows(folder / "kept.jsonl"),
    )  # fmt: skip


def _settings(model, adapter="lora", **more):
    return settings(model, adapter, **{"evaluation__num_draws": 3, "evaluation__max_new_tokens": 6} | more)


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_a_policy_that_has_not_moved_is_no_nat_from_its_reference(tiny_model, tmp_path, adapter):
    config = _settings(tiny_model, adapter)
    rows = _drawn(load(config), config, tmp_path)
    assert [row["prompt"][0]["content"] for row in rows].sort() == [pair.prompt[0].content for pair in PAIRS].sort()
    for row in rows:
        assert [one["text"] for one in row["before"]] == [one["text"] for one in row["after"]]
        for one in (*row["before"], *row["after"]):
            assert one["logps"] == pytest.approx(one["reference_logps"], abs=1e-5)
    assert len({one["text"] for row in rows for one in row["after"]}) > 1


def test_each_answer_is_scored_by_whoever_wrote_it_and_by_the_reference(tiny_model, tmp_path):
    config = _settings(tiny_model, "none")
    loaded = disturb(load(config))
    exact = [AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval() for _ in range(2)]
    exact[0].load_state_dict(loaded.policy.network.state_dict())
    renderer = loaded.policy.renderer(config.data)
    [eos] = loaded.policy.eos_ids
    rows = _drawn(loaded, config, tmp_path)
    written = list(appended_jsonl(tmp_path / "answers.jsonl"))
    ids_of = {line["text"]: tuple(line["ids"]) for line in written}
    for pair, row in zip(sorted(PAIRS, key=lambda pair: pair.prompt_id), rows, strict=True):
        prompt = renderer.prompt(pair.prompt)
        for side, author in (("before", exact[1]), ("after", exact[0])):
            assert len(row[side]) == 3
            for one in row[side]:
                ids = (*ids_of[one["text"]], *([eos] if one["finished"] else []))
                assert (one["num_scored"], one["num_tokens"]) == (len(ids), len(ids) - one["finished"])
                with torch.no_grad():
                    wanted = [float(oracles.differentiable_logp(model, prompt, ids)) for model in (author, exact[1])]
                assert [one["logps"], one["reference_logps"]] == pytest.approx(wanted, rel=1e-5)


def test_what_is_kept_is_neither_drawn_nor_scored_again(tiny_model, tmp_path):
    config = _settings(tiny_model)
    loaded = disturb(load(config))
    first = _drawn(loaded, config, tmp_path)
    again = disturb(load(config))
    lines = {name: (tmp_path / name).read_text() for name in ("answers.jsonl", "kept.jsonl")}
    assert _drawn(again, config, tmp_path) == first
    assert {name: (tmp_path / name).read_text() for name in lines} == lines
    # A torn last line costs that line alone.
    (tmp_path / "kept.jsonl").write_text(lines["kept.jsonl"][:-9])
    assert _drawn(again, config, tmp_path) == first


def test_what_another_layout_or_dtype_scored_is_scored_again(tiny_model, tmp_path):
    config = _settings(tiny_model)
    loaded = disturb(load(config))
    _drawn(loaded, config, tmp_path)
    plain = PlainScorer(
        loaded.policy.network, pad_id=loaded.policy.pad_id, device=loaded.policy.device, dtype=loaded.policy.dtype
    )
    for changed in ({"scorer": plain}, {"dtype": torch.bfloat16}):
        size = (tmp_path / "kept.jsonl").stat().st_size
        _drawn(replace(loaded, policy=replace(loaded.policy, **changed)), config, tmp_path)
        assert (tmp_path / "kept.jsonl").stat().st_size > size


def test_nothing_is_drawn_where_nothing_is_asked(tiny_model, tmp_path):
    for more in ({"evaluation__num_draws": 0}, {"evaluation__drawn_prompts": 0}):
        config = _settings(tiny_model, **more)
        assert _drawn(load(config), config, tmp_path) == []


def test_kl_of_own_draws_is_what_all_answers_together_give(tiny_model, tmp_path):
    """With one token to say the KL is a sum over the vocabulary: the mean over many draws comes near it."""
    config = _settings(tiny_model, "none", evaluation__num_draws=64, evaluation__max_new_tokens=1)
    loaded = disturb(load(config), 0.05)
    [row] = _drawn(loaded, config, tmp_path, PAIRS[:1])
    drawn = [one for one in row["after"] if one["num_scored"]]
    kl = sum(one["logps"] - one["reference_logps"] for one in drawn) / len(drawn)
    prompt = torch.tensor([loaded.policy.renderer(config.data).prompt(PAIRS[0].prompt)])
    with torch.no_grad(), loaded.reference.model() as frozen:
        use_plain_attention(loaded.policy.network)
        use_plain_attention(frozen.network)
        own, base = (model.network(prompt).logits[0, -1].double().log_softmax(0) for model in (loaded.policy, frozen))
    ratio = own - base
    exact, spread = float((own.exp() * ratio).sum()), float((own.exp() * ratio**2).sum())
    assert exact > 0
    assert kl == pytest.approx(exact, abs=4 * math.sqrt(spread / len(drawn)))
