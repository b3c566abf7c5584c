from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tiebreak.config import SAMPLED, SIGNALS, SignalsConfig
from tiebreak.engine.answers.answerer import Chat, Sampling
from tiebreak.evaluation.allowance import Allowance
from tiebreak.evaluation.looking import Looks
from tiebreak.evaluation.repetition import is_looping, looping
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.objectives import Objective
from tiebreak.records import Message, Pair
from tiebreak.runs import Run
from tiny import cut_off, disturb, load, recorded, run, same, settings, token_pairs, weights

PAIRS = token_pairs(13)
JUDGED = [
    Pair((Message("user", text),), Message("assistant", "yes"), Message("assistant", "no"))
    for text in ("the cat sat", "a dog ran in the park", "the user")
]
ANY = SignalsConfig(looks=3, prompts=2, max_new_tokens=6, most_share=None)
OFTEN = {"training.pairs_per_step": 3}
KL = {f"{SAMPLED}{key}" for key in ("kl", "kl_k3", "kl_token", "kl_k3_token")}


def _looks(loaded, folder, signals=ANY, total=5, **more):
    return Looks(
        Run(folder), loaded.policy, loaded.reference, JUDGED, signals,
        total=total, seed=3, cut=loaded.budget.cut, **more,
    )  # fmt: skip


def _one(loaded, folder, signals=ANY):
    """The row of a single look, and what it kept."""
    looks, at = _looks(loaded, folder, signals), 2
    folder.mkdir(exist_ok=True)
    assert looks.due(at)
    row = looks.look(at, Objective.of(settings("none").loss)).row
    return dict(row), Run(folder).rows(folder / "looks" / "step-000002.jsonl")


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_a_run_with_looks_has_the_weights_of_one_without(tiny_model, tmp_path, adapter):
    found = []
    more = {"adapter.dropout": 0.2} if adapter == "lora" else {}
    for name in ("with", "without"):
        config = settings(tiny_model, adapter, **OFTEN, **more)
        loaded = load(config)
        watchers = [_looks(loaded, tmp_path / name)] if name == "with" else []
        ran = run(config, PAIRS, tmp_path / name, loaded=loaded, watchers=watchers)
        timed = ("second", "memory")
        rows = [{key: row[key] for key in row if not any(one in key for one in timed)} for row in ran.rows()]
        found.append((weights(loaded.policy.network), rows, torch.get_rng_state()))
    assert same(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert torch.equal(found[0][2], found[1][2])
    looked = [row["step"] for row in recorded(tmp_path / "with") if f"{SAMPLED}num_tokens" in row]
    assert looked == [2, 3, 5]
    assert sorted(path.name for path in (tmp_path / "with" / "looks").iterdir()) == [
        f"step-{step:06}.jsonl" for step in looked
    ]


def test_a_look_equals_the_float64_oracle(tiny_model, tmp_path):
    config = settings(tiny_model, "none")
    loaded = disturb(load(config))
    exact = [AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval() for _ in range(2)]
    exact[0].load_state_dict(loaded.policy.network.state_dict())
    row, kept = _one(loaded, tmp_path / "run", ANY.model_copy(update={"kl": "on"}))
    renderer, [eos] = loaded.policy.renderer(config.data), loaded.policy.eos_ids
    chosen = sorted(JUDGED, key=lambda pair: pair.prompt_id)[:2]
    sampling = Sampling(6, 1.0, 1, derive_seed(3, "looks"))
    answers = loaded.policy.answer([Chat(pair.prompt) for pair in chosen], sampling)
    assert [one.text for one in answers] == [one["text"] for one in kept]
    by_prompt = {pair.prompt_id: renderer.prompt(pair.prompt) for pair in JUDGED}
    sums, k3, entropies, num = [], [], [], 0
    for one, answer in zip(kept, answers, strict=True):
        assert len(answer.ids) == one["num_tokens"]
        scored = (*answer.ids, eos) if one["finished"] else answer.ids
        told = []
        for model in exact:
            with torch.no_grad():
                said = model(torch.tensor([[*by_prompt[one["prompt_id"]], *scored]])).logits[0].log_softmax(-1)
            told.append(said[-len(scored) - 1 : -1])
        ours, theirs = (table[range(len(scored)), list(scored)].numpy() for table in told)
        assert one["logps"] == pytest.approx(ours.sum(), rel=1e-5)
        assert one["reference_logps"] == pytest.approx(theirs.sum(), rel=1e-5)
        sums.append((ours - theirs).sum())
        k3.append((np.exp(theirs - ours) - 1 + ours - theirs).sum())
        entropies += (-(told[0].exp() * told[0]).sum(-1)).tolist()
        num += len(scored)
        assert one["looping"] == is_looping(one["text"])
    texts = [one["text"] for one in kept]
    assert row[f"{SAMPLED}kl"] == pytest.approx(np.mean(sums), abs=1e-4)
    assert row[f"{SAMPLED}kl_k3"] == pytest.approx(np.mean(k3), abs=1e-4)
    assert row[f"{SAMPLED}kl_token"] == pytest.approx(sum(sums) / num, abs=1e-4)
    assert row[f"{SAMPLED}kl_k3_token"] == pytest.approx(sum(k3) / num, abs=1e-4)
    assert row[f"{SAMPLED}entropy"] == pytest.approx(np.mean(entropies), rel=1e-5)
    assert row[f"{SAMPLED}num_tokens"] == np.mean([one["num_tokens"] for one in kept])
    assert row[f"{SAMPLED}eos_rate"] == np.mean([one["finished"] for one in kept])
    assert row[f"{SAMPLED}repetition"] == pytest.approx(np.mean([looping(text) for text in texts]))


def test_a_policy_that_has_not_moved_is_no_nat_from_its_start(tiny_model, tmp_path):
    row, _ = _one(load(settings(tiny_model)), tmp_path / "run")
    assert {key for key in row if key in KL} == KL
    assert all(abs(row[key]) < 1e-5 for key in KL)
    before = {key for key in row if key.startswith(f"{SAMPLED}before/")}
    assert {f"{SAMPLED}before/num_tokens", f"{SAMPLED}before/entropy"} <= before
    for key in before:
        assert row[key] == pytest.approx(row[key.replace("before/", "")], rel=1e-6)


def test_every_number_of_a_look_is_a_signal_with_a_meaning(tiny_model, tmp_path):
    row, _ = _one(load(settings(tiny_model)), tmp_path / "run")
    assert {key for key in row if "before/" not in key} <= set(SIGNALS)


@pytest.mark.parametrize(
    ("adapter", "changes", "has_kl"),
    [
        ("lora", {}, True),
        ("none", {}, False),
        ("none", {"kl": "on"}, True),
        ("lora", {"kl": "off"}, False),
        ("lora", {"temperature": 0.7}, False),
    ],
)
def test_kl_is_there_where_the_start_costs_no_weights_and_the_answers_are_the_policys(
    tiny_model, tmp_path, adapter, changes, has_kl
):
    row, kept = _one(load(settings(tiny_model, adapter)), tmp_path / "run", ANY.model_copy(update=changes))
    assert {key for key in row if key in KL} == (KL if has_kl else set())
    assert all((one["reference_logps"] is not None) == has_kl for one in kept)


def test_broken_weights_leave_numbers_out_and_stop_nothing(tiny_model, tmp_path):
    loaded = load(settings(tiny_model))
    with torch.no_grad():
        for _, parameter in loaded.policy.trainable:
            parameter.fill_(math.nan)
    row, kept = _one(loaded, tmp_path / "run")
    json.dumps(row, allow_nan=False)
    assert not KL & set(row)
    assert [one["logps"] for one in kept] == [None, None]


def test_a_run_that_was_cut_off_looks_again_at_what_it_takes_again(tiny_model, tmp_path):
    config = settings(tiny_model, **OFTEN, **{"training.checkpoint_steps": 1})

    def watched(name, last=None):
        loaded = load(config)
        watchers = [_looks(loaded, tmp_path / name)]
        if last:
            cut_off(config, PAIRS, tmp_path / name, last, loaded=loaded, watchers=watchers)
        else:
            run(config, PAIRS, tmp_path / name, loaded=loaded, watchers=watchers)

    watched("whole")
    watched("cut", 4)
    (tmp_path / "cut" / "looks" / "step-000009.jsonl").write_text("of an attempt that got further\n")
    copy = tmp_path / "cut" / "looks" / "step-000002 2.jsonl"
    copy.write_text("a person's\n")
    watched("cut")
    copy.unlink()
    rows = [
        [
            {key: one for key, one in row.items() if "second" not in key and "memory" not in key}
            for row in recorded(path)
        ]
        for path in (tmp_path / "whole", tmp_path / "cut")
    ]
    assert rows[0] == rows[1]
    looks = [{one.name: one.read_bytes() for one in (tmp_path / name / "looks").iterdir()} for name in ("whole", "cut")]
    assert looks[0] == looks[1]
    Run(tmp_path / "cut").verify()
    (tmp_path / "cut" / "looks" / "step-000002.jsonl").write_text("changed\n")
    with pytest.raises(Exception, match=r"looks/step-000002\.jsonl: is not what was written"):
        Run(tmp_path / "cut").verify()


class _Clock:
    """A clock that shows what it is told; steps and answers take their time by it."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def _timed(tiny_model, folder, a_step, a_token, signals, total=100):
    """A run of steps by the clock, answers of so many seconds a token: what was looked at, and the share of time."""
    loaded, clock = load(settings(tiny_model)), _Clock()
    allowance = Allowance(signals.most_share, clock)
    looks = _looks(loaded, folder, signals, total=total, allowance=allowance)
    folder.mkdir()

    def slowly(module, _):
        clock.now += a_token

    hook = loaded.policy.network.get_input_embeddings().register_forward_pre_hook(slowly)  # of every pass
    taken, shares = [], []
    looks.due(0)
    for step in range(1, total + 1):
        clock.now += a_step
        if looks.due(step) and looks.look(step, Objective.of(settings("none").loss)).row:
            taken.append(step)
        shares.append(allowance.spent / allowance.others)
    hook.remove()
    return taken, shares, looks.told()


def test_looks_are_in_the_order_of_their_steps_however_many_there_are(tiny_model, tmp_path):
    (tmp_path / "looks").mkdir()
    for step in (900_000, 999_999, 1_000_000, 1_200_000):
        (tmp_path / "looks" / f"step-{step:06}.jsonl").write_text("")
    _looks(load(settings(tiny_model)), tmp_path, total=2_000_000).due(1_000_000)
    assert {path.name for path in (tmp_path / "looks").iterdir()} == {"step-900000.jsonl", "step-999999.jsonl"}


@pytest.mark.parametrize("a_token", [0.001, 0.01, 0.1, 1.0])
def test_looks_take_no_more_than_their_share_however_slow_answers_are(tiny_model, tmp_path, a_token):
    signals = ANY.model_copy(update={"looks": 10, "most_share": 0.1})
    taken, shares, told = _timed(tiny_model, tmp_path / "run", 1.0, a_token, signals)
    assert max(shares) <= 0.1 + 1e-9
    assert len(taken) == 10 or a_token > 0.01
    assert bool(taken) == (a_token < 1)  # one pass of the network takes as long as a whole step
    assert f"{len(taken)} looks" in told
    assert ("were left out" in told) == (len(taken) < 10)
