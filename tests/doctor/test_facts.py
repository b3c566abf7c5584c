"""The table of facts: what is in a row, that blocks and processes change nothing, that it stays small."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from dataclasses import fields

import numpy as np
import pytest

from tiebreak.data.split import is_heldout
from tiebreak.doctor.blocks import Growing, Names, merged
from tiebreak.doctor.facts import MAX_KEPT, Facts
from tiebreak.doctor.intake import facts_of
from tiebreak.doctor.texts import near
from tiebreak.doctor.texts.features import features_of
from tiebreak.doctor.texts.wordhashes import normalised, words
from tiebreak.records import Dropped, Message, Origin, Pair, Preference, Record, Source, Thumb, Vote


def pair(prompt="What?", chosen="This.", rejected="That.", line=1, file="a.jsonl", **given):
    given = {name: value for name, value in given.items() if value is not None}
    return Pair((Message("user", prompt),), Message("assistant", chosen), Message("assistant", rejected), **given)


def record(one, line=1, file="a.jsonl", num_ties=0):
    return Record(Source(file, line), (one,), num_ties=num_ties)


def drop(line, reason="bad_json", file="a.jsonl", votes=()):
    source = Source(file, line)
    return Record(
        source, dropped=Dropped(source, reason, "why", Preference(votes=votes)), num_ties=1 if reason == "tie" else 0
    )


def many(count, seed=0):
    """Records of every sort: several pairs, ties, dropped ones, votes, groups, flaws in the text."""
    chooser = random.Random(seed)
    words = [f"word{number}" for number in range(60)]
    found = []
    for line in range(1, count + 1):
        if line % 7 == 0:
            tie = line % 14 == 0
            votes = (Vote("chosen", "ann"), Vote("rejected", "bob")) if tie else ()
            found.append(drop(line, "tie" if tie else "bad_json", votes=votes))
            continue
        texts = [" ".join(chooser.choices(words, k=chooser.randrange(1, 30))) for _ in range(3)]
        texts[1] += " write to maria@uni-graz.at" if line % 5 == 0 else ""
        preference = Preference(
            chosen_score=2.0 if line % 2 else None,
            rejected_score=1.0 if line % 2 else None,
            margin=1.0 if line % 2 else None,
            votes=(Vote("chosen", f"a{line % 3}"), Vote("tie", "")) if line % 3 == 0 else (),
        )
        origin = Origin(split=["train", "test", None][line % 3], group=f"g{line % 4}" if line % 2 else None)
        one = pair(*texts, preference=preference, origin=origin)
        other = pair(texts[0], texts[2], texts[1])
        source = Source(["a.jsonl", "b.jsonl"][line % 2], line)
        found.append(Record(source, (one, other) if line % 11 == 0 else (one,), num_ties=line % 2))
    return found


def assert_same(left: Facts, right: Facts):
    for field in fields(Facts):
        one, other = getattr(left, field.name), getattr(right, field.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype, field.name
            assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f"), field.name
        else:
            assert one == other, field.name


# -------------------------------------------------------------------------------------------------------------- a row


def test_a_pair_leaves_where_it_stands_how_long_it_is_and_what_was_said_of_it():
    preference = Preference(chosen_score=4.5, rejected_score=3.0, margin=1.5, weight=0.5, soft_label=0.75)
    origin = Origin(dataset="D", licence="MIT", split="train", group="7")
    facts = facts_of(
        [record(pair("How many?", "Two or three.", "One", preference=preference, origin=origin), 41, "x.jsonl")]
    )
    assert (facts.num_rows, facts.num_records, facts.num_ties) == (1, 1, 0)
    assert (facts.file_names[facts.file[0]], facts.line[0]) == ("x.jsonl", 41)
    assert [facts.prompt_words[0], facts.chosen_words[0], facts.rejected_words[0]] == [2, 3, 1]
    assert [facts.prompt_characters[0], facts.chosen_characters[0], facts.rejected_characters[0]] == [9, 13, 3]
    assert [facts.chosen_score[0], facts.rejected_score[0], facts.margin[0]] == [4.5, 3.0, 1.5]
    assert [facts.weight[0], facts.soft_label[0]] == [0.5, 0.75]
    assert (facts.dataset_names, facts.licence_names, facts.split_names) == (("D",), ("MIT",), ("train",))
    assert facts.group[0] >= 0


def test_what_is_not_stated_is_missing_and_not_zero():
    facts = facts_of([record(pair())])
    for name in ("chosen_score", "rejected_score", "margin", "soft_label"):
        assert np.isnan(getattr(facts, name)[0]), name
    assert facts.weight[0] == 1
    assert [facts.split[0], facts.dataset[0], facts.licence[0], facts.group[0]] == [-1, -1, -1, -1]


def test_a_pair_stands_where_it_says_itself():
    own = pair(source=Source("b.jsonl", 9))
    facts = facts_of([record(own, 1)])
    assert (facts.file_names[facts.file[0]], facts.line[0]) == ("b.jsonl", 9)


def test_keys_are_equal_where_texts_are():
    facts = facts_of([record(one) for one in (pair("p", "a", "b"), pair("p", "b", "a"), pair("q", "a", "c"))])
    assert facts.prompt_key[0] == facts.prompt_key[1] != facts.prompt_key[2]
    assert facts.chosen_key[0] == facts.rejected_key[1] == facts.chosen_key[2]
    assert facts.rejected_key[0] == facts.chosen_key[1] != facts.rejected_key[2]
    assert int(facts.prompt_key[0]) == int(pair("p").prompt_id[:16], 16)


def test_tools_roles_and_tool_calls_are_part_of_the_keys():
    call = Message("assistant", "", tool_calls=({"function": {"name": "f", "arguments": "{}"}},))
    other = Message("assistant", "", tool_calls=({"function": {"name": "g", "arguments": "{}"}},))
    prompt = (Message("user", "p"),)
    one = Pair(prompt, call, other)
    facts = facts_of([record(one), record(Pair(prompt, call, other, tools=({"name": "f"},)))])
    assert facts.chosen_key[0] != facts.rejected_key[0]
    assert facts.chosen_norm[0] != facts.rejected_norm[0]
    assert facts.prompt_key[0] != facts.prompt_key[1]


def test_normal_keys_leave_out_case_and_punctuation():
    facts = facts_of([record(pair(chosen="It is so.", rejected="it IS  so"))])
    assert facts.chosen_key[0] != facts.rejected_key[0]
    assert facts.chosen_norm[0] == facts.rejected_norm[0]


@pytest.mark.parametrize("group", [None, "7"])
def test_the_split_is_that_of_the_split(group):
    pairs = [pair(f"prompt {number}", origin=Origin(group=group and f"{group}{number}")) for number in range(200)]
    facts = facts_of([record(one) for one in pairs])
    assert (facts.split_position < 0.3).tolist() == [is_heldout(one, 0.3) for one in pairs]


def test_features_and_signatures_are_those_of_their_modules():
    pairs = [one for found in many(40) for one in found.pairs]
    facts = facts_of(many(40))
    prompts = [one.prompt[0].content for one in pairs]
    chosen, rejected = ([getattr(one, side).content for one in pairs] for side in ("chosen", "rejected"))
    in_prompts, in_chosen, in_rejected = (
        words([normalised(text) for text in texts]) for texts in (prompts, chosen, rejected)
    )
    wanted = features_of(prompts, chosen, in_chosen) - features_of(prompts, rejected, in_rejected)
    assert np.array_equal(facts.features, wanted)
    swapped = [record(pair(one.prompt[0].content, one.rejected.content, one.chosen.content)) for one in pairs]
    assert np.array_equal(facts_of(swapped).features, -wanted)
    assert np.array_equal(facts.prompt_signatures, near.signatures_of(in_prompts))
    assert np.array_equal(facts.signatures[:, 64:], near.signatures_of(in_rejected))


def test_pairs_with_the_sides_swapped_are_no_near_duplicates():
    sides = ("one two three four five six", "six five four three two one")
    facts = facts_of([record(pair("p", *sides)), record(pair("p", *sides[::-1])), record(pair("P!", *sides))])
    assert near.clusters(facts.signatures).tolist() == [0, 1, 0]


def test_pairs_that_share_only_a_long_prompt_are_no_near_duplicates():
    document = " ".join(f"word{number}" for number in range(500))
    pairs = [pair(document, f"summary {number} is good", f"summary {number} is bad") for number in range(5)]
    facts = facts_of([record(one) for one in pairs])
    assert near.clusters(facts.signatures).tolist() == [0, 1, 2, 3, 4]
    assert near.clusters(facts.prompt_signatures).tolist() == [0] * 5


def test_scores_beyond_single_precision_are_cut_and_not_infinite():
    facts = facts_of([record(pair(preference=Preference(chosen_score=1e300, rejected_score=-1e300)))])
    assert np.isfinite(facts.chosen_score).all()
    assert facts.chosen_score[0] > 0 > facts.rejected_score[0]


def test_half_a_surrogate_pair_is_no_reason_to_stop():
    facts = facts_of([record(pair("\ud800", "a\udfff", "b"))])
    assert facts.num_rows == 1


# -------------------------------------------------------------------------------------------------- votes, marks, drops


def test_votes_are_told_by_completion_and_not_by_winner():
    texts = [f"text {number}" for number in range(100)]
    pairs = [pair("p", one, f"no {one}", preference=Preference(votes=(Vote("chosen", "ann"),))) for one in texts]
    facts = facts_of([record(one) for one in pairs])
    assert 20 < facts.vote_value.sum() < 80
    swapped = [pair("p", f"no {one}", one, preference=Preference(votes=(Vote("rejected", "ann"),))) for one in texts]
    assert np.array_equal(facts_of([record(one) for one in swapped]).vote_value, facts.vote_value)


def test_ties_and_unnamed_annotators_are_kept_apart():
    votes = (Vote("tie", ""), Vote("chosen", "ann"), Vote("rejected", "bob"))
    facts = facts_of([record(pair(preference=Preference(votes=votes)))])
    assert facts.vote_annotator.tolist() == [-1, 0, 1]
    assert facts.annotator_names == ("ann", "bob")
    assert facts.vote_value[0] == 0.5
    assert facts.vote_value[1] + facts.vote_value[2] == 1
    assert facts.vote_item.tolist() == [0, 0, 0]


def test_votes_on_records_dropped_as_ties_count_for_agreement():
    tie = drop(2, "tie", votes=(Vote("chosen", "ann"), Vote("rejected", "bob")))
    facts = merged(Facts, [facts_of([tie, record(pair()), tie]), facts_of([tie])])
    assert facts.vote_item.tolist() == [-1, -1, -2, -2, -3, -3]


def test_flaws_become_flags_counts_and_masked_marks():
    one = pair("Mail maria@uni-graz.at", "Done.</s>", "Done.\x00 maria@uni-graz.at")
    facts = facts_of([record(pair()), record(one, 5)])
    assert facts.marked("personal_data").tolist() == [1]
    assert facts.marked("hidden_text").tolist() == [1]
    assert facts.marked("secret").tolist() == []
    assert facts.num_marks == {
        ("personal_data", "email"): 2,
        ("control_token", "</s>"): 1,
        ("hidden_text", "control"): 1,
    }
    assert {(mark.code, mark.field) for mark in facts.marks} == {
        ("personal_data", "prompt"),
        ("control_token", "chosen"),
        ("hidden_text", "rejected"),
        ("personal_data", "rejected"),
    }
    assert all(mark.row == 1 and mark.source == Source("a.jsonl", 5) for mark in facts.marks)
    assert not any("maria" in mark.excerpt for mark in facts.marks)


def test_counts_add_up():
    records = many(300)
    facts = facts_of(records)
    used = sum(bool(found.pairs) for found in records)
    assert facts.num_records == 300 == used + sum(facts.num_dropped.values())
    assert facts.num_dropped == Counter(found.dropped.reason for found in records if found.dropped)
    assert facts.num_ties == sum(found.num_ties for found in records)
    assert facts.num_records_by_file == Counter(found.source.file for found in records)
    assert facts.num_rows == sum(len(found.pairs) for found in records)


def test_records_of_thumbs_are_counted_and_give_no_row():
    thumb = Thumb((Message("user", "p"),), Message("assistant", "a"), True)
    facts = facts_of([Record(Source("a", 1), thumbs=(thumb,))])
    assert (facts.num_records, facts.num_rows) == (1, 0)


def test_many_dropped_records_are_counted_and_few_are_kept():
    records = [drop(line, ("bad_json", "no_prompt")[line % 2]) for line in range(1, 1001)]
    facts = merged(Facts, [facts_of(records[:10]), facts_of(records[10:600]), facts_of(records[600:])])
    assert facts.num_dropped == {"bad_json": 500, "no_prompt": 500}
    kept = Counter(item.reason for item in facts.dropped)
    assert kept == {"bad_json": MAX_KEPT, "no_prompt": MAX_KEPT}
    assert [item.source.line for item in facts.dropped][:4] == [1, 2, 3, 4]
    assert max(item.source.line for item in facts.dropped) == 2 * MAX_KEPT


def test_many_marks_are_counted_and_few_are_kept():
    records = [record(pair("Mail maria@uni-graz.at"), line) for line in range(1, 501)]
    facts = merged(Facts, [facts_of(records[:50]), facts_of(records[50:])])
    assert len(facts.marks) == MAX_KEPT
    assert facts.num_marks == {("personal_data", "email"): 500}
    assert len(facts.marked("personal_data")) == 500
    assert [mark.row for mark in facts.marks] == list(range(MAX_KEPT))


# ------------------------------------------------------------------------------------------------------ blocks, memory


@pytest.mark.parametrize("size", [1, 7, 50, 300])
def test_blocks_change_nothing(size):
    records = many(300)
    blocks = [facts_of(records[start : start + size]) for start in range(0, 300, size)]
    assert_same(merged(Facts, blocks), facts_of(records))
    assert_same(merged(Facts, iter(blocks)), merged(Facts, [merged(Facts, blocks[:2]), merged(Facts, blocks[2:])]))


def test_facts_travel_between_processes():
    facts = facts_of(many(60))
    assert_same(pickle.loads(pickle.dumps(facts)), facts)


def test_no_records_are_an_empty_table():
    for facts in (facts_of([]), merged(Facts, []), merged(Facts, [facts_of([]), facts_of([])])):
        assert (facts.num_rows, facts.num_records, facts.num_bytes) == (0, 0, 0)
        assert facts.features.shape == (0, 13)
        assert facts.prompt_signatures.shape == (0, near.SLOTS)
    assert_same(merged(Facts, [facts_of([]), facts_of(many(20))]), facts_of(many(20)))


def test_a_pair_takes_less_than_four_hundred_bytes():
    facts = facts_of([record(pair(f"prompt {number}")) for number in range(100)])
    assert facts.num_bytes == 378 * 100
    assert set(Facts.COLUMNS) >= set(Facts.CODED)
    assert set(Facts.COLUMNS) == {
        field.name for field in fields(Facts) if isinstance(getattr(facts, field.name), np.ndarray)
    }


def test_a_growing_column_is_what_was_appended():
    rows = [np.arange(start, start + 700, dtype=np.int32).reshape(-1, 2) for start in range(0, 7000, 700)]
    column = Growing(np.int32, 2)
    for block in rows:
        column.append(block)
    assert np.array_equal(column.whole(), np.concatenate(rows))


def test_codes_are_given_in_the_order_of_coming_and_recoded_by_name():
    names = Names()
    assert names.codes(["b", None, "a", "b"]).tolist() == [0, -1, 1, 0]
    assert names.recoded(np.array([1, -1, 0], np.int32), ("c", "a")).tolist() == [1, -1, 2]
    assert names.known == ("b", "a", "c")


def test_blanks_around_reasoning_and_turns_of_a_prompt_make_no_other_key():
    def one(system, thought, completion):
        prompt = (Message("system", system), Message("user", "Why?"))
        chosen = Message("assistant", completion, reasoning=thought)
        return record(Pair(prompt, chosen, Message("assistant", "No.")))

    facts = facts_of(
        [one("Be brief.", "Hm.", "So."), one("Be brief.\n", " Hm.", "So. "), one("Be  brief.", "Hm", "So.")]
    )
    assert facts.prompt_key[0] == facts.prompt_key[1] != facts.prompt_key[2]
    assert facts.chosen_key[0] == facts.chosen_key[1] != facts.chosen_key[2]
