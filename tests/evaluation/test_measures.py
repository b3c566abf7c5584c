from __future__ import annotations

import json
import math

import pytest

from tiebreak.config import RuleConfig
from tiebreak.evaluation.heldout import Evidence
from tiebreak.evaluation.measures import draw_rows, rows, summarise
from tiebreak.evaluation.rows import Row
from tiebreak.maths.objectives import Objective
from tiny import settings


def _evidence(index, *, margin, prompt=None, chosen=(-10.0, -8.0), rejected=(-9.0, -9.0), tokens=(5, 5)):
    win = 0.5 if margin == 0 else float(margin > 0)
    return Evidence(
        pair_id=f"pair{index}",
        prompt_id=prompt or f"prompt{index}",
        loss=math.log1p(math.exp(-margin)),
        margin=margin,
        win=win,
        loss_at_start=math.log(2),
        margin_at_start=0.0,
        policy_chosen_logps=chosen[1],
        policy_rejected_logps=rejected[1],
        reference_chosen_logps=chosen[0],
        reference_rejected_logps=rejected[0],
        chosen_num_tokens=tokens[0],
        rejected_num_tokens=tokens[1],
    )


def _sample(index, before, after):
    keys = ("num_tokens", "finished", "matches_rule", "repetition", "looping")
    sides = {"before": dict(zip(keys, before, strict=True)), "after": dict(zip(keys, after, strict=True))}
    for name, side in sides.items():
        side["text"] = "the same" if before == after else name
    return {"prompt_id": f"prompt{index}"} | sides


def _table(summary):
    return {row["name"]: row for row in summary["table"]}


CONFIG = settings("any")


def _summary(evidence, samples, config):
    measured = rows(evidence, samples, Objective.of(config.loss), config.evaluation.rule)
    return summarise(measured, len(samples), config.gate, ["a fact"], config.training.seed)


def test_the_table_has_the_means_of_the_evidence_and_chance_before():
    margins = [0.5, -0.25, 0.0, 1.5, 0.75]
    summary = _summary([_evidence(i, margin=margin) for i, margin in enumerate(margins)], [], CONFIG)
    table = _table(summary)
    accuracy, margin, loss = (
        table[name] for name in ("Held-out preference accuracy", "Reward margin (chosen − rejected)", "DPO loss")
    )
    assert accuracy["after"]["mean"] == pytest.approx(3.5 / 5)
    assert margin["after"]["mean"] == pytest.approx(0.5)
    assert loss["after"]["mean"] == pytest.approx(sum(math.log1p(math.exp(-m)) for m in margins) / 5)
    for row, before in ((accuracy, 0.5), (margin, 0.0), (loss, math.log(2))):
        assert [row["before"][key] for key in ("mean", "low", "high")] == [before] * 3
        assert row["after"]["low"] <= row["after"]["mean"] <= row["after"]["high"]
    assert summary["accuracy"] == accuracy["after"]


def test_likelihood_is_compared_per_token_and_a_tie_is_one_half():
    evidence = [
        # Longer and less likely in sum, but likelier per token: −12/6 against −9/3.
        _evidence(0, margin=1.0, chosen=(-12.0, -12.0), rejected=(-9.0, -9.0), tokens=(6, 3)),
        _evidence(1, margin=1.0, chosen=(-12.0, -6.0), rejected=(-6.0, -3.0), tokens=(4, 2)),
        _evidence(2, margin=1.0, chosen=(-8.0, -4.0), rejected=(-6.0, -6.0), tokens=(4, 4)),
    ]
    row = _table(_summary(evidence, [], CONFIG))["Chosen likelier than rejected, per token"]
    assert row["before"]["mean"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert row["after"]["mean"] == pytest.approx((1 + 0.5 + 1) / 3)


def test_pairs_of_one_prompt_count_as_one_group():
    one_prompt = _summary([_evidence(i, margin=1.0, prompt=f"prompt{i % 19}") for i in range(60)], [], CONFIG)
    enough = _summary([_evidence(i, margin=1.0, prompt=f"prompt{i % 20}") for i in range(60)], [], CONFIG)
    assert (one_prompt["num_heldout_pairs"], one_prompt["num_heldout_prompts"]) == (60, 19)
    verdicts = [{check["name"]: check["verdict"] for check in found["checks"]} for found in (one_prompt, enough)]
    assert [verdict["accuracy"] for verdict in verdicts] == ["inconclusive", "pass"]


def test_answers_are_counted_where_there_are_any_and_the_rule_where_there_is_one():
    evidence = [_evidence(i, margin=1.0) for i in range(3)]
    samples = [
        _sample(0, (10, True, False, 0.0, False), (4, True, True, 0.5, True)),
        _sample(1, (20, False, False, 0.25, False), (6, True, True, 0.75, True)),
    ]
    named = CONFIG.model_copy(
        update={"evaluation": CONFIG.evaluation.model_copy(update={"rule": RuleConfig(name="short", pattern="x")})}
    )
    assert len(_table(_summary(evidence, [], named))) == 9
    plain, ruled = (_table(_summary(evidence, samples, config)) for config in (CONFIG, named))
    assert (plain["Tokens in an answer"]["before"]["mean"], plain["Tokens in an answer"]["after"]["mean"]) == (15, 5)
    cut = plain["Answers cut off at max_new_tokens"]
    assert (cut["before"]["mean"], cut["after"]["mean"]) == (0.5, 0.0)
    repeated, loops = plain["Share of an answer that repeats itself"], plain["Answers that go round in circles"]
    assert (repeated["before"]["mean"], repeated["after"]["mean"]) == (0.125, 0.625)
    assert (loops["before"]["mean"], loops["after"]["mean"]) == (0.0, 1.0)
    assert ruled.keys() - plain.keys() == {"Answers: short"}
    assert ruled["Answers: short"]["after"]["mean"] == 1.0


def test_what_the_chosen_side_lost_is_counted_per_token_and_unchanged_answers_are_counted():
    same = (10, True, False, 0.0, False)
    samples = [_sample(0, same, same), _sample(1, same, (11, True, False, 0.0, False))]
    evidence = [_evidence(i, margin=1.0, chosen=(-10.0, -30.0), tokens=(5, 5)) for i in range(2)]
    table = _table(_summary(evidence, samples, CONFIG))
    chosen = table["Log-probability of chosen, per token"]
    assert (chosen["before"]["mean"], chosen["after"]["mean"]) == (-2.0, -6.0)
    assert table["Answers that did not change"]["after"]["mean"] == 0.5


def test_a_measure_that_is_no_number_fails_by_name_and_can_be_written_down():
    evidence = [_evidence(i, margin=1.0) for i in range(40)]
    measured = rows(evidence, [], Objective.of(CONFIG.loss), None)
    spoilt = Row.of("kl", measured[0].prompts, [0.0] * 40, [math.nan] * 40)
    found = summarise([*measured, spoilt], 0, CONFIG.gate, [], 0)
    assert (found["verdict"], len(found["table"])) == ("fail", 9)
    assert "KL to the reference, per drawn answer: 40 of 40 values are not finite" in found["reason"]
    json.dumps(found, allow_nan=False)


def test_a_policy_that_wins_every_pair_by_losing_its_language_fails():
    evidence = [_evidence(i, margin=9.0, chosen=(-10.0, -50.0), rejected=(-9.0, -140.0)) for i in range(80)]
    dashes = [_sample(i, (40, True, True, 0.05, False), (64, False, True, 1.0, True)) for i in range(80)]
    found = _summary(evidence, dashes, CONFIG)
    assert found["accuracy"]["mean"] == 1.0
    assert found["verdict"] == "fail"
    failed = {check["name"] for check in found["checks"] if check["verdict"] == "fail"}
    assert failed == {"repetition", "unfinished", "chosen"}
    assert "the answers repeat themselves" in found["reason"]
    assert found["reason"].endswith("; a fact")


def test_the_same_evidence_gives_the_same_document_and_it_is_json():
    evidence = [_evidence(i, margin=math.sin(i)) for i in range(30)]
    one, two = (_summary(evidence, [], CONFIG) for _ in range(2))
    assert one == two
    assert json.loads(json.dumps(one, allow_nan=False)) == one


def test_displacement_and_the_error_of_the_preference_are_a_value_of_each_pair():
    evidence = [
        _evidence(0, margin=0.0, chosen=(-10.0, -10.0)),
        _evidence(1, margin=2.0, chosen=(-10.0, -12.0)),
        _evidence(2, margin=-2.0, chosen=(-10.0, -8.0)),
    ]
    found = {row.key: row for row in rows(evidence, [], Objective.of(CONFIG.loss), None)}
    assert (found["displaced"].before, found["displaced"].after) == ([0.0] * 3, [0.0, 1.0, 0.0])
    sure = 1 / (1 + math.exp(-2.0))
    assert found["calibration"].before == [0.25] * 3
    assert found["calibration"].after == pytest.approx([0.25, (1 - sure) ** 2, sure**2])
    assert found["rejected_logps"].after == pytest.approx([-9 / 5] * 3)


def _drawn(index, *sides):
    """A row of draws.jsonl; a side is a list of (text, tokens, logps, reference logps)."""
    keys = ("text", "num_scored", "logps", "reference_logps")
    told = [[dict(zip(keys, one, strict=True)) for one in side] for side in sides]
    return {"prompt_id": f"prompt{index}"} | dict(zip(("before", "after"), told, strict=True))


def test_kl_and_entropy_are_read_off_drawn_answers_and_only_where_they_were_drawn_at_one():
    draws = [
        _drawn(0, [("a", 4, -8.0, -8.0), ("b", 1, -2.0, -2.0)], [("c", 2, -1.0, -4.0), ("d", 4, -2.0, -1.0)]),
        _drawn(1, [("a", 2, -1.0, -1.0)], [("c", 5, -5.0, -10.0), ("", 0, None, None)]),
        _drawn(2, [("", 0, None, None)], [("c", 5, -5.0, -10.0)]),  # nothing was scored before: no prompt to compare
    ]
    found = {row.key: row for row in draw_rows(draws, 1.0)}
    assert found["kl"].prompts == ["prompt0", "prompt1"]
    assert found["kl"].after == pytest.approx([(3 - 1) / 2, 5.0])
    assert found["kl_token"].after == pytest.approx([2 / 6, 1.0])
    assert found["kl"].before == found["kl_token"].before == [0.0, 0.0]
    assert found["answers/entropy"].before == pytest.approx([10 / 5, 1 / 2])
    assert found["answers/entropy"].after == pytest.approx([3 / 6, 5 / 5])
    assert draw_rows(draws, 0.7) == []
    assert draw_rows([], 1.0) == []


def test_likeness_of_drawn_answers_is_taken_at_one_length_and_rises_where_they_are_the_same():
    different = [" ".join(f"{letter}{n}" for n in range(12)) for letter in "abc"]
    draws = [
        _drawn(i, [(t, 12, -1.0, -1.0) for t in different], [(different[0], 12, -1.0, -1.0)] * 3) for i in range(4)
    ]
    [row] = [row for row in draw_rows(draws, 1.0) if row.key == "answers/self_bleu"]
    assert row.after == pytest.approx([1.0] * 4)
    assert max(row.before) < 0.2
    short = [_drawn(0, [("one two", 2, -1.0, -1.0)] * 2, [("one two", 2, -1.0, -1.0)] * 2)]
    assert [row.key for row in draw_rows(short, 0.5)] == []  # two words are no sentence
