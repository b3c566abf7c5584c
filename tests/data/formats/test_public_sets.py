"""Rows as public data sets have them: the better completion is chosen, whatever names it."""

from __future__ import annotations

import json

import pytest

from tiebreak.data.asking import read_prompts
from tiebreak.data.whole import read_pairs


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def part(text):
    return [{"type": "text", "text": text, "image": None}]


GOOD, BAD = "The good one.", "The bad one."
SIDES = {"chosen": [user("Why?"), assistant(GOOD)], "rejected": [user("Why?"), assistant(BAD)]}
SETS = {
    "PKU-SafeRLHF": (
        [{"prompt": "Why?", "response_0": BAD, "response_1": GOOD, "is_response_0_safe": True, "better_response_id": 1,
          "safer_response_id": 0}], "votes",
    ),
    "summarize_from_feedback": (
        [{"info": {"id": "t3", "post": "Why?", "title": "", "subreddit": None}, "batch": "7", "worker": "w1",
          "summaries": [{"text": BAD, "policy": "sup4"}, {"text": GOOD, "policy": "ref"}], "choice": 1, "extra": {}}],
        "summaries",
    ),
    "SHP": ([{"history": "Why?", "human_ref_A": BAD, "human_ref_B": GOOD, "labels": 0, "score_A": 9}], "columns"),
    "HelpSteer2": (
        [{"prompt": "Why?", "response": BAD, "helpfulness": 1, "verbosity": 4},
         {"prompt": "Why?", "response": GOOD, "helpfulness": 4, "verbosity": 1}], "rated",
    ),
    "HelpSteer2 preferences": (
        [{"prompt": "Why?", "response_1": GOOD, "response_2": BAD, "preference_strength": -2, "split": "train"}],
        "helpsteer",
    ),
    "HelpSteer3": (
        [{"domain": "general", "context": [user("Why?")], "response1": BAD, "response2": GOOD, "overall_preference": 3,
          "individual_preference": [{"score": 3, "reasoning": "x"}, {"score": 1}]}], "helpsteer",
    ),
    "LMSYS arena, conversations": (
        [{"model_a": "x", "model_b": "y", "winner": "model_b", "turn": 1,
          "conversation_a": [user("Why?"), assistant(BAD)], "conversation_b": [user("Why?"), assistant(GOOD)]}],
        "arena",
    ),
    "LMSYS arena, 140k": (
        [{"model_a": "x", "model_b": "y", "winner": "y", "conversation_a": [user(part("Why?")), assistant(part(BAD))],
          "conversation_b": [user(part("Why?")), assistant(part(GOOD))]}], "arena",
    ),
    "LMSYS arena, 55k": (
        [{"id": 1, "model_a": "x", "model_b": "y", "prompt": '["Hi", "Why?"]',
          "response_a": json.dumps(["Hello", BAD]), "response_b": json.dumps(["Hello", GOOD]),
          "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}], "arena_rounds",
    ),
    "Nectar": (
        [{"prompt": "\n\nHuman: Why?\n\nAssistant: ", "turns": 1, "good_natured": True,
          "answers": [{"answer": BAD, "model": "x", "rank": 5.0}, {"answer": GOOD, "model": "y", "rank": 1.0}]}],
        "ranking",
    ),
    "NeMo RL": (
        [{"context": [user("Why?")], "task_name": "x", "completions": [
            {"rank": 1, "completion": [assistant(BAD)]}, {"rank": 0, "completion": [assistant(GOOD)]}]}], "ranking",
    ),
    "OASST2 trees": (
        [{"message_tree_id": "1", "tree_state": "ready", "prompt": {
            "text": "Why?", "role": "prompter", "lang": "en", "replies": [
                {"text": BAD, "role": "assistant", "rank": 1, "replies": []},
                {"text": "Unranked.", "role": "assistant", "rank": None, "replies": []},
                {"text": GOOD, "role": "assistant", "rank": 0, "replies": [
                    {"text": "Thanks", "role": "prompter", "replies": []}]}]}}], "oasst",
    ),
    "Tülu 3": ([{"id": "1", "prompt": "Why?", "source": "x", **SIDES, "chosen_rating": 4.5}], "trl"),
    "Skywork": ([{**SIDES, "source": "x"}], "trl"),
    "UltraFeedback, binarized": (
        [{"prompt": "Why?", "prompt_id": "x", **SIDES, "messages": SIDES["chosen"], "score_chosen": 8.0,
          "score_rejected": 3.0}], "trl",
    ),
    "orca pairs": ([{"system": "", "question": "Why?", "chosen": GOOD, "rejected": BAD}], "columns"),
    "orca pairs of distilabel": (
        [{"system": "", "input": "Why?", "chosen": GOOD, "rejected": BAD, "generations": [GOOD, BAD], "rating": [9, 1],
          "labelling_prompt": [user("Judge.")], "status": "unchanged"}], "columns",
    ),
    "PRISM": (
        [{"conversation_id": "c1", "user_id": "u1", "system_string": "", "conversation_history": [
            {"turn": 0, "role": "user", "content": "Why?"},
            {"turn": 0, "role": "model", "content": BAD, "score": 10, "if_chosen": False},
            {"turn": 0, "role": "model", "content": GOOD, "score": 80, "if_chosen": True}]}], "prism",
    ),
    "WebGPT": (
        [{"question": {"full_text": "Why?", "id": "1"}, "quotes_0": {"title": ["t"]}, "answer_0": BAD, "answer_1": GOOD,
          "score_0": -0.5, "score_1": 0.5}], "scored_sides",
    ),
    "AlpacaFarm": ([{"instruction": "Why?", "input": "", "output_1": GOOD, "output_2": BAD, "preference": 1}], "votes"),
    "UltraInteract": (
        [{"task": "code", "trajectory": [{"from": "user", "value": "Why?"}], "chosen": GOOD, "rejected": BAD}],
        "columns",
    ),
    "one word for the better side": (
        [{"prompt": "Why?", "response_1": BAD, "response_2": GOOD, "verdict": "Response 2 is slightly better"}],
        "votes",
    ),
}  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    def save(rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return save


@pytest.mark.parametrize(("rows", "form"), SETS.values(), ids=SETS)
def test_the_better_completion_of_a_public_set_is_chosen(saved, rows, form):
    found = read_pairs(saved(rows))
    (pair,) = found.pairs
    assert found.format == form
    assert (pair.chosen.content, pair.rejected.content) == (GOOD, BAD)
    assert pair.prompt[-1].content in ("Why?", "POST: Why?\n\nTL;DR:")


@pytest.mark.parametrize("rows", [rows for rows, _ in SETS.values()], ids=SETS)
def test_a_public_set_asks_what_its_pairs_answer(saved, rows):
    path = saved(rows)
    found = read_prompts(str(path))
    assert {one.prompt_id for one in found.asked} == {pair.prompt_id for pair in read_pairs(path).pairs}
    assert found.num_answered >= 1
    assert found.dropped == ()


def test_the_steps_before_the_step_that_differs_are_part_of_both_completions(saved):
    row = {"prompt": "Why?", "initial_reason_steps": "Step 1: think.\nStep 2:", "chosen": " good", "rejected": " bad"}
    (pair,) = read_pairs(saved([row | {"full_chosen": "good, and so on", "answer": "7"}])).pairs
    assert pair.chosen.content == "Step 1: think.\nStep 2: good"
    assert pair.rejected.content == "Step 1: think.\nStep 2: bad"
    assert pair.prompt[-1].content == "Why?"


def test_each_ranked_turn_of_a_tree_is_a_prompt_with_what_was_said_before_it(saved):
    def reply(text, rank, *replies, role="assistant"):
        return {"text": text, "role": role, "rank": rank, "replies": list(replies)}

    deeper = reply("And then?", None, reply("Late bad", 3), reply("Late good", 0), role="prompter")
    tree = reply("Why?", None, reply(GOOD, 0, deeper), reply(BAD, 2), role="prompter")
    first, second = read_pairs(saved([{"message_tree_id": "1", "prompt": tree}])).pairs
    assert [message.content for message in first.prompt] == ["Why?"]
    assert [message.content for message in second.prompt] == ["Why?", GOOD, "And then?"]
    assert (second.chosen.content, second.rejected.content) == ("Late good", "Late bad")


def test_a_conversation_of_prism_goes_on_with_what_its_user_chose_and_ends_where_that_is_not_known(saved):
    def said(turn, text, score, chosen):
        return {"turn": turn, "role": "model", "content": text, "score": score, "if_chosen": chosen}

    turns = [
        {"turn": 0, "role": "user", "content": "Why?"}, said(0, "Worse, but kept", 10, True),
        said(0, "Better", 60, False),
        {"turn": 1, "role": "user", "content": "More"}, said(1, "Good", 9, False), said(1, "Bad", 2, False),
        {"turn": 2, "role": "user", "content": "Lost"}, said(2, "Good", 9, True), said(2, "Bad", 2, False),
    ]  # fmt: skip
    first, second = read_pairs(saved([{"conversation_history": turns}])).pairs
    assert (first.chosen.content, first.preference.margin) == ("Better", 50.0)
    assert [message.content for message in second.prompt] == ["Why?", "Worse, but kept", "More"]


@pytest.mark.parametrize(("pairing", "wanted"), [("best_worst", [("a", "d")]), ("all", None)])
def test_scored_rows_of_a_prompt_are_paired_wherever_they_stand_and_all_are_accounted_for(saved, pairing, wanted):
    from tiebreak.data.formats import Pairing

    rows = [
        {"prompt": "Why?", "response": text, "score": score} for text, score in zip("abcd", (9, 5, 5, 1), strict=True)
    ]
    rows.insert(2, {"prompt": "Alone?", "response": "x", "score": 3})
    found = read_pairs(saved(rows), pairing=Pairing(pairing))
    told = [(pair.chosen.content, pair.rejected.content) for pair in found.pairs]
    assert told == wanted if wanted else len(told) == 5
    in_pairs = {text for pair in told for text in pair}
    assert {item.source.line for item in found.dropped} == {
        line for line, row in enumerate(rows, 1) if row["response"] not in in_pairs
    }
    assert set(found.reasons) == {"unpaired"}
    assert sum(pair.preference.weight for pair in found.pairs) == pytest.approx(1.0)
