"""Answers and verdicts to pairs: guards, equal texts, missing verdicts, accounts, and files that read back."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest

from tiebreak.config import DataConfig, PairingConfig, RuleConfig
from tiebreak.data.whole import read_pairs
from tiebreak.doctor.examination import audit
from tiebreak.engine.answers.answerer import Answer, Chat
from tiebreak.errors import RunError
from tiebreak.files import read_jsonl, write_jsonl
from tiebreak.maths.pairing import PAIRINGS, rates_of_wins
from tiebreak.records import Message
from tiebreak.stations.couples import GUARDS, OUTCOMES, Account, couple
from tiebreak.stations.rows import Answered, Verdict

LOOP = "and then we went on and " * 30
BEST_WORST = PairingConfig()


def asked(*texts, prompt="Why is the sky blue?", cut=()):
    answers = tuple(Answer(text, (1,), text not in cut) for text in texts)
    return Answered(Chat((Message("user", prompt),)), answers)


def said(answered, *scores, **more):
    return Verdict(answered.prompt_id, tuple(scores), **more)


def coupled(answered, verdict, settings=BEST_WORST, guards=(), seed=0):
    return couple([answered], [verdict], settings, guards, name="round-01", seed=seed)


def sides(found):
    return [(pair.chosen.content, pair.rejected.content) for pair in found.pairs]


def outcome(found):
    (name,) = [name for name, num in found.account.prompts.items() if num]
    return name


def test_a_pair_says_its_scores_its_margin_and_its_round():
    answered = asked("one", "two", "three")
    found = coupled(answered, said(answered, 1.0, 4.0, 2.5))
    (pair,) = found.pairs
    assert sides(found) == [("two", "one")]
    assert pair.as_dict()["preference"] == {"chosen_score": 4.0, "rejected_score": 1.0, "margin": 3.0}
    assert pair.as_dict()["origin"] == {"dataset": "round-01"}
    assert pair.prompt_id == answered.prompt_id
    assert pair.split_key == answered.prompt_id
    assert outcome(found) == "paired"


def test_sppo_states_the_rates_of_both_sides_from_scores_or_from_comparisons():
    sppo = PairingConfig(rule="sppo")
    answered = asked("one", "two", "three")
    (pair,) = coupled(answered, said(answered, 1.0, 4.0, 2.5), sppo).pairs
    assert (pair.preference.chosen_win_rate, pair.preference.rejected_win_rate) == (1.0, 0.0)
    assert (pair.preference.chosen_score, pair.preference.margin) == (4.0, 3.0)
    wins = ((None, 0.75, 0.25), (None, None, 0.875), (None, None, None))
    rates = tuple(rates_of_wins(wins))
    found = coupled(answered, said(answered, *rates, rates=rates, wins=wins, num_compared=3), sppo)
    assert sides(found) == [("two", "three")]
    assert found.pairs[0].as_dict()["preference"] == {
        "chosen_win_rate": (0.25 + 0.875) / 2,
        "rejected_win_rate": (0.75 + 0.125) / 2,
        "soft_label": 0.875,
    }


def test_rates_are_against_the_samples_of_the_policy_those_that_a_guard_held_back_and_repeated_ones_too():
    answered = asked("good", "good", "bad", "cut off", cut=["cut off"])
    found = coupled(answered, said(answered, 2.0, 2.0, 1.0, 3.0), PairingConfig(rule="sppo"), ["finished"])
    (pair,) = found.pairs
    assert (pair.preference.chosen_win_rate, pair.preference.rejected_win_rate) == (1.5 / 3, 0.0)


def test_a_soft_label_is_stated_where_it_is_for_chosen_and_the_others_are_counted():
    answered = asked("one", "two", "three")
    wins = ((None, 0.4, 1.0), (None, None, 0.5), (None, None, None))
    rates = tuple(rates_of_wins(wins))
    assert rates == (0.7, 0.55, 0.25)
    found = coupled(answered, said(answered, *rates, rates=rates, wins=wins), PairingConfig(rule="all"))
    labels = {(pair.chosen.content, pair.rejected.content): pair.preference.soft_label for pair in found.pairs}
    assert labels == {("one", "two"): None, ("one", "three"): 1.0, ("two", "three"): None}
    assert found.account.num_contradicted == 1


def test_a_soft_label_of_repeated_texts_is_the_mean_of_their_comparisons():
    answered = asked("one", "one", "two")
    wins = ((None, 0.5, 1.0), (None, None, 0.5), (None, None, None))
    (pair,) = coupled(answered, said(answered, 0.75, 0.5, 0.25, wins=wins)).pairs
    assert pair.preference.soft_label == 0.75
    assert pair.preference.chosen_score == 0.625


def test_equal_texts_are_one_candidate_with_the_mean_of_their_scores():
    answered = asked("one", "two", "one", "two", "three")
    found = coupled(answered, said(answered, 1.0, 2.0, 5.0, 2.0, 2.5))
    assert sides(found) == [("one", "two")]
    assert found.pairs[0].preference.chosen_score == 3.0
    assert found.account.answers == {"candidates": 3, "unjudged": 0, "repeat": 2}
    # Three times 0.1 is still 0.1: no pair of what is equal.
    answered = asked("one", "one", "one", "two")
    assert outcome(coupled(answered, said(answered, 0.1, 0.1, 0.1, 0.1))) == "all_equal"


def test_a_text_is_judged_where_one_of_its_answers_is():
    answered = asked("one", "one", "two")
    found = coupled(answered, said(answered, None, 1.0, 2.0))
    assert sides(found) == [("two", "one")]
    assert found.account.answers == {"candidates": 2, "unjudged": 0, "repeat": 1}


def test_a_text_that_was_once_cut_off_and_once_finished_is_a_candidate():
    answered = Answered(
        Chat((Message("user", "Why?"),)),
        (Answer("one", (1, 2), False), Answer("one", (3,), True), Answer("two", (4,), True)),
    )
    found = coupled(answered, said(answered, 1.0, 1.0, 2.0), guards=["finished"])
    assert sides(found) == [("two", "one")]
    assert found.account.disqualified == {"finished": 1}


def test_guards_hold_answers_back_and_are_counted_by_the_first_that_does():
    answered = asked("yes: one", "yes: cut", LOOP, "no", "yes: two", "", " \n", cut=["yes: cut", LOOP])
    guards = ["finished", "no_repetition", RuleConfig(name="says yes", pattern="^yes")]
    found = coupled(answered, said(answered, 1.0, 9.0, 8.0, 7.0, 2.0, 6.0, 5.0), guards=guards)
    assert sides(found) == [("yes: two", "yes: one")]
    held = {"finished": 2, "no_repetition": 0, "says yes": 1, "empty_completion": 2}
    assert found.account.disqualified == held
    found = coupled(answered, said(answered, 1.0, 9.0, 8.0, 7.0, 2.0, 6.0, 5.0), guards=["no_repetition"])
    assert found.account.disqualified == {"no_repetition": 1, "empty_completion": 2}
    assert sides(found) == [("yes: cut", "yes: one")]


def test_what_a_file_of_pairs_may_not_hold_is_no_candidate():
    written = json.dumps([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}])
    answered = asked("one", "half \ud800", written, "two")
    found = coupled(answered, said(answered, 1.0, 9.0, 8.0, 2.0))
    assert sides(found) == [("two", "one")]
    assert found.account.disqualified == {"bad_unicode": 1, "wrong_type": 1}


@pytest.mark.parametrize(
    ("texts", "scores", "cut", "wanted"),
    [
        (["a", "b"], [1.0, 2.0], [], "paired"),
        (["a", "b"], [1.0, 1.25], [], "tied"),
        (["a", "b"], [1.0, 1.0], [], "all_equal"),
        (["a", "b", "c"], [1.0, None, None], [], "unjudged"),
        (["a", "b"], [1.0, math.nan], [], "unjudged"),
        (["a", "b"], [None, None], [], "unjudged"),
        (["a", "b", "c"], [1.0, 2.0, 3.0], ["a", "b"], "guarded"),
        (["a", ""], [1.0, 2.0], [], "guarded"),
        (["a", "a"], [1.0, 2.0], [], "alone"),
        (["a"], [1.0], [], "alone"),
        ([], [], [], "alone"),
    ],
)
def test_a_prompt_without_a_pair_says_why(texts, scores, cut, wanted):
    answered = asked(*texts, cut=cut)
    found = coupled(answered, said(answered, *scores), PairingConfig(min_margin=0.5), ["finished"])
    assert outcome(found) == wanted
    assert bool(found.pairs) == (wanted == "paired")
    assert found.account.unusable_share == (0 if found.pairs else 1)


@pytest.mark.parametrize("rule", PAIRINGS)
def test_pairs_are_of_judged_candidates_alone_and_accounts_add_up(rule):
    draw = random.Random(1)
    texts = ["", "one", "two", "three", "four", "five", LOOP]
    prompts, verdicts = [], []
    for number in range(120):
        chosen = [draw.choice(texts) for _ in range(draw.randrange(7))]
        answered = asked(*chosen, prompt=f"Question {number}?", cut=["four"] * draw.randrange(2))
        kinds = [None, math.nan, 0.0, 1.0, 2.0, 3.0]
        prompts.append(answered)
        verdicts.append(said(answered, *(draw.choice(kinds) for _ in chosen)))
    settings = PairingConfig(rule=rule, min_margin=draw.choice([0.0, 0.5]), match="tournament")
    found = couple(prompts, verdicts, settings, GUARDS, name="round-02", seed=3)
    account = found.account
    assert sum(account.prompts.values()) == account.num_prompts == 120
    answers = sum(account.answers.values()) + sum(account.disqualified.values())
    assert answers == account.num_answers == sum(len(prompt.answers) for prompt in prompts)
    assert account.num_pairs == len(found.pairs)
    assert list(account.prompts) == list(OUTCOMES)
    assert json.loads(json.dumps(account.as_dict()))["prompts"] == dict(account.prompts)
    by_prompt = {prompt.prompt_id: (prompt, verdict) for prompt, verdict in zip(prompts, verdicts, strict=True)}
    weights = dict.fromkeys(by_prompt, 0.0)
    for pair in found.pairs:
        prompt, verdict = by_prompt[pair.prompt_id]
        weights[pair.prompt_id] += pair.preference.weight
        means = []
        for side in (pair.chosen, pair.rejected):
            scored = [
                score
                for answer, score in zip(prompt.answers, verdict.scores, strict=True)
                if answer.text == side.content and score is not None and not math.isnan(score)
            ]
            assert any(answer.finished for answer in prompt.answers if answer.text == side.content)
            means.append(sum(scored) / len(scored))
        assert side.content.strip()
        assert side.content != LOOP
        assert means[0] > means[1]
        assert pair.chosen != pair.rejected
    used = [weight for weight in weights.values() if weight]
    assert used == pytest.approx([1.0] * account.prompts["paired"])
    order = {prompt_id: number for number, prompt_id in enumerate(by_prompt)}
    assert [order[pair.prompt_id] for pair in found.pairs] == sorted(order[pair.prompt_id] for pair in found.pairs)


@pytest.mark.parametrize("rule", PAIRINGS)
def test_pairs_hang_on_their_prompt_the_seed_and_the_round_alone(rule):
    prompts = [asked(*(f"answer {n}" for n in range(9)), prompt=f"Question {number}?") for number in range(30)]
    verdicts = [said(prompt, *map(float, range(9))) for prompt in prompts]
    settings = PairingConfig(rule=rule)

    def made(some, seed=5, name="round-01"):
        pairs = couple(prompts[some], verdicts[some], settings, GUARDS, name=name, seed=seed).pairs
        return [replace(pair, origin=pairs[0].origin) for pair in pairs], [pair.as_dict() for pair in pairs]

    everything = slice(0, 30)
    assert made(everything)[1] == made(everything)[1]
    assert made(slice(0, 11))[1] + made(slice(11, 30))[1] == made(everything)[1]
    is_drawn = rule in ("rso", "best_random")
    others = [made(everything, seed=6), made(everything, name="round-02")]
    ids = [[pair.pair_id for pair in one[0]] for one in (made(everything), *others)]
    assert [one != ids[0] for one in ids[1:]] == [is_drawn, is_drawn]


def test_verdicts_of_other_answers_are_refused():
    answered, other = asked("one", "two"), asked("one", "two", prompt="How?")
    with pytest.raises(RunError, match="round-01: 0 verdicts of 1 prompts; judge the answers again"):
        couple([answered], [], BEST_WORST, (), name="round-01", seed=0)
    for verdict in (
        said(other, 1.0, 2.0),
        said(answered, 1.0),
        said(answered, 1.0, 2.0, rates=(0.5,)),
        said(answered, 1.0, 2.0, wins=((None, 1.0), (0.0,))),
    ):
        with pytest.raises(
            RunError, match=r"round-01: the verdict of prompt \w{12} is not of the 2 answers"
        ) as refused:
            coupled(answered, verdict)
        assert "\n" not in str(refused.value)


def test_an_account_that_does_not_add_up_cannot_be_made():
    whole = {"candidates": 2, "unjudged": 0, "repeat": 0}
    assert Account(1, 2, 0, 0, {"tied": 1}, whole, {}).num_answers == 2
    with pytest.raises(ValueError, match="each prompt has one outcome"):
        Account(2, 2, 0, 0, {"tied": 1}, whole, {})
    with pytest.raises(ValueError, match="each answer has one outcome"):
        Account(1, 2, 0, 0, {"tied": 1}, whole, {"finished": 1})


def test_a_verdict_with_its_comparisons_is_read_back_as_it_was_and_an_older_row_has_none():
    verdict = Verdict("p", (0.5, None), ("silent: x",), (0.5, None), 1, 0, ((None, 0.5), (0.5, None)))
    row = json.loads(json.dumps(verdict.as_dict()))
    assert Verdict.from_dict(row) == verdict
    del row["wins"]
    assert Verdict.from_dict(row) == replace(verdict, wins=())


@pytest.mark.parametrize("rule", PAIRINGS)
def test_the_reader_reads_the_same_pairs_back_and_the_doctor_runs_over_them(rule, tmp_path):
    draw = random.Random(2)
    odd = ["<think>\nhm\n</think>\n\nYes.", " leading and trailing \n", "U+2028 \u2028 here", "{not: json}", '{"a": 1}',
           "[1, 2]", "emoji 😀", "tab\there", "a", "Assistant: no", "é"]  # fmt: skip
    tools = ({"type": "function", "function": {"name": "look", "parameters": {}}},)
    history = (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello"))
    prompts = []
    for number in range(25):
        answers = tuple(Answer(text, (), True) for text in [*odd, *(f"Answer {number}.{n}" for n in range(4))])
        chat = Chat(
            (*(history if number % 2 else ()), Message("user", f"Question {number}?")), tools if number % 3 else ()
        )
        prompts.append(Answered(chat, answers))
    verdicts = [said(prompt, *(draw.gauss(0, 1) for _ in prompt.answers)) for prompt in prompts]
    found = couple(prompts, verdicts, PairingConfig(rule=rule), (), name="round-01", seed=0)
    path = tmp_path / "pairs.jsonl"
    write_jsonl(path, (pair.as_dict() for pair in found.pairs))
    read = read_pairs(path)
    assert [replace(pair, source=None) for pair in read.pairs] == list(found.pairs)
    assert (read.format, read.dropped, read.num_ties) == ("tiebreak", (), 0)
    report = audit(DataConfig(train=str(path))).report
    assert "inverted_score" not in str(report)
    assert report.counts["num_pairs"] == len(found.pairs)


def test_the_rows_of_a_round_go_through_files_to_the_same_pairs(tmp_path):
    prompts = [asked("one", "two", LOOP, prompt=f"Question {number}?", cut=["two"]) for number in range(3)]
    verdicts = [said(prompt, 1.0, None, 0.5) for prompt in prompts]
    write_jsonl(tmp_path / "samples.jsonl", (prompt.as_dict() for prompt in prompts))
    write_jsonl(tmp_path / "verdicts.jsonl", (verdict.as_dict() for verdict in verdicts))
    again = [Answered.from_dict(row) for row in read_jsonl(tmp_path / "samples.jsonl")]
    heard = [Verdict.from_dict(row) for row in read_jsonl(tmp_path / "verdicts.jsonl")]
    wanted = couple(prompts, verdicts, BEST_WORST, (), name="round-01", seed=0)
    assert couple(again, heard, BEST_WORST, (), name="round-01", seed=0) == wanted
    assert wanted.account.prompts["paired"] == 3
