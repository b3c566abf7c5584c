"""Files of two completions and a verdict, in many spellings: the right pair, or a question; never the wrong pair."""

from __future__ import annotations

import json

import pytest

from tiebreak.config import SourceConfig
from tiebreak.data.reader import open_files
from tiebreak.data.whole import read_pairs
from tiebreak.errors import DataError

GOOD, BAD = "The good one.", "The bad one."
AB, NUMBERED = ("response_a", "response_b"), ("response_1", "response_2")


def rows(make, num=12):
    """Rows of so many questions; the good completion is the second in every other one."""
    return [make(f"Is it {number}?", bool(number % 2)) for number in range(num)]


def two(verdict, names=AB):
    def make(asked, turned):
        first, second = (BAD, GOOD) if turned else (GOOD, BAD)
        return {"prompt": asked, names[0]: first, names[1]: second, **verdict(turned)}

    return make


def letter(turned):
    return "B" if turned else "A"


@pytest.fixture
def saved(tmp_path):
    def save(found, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in found))
        return path

    return save


def all_good(found):
    return bool(found.pairs) and {pair.chosen.content.strip() for pair in found.pairs} == {GOOD}


READ = {
    "counts by letter": two(lambda t: {"votes": {"a": 0 if t else 2, "b": 3 if t else 0}}),
    "counts by column": two(lambda t: {"votes": {"response_a": 1 if t else 3, "response_b": 3 if t else 0}}),
    "a strength of few rows beside a winner": two(lambda t: {"best": letter(t), "preference_strength": 2}, NUMBERED),
    "a strength in words beside a winner": two(lambda t: {"winner": letter(t), "preference_strength": "slightly"}),
    "a label of another thing beside scores": two(
        lambda t: {"label": "math", "score_a": 1 if t else 5, "score_b": 5 if t else 1}
    ),
    "a preference in words beside a winner": two(lambda t: {"preference": "formal style", "winner": letter(t)}),
    "a number of annotations beside a winner": two(lambda t: {"annotations": 3, "winner": letter(t)}),
    "no votes beside a winner": two(lambda t: {"votes": [], "winner": letter(t)}),
    "an empty cell beside a winner": two(lambda t: {"preference": "", "winner": letter(t)}),
    "the text of the winner": two(lambda _: {"winner": GOOD}),
    "the model of the winner, in another case": two(
        lambda t: {"model_a": "Alpha", "model_b": "Beta", "winner": "beta" if t else "alpha"}
    ),
    "compared": two(lambda t: {"label": "B>A" if t else "A>>B"}),
    "in brackets": two(lambda t: {"verdict": "[[B>>A]]" if t else "[[A]]"}),
    "in words": two(lambda t: {"verdict": "B is slightly better than A" if t else "Prefer A"}),
    "ordinals": two(lambda t: {"choice": "2nd" if t else "1st"}),
    "whether the first is better": two(lambda t: {"a_is_better": not t}),
    "two verdicts that agree": two(lambda t: {"winner": letter(t), "choice": 2 if t else 1}),
    "capitals": lambda asked, _: {"Prompt": asked, "Rejected": BAD, "Chosen": GOOD},
    "blanks in names": lambda asked, _: {"User Prompt": asked, "Rejected Response": BAD, "Chosen Response": GOOD},
    "objects": lambda asked, _: {
        "prompt": asked, "chosen": {"text": GOOD, "score": 3}, "rejected": {"text": BAD, "score": 1},
    },
    "dialogues beside their prompt": lambda asked, _: {
        "prompt": asked, "chosen": f"\n\nHuman: {asked}\n\nAssistant: {GOOD}",
        "rejected": f"\n\nHuman: {asked}\n\nAssistant: {BAD}",
    },
    "dialogues without their first blank lines": lambda asked, _: {
        "chosen": f"Human: {asked}\r\n\r\nAssistant: {GOOD}", "rejected": f"Human: {asked}\r\n\r\nAssistant: {BAD}",
    },
}  # fmt: skip


@pytest.mark.parametrize("make", READ.values(), ids=READ)
def test_the_good_one_is_chosen(saved, make):
    found = read_pairs(saved(rows(make)))
    assert all_good(found)
    assert len(found.pairs) == 12


ASKED = {
    "a list of two counts": (two(lambda t: {"votes": [0, 2] if t else [2, 0]}), "a list of two numbers"),
    "two columns that disagree": (
        two(lambda t: {"winner": letter(t), "preference": 2}),
        "different sides in 6 of 12",
    ),
    "a number of raters": (two(lambda t: {"winner": letter(t), "votes": 2}), "name different sides"),
    "a scale of seven": (two(lambda t: {"preference": 6 if t else 2}), "holds numbers from 2 to 6"),
    "signs": (two(lambda t: {"winner": "1" if t else "-1"}), "holds numbers from -1 to 1"),
    "a probability": (two(lambda t: {"preference": 0.9 if t else 0.1}), "a probability"),
    "numbers that are all one": (two(lambda _: {"label": 1}, NUMBERED), "two ways"),
}


@pytest.mark.parametrize(("make", "words"), ASKED.values(), ids=ASKED)
def test_what_admits_two_readings_is_asked_in_one_line(saved, make, words):
    with pytest.raises(DataError, match=words) as asked:
        read_pairs(saved(rows(make)))
    assert "\n" not in str(asked.value)


def test_two_for_a_tie_is_asked_about(saved):
    found = [two(lambda t, n=n: {"label": 2 if n % 4 == 0 else int(t)})(f"Is it {n}?", bool(n % 2)) for n in range(60)]
    with pytest.raises(DataError, match="two ways"):
        read_pairs(saved(found))


def test_a_number_after_a_thousand_words_is_refused_for_itself(saved):
    found = rows(two(lambda t: {"winner": letter(t)}), 1200) + rows(two(lambda t: {"winner": int(t)}), 3)
    made = read_pairs(saved(found))
    assert all_good(made)
    assert made.reasons == {"wrong_type": 3}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why?", "worst_answer": BAD, "best_answer": GOOD}, {"frage": "Why?", "schlecht": BAD, "gut": GOOD},
        {"title": "Why?", "gpt": BAD, "llama": GOOD, "winner": "llama"},
        {"prompt": "Why?", "draft": BAD, "revised": GOOD},
    ],
)  # fmt: skip
def test_which_of_two_texts_is_better_is_never_proposed_by_their_order(saved, row):
    (file,) = open_files(SourceConfig(path=str(saved([row]))))
    proposed = dict(file.look.proposed)
    assert (proposed["chosen"], proposed["rejected"]) == ("COLUMN", "COLUMN")


PAIR = {"prompt": "Why?", "chosen": GOOD, "rejected": BAD}
LOST = {
    "a history in text": ({"history": "User: earlier\nAssistant: yes"}, "history"),
    "a system text beside another": (
        {"system": "Be rude.",
         "prompt": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]},
        "system",
    ),
    "beside the text of a prompt": ({"prompt": {"text": "Why?", "context": "It is late."}}, "prompt.context"),
    "inside a message": (
        {"prompt": [{"role": "user", "content": "Why?", "documents": ["A page of text."]}]}, "prompt.*.documents",
    ),
    "a short system text of another name": ({"sys": "Be brief."}, "sys"),
    "tools of another name": ({"available_tools": [{"description": "Looks a word up."}]}, "available_tools"),
    "only in late rows": ({"context": ""}, None),
}  # fmt: skip


@pytest.mark.parametrize(("more", "missed"), LOST.values(), ids=LOST)
def test_what_left_no_text_in_the_pair_is_missed_although_it_was_looked_at(saved, more, missed):
    found = [PAIR | more] * 80
    if missed is None:
        found, missed = [*found, PAIR | {"context": "A passage to read."}], "context"
    (file,) = open_files(SourceConfig(path=str(saved(found))))
    assert file.look.missed == (missed,)
    assert missed not in file.look.read


@pytest.mark.parametrize("key", ["images", "video", "files", "attachments", "functions", "function_calls"])
def test_pictures_and_calls_inside_a_message_are_refused_by_their_name(saved, key):
    row = PAIR | {"prompt": [{"role": "user", "content": "Why?", key: ["a.png"]}]}
    with pytest.raises(DataError, match=key):
        read_pairs(saved([row]))


MAPPED = {"prompt": "q", "completion_a": "x", "completion_b": "y", "winner": "w"}
WORDS = [
    ("True", "False", True, False), ("1.0", "0.0", 1, 0), ("1", "0", "1.0", "0.0"),
    ("left side", "right", "Left Side", "RIGHT"), ("true|yes", "no", "Yes", "No"),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second", "one", "other"), WORDS)
def test_the_words_of_a_mapping_are_those_of_the_column_whatever_their_spelling(saved, first, second, one, other):
    found = [{"q": f"{n}?", "x": GOOD, "y": BAD, "w": one} for n in range(3)]
    found += [{"q": f"{n}!", "x": BAD, "y": GOOD, "w": other} for n in range(3)]
    made = read_pairs(saved(found), columns=MAPPED | {"winner.first": first, "winner.second": second})
    assert (len(made.pairs), all_good(made)) == (6, True)


def test_words_may_be_given_in_yaml_as_lists_and_as_yes_and_no():
    told = SourceConfig(path="x", columns={"winner": {"column": "w", "first": [1, "one"], "second": True, "tie": 0.5}})
    assert told.columns == {"winner": "w", "winner.first": "1|one", "winner.second": "true|yes|on", "winner.tie": "0.5"}


@pytest.mark.parametrize("key", ["system", "input", "weight", "chosen_score", "group"])
def test_a_named_column_that_no_row_has_is_told(saved, key):
    with pytest.raises(DataError, match=f"no column 'nothere' for '{key}' in the first 1 rows"):
        read_pairs(
            saved([PAIR]), columns={"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", key: "nothere"}
        )


PREFIXED = {
    "two completions": ({"completion_a": "x", "completion_b": "y", "winner": "w"}, {"x": "a", "y": "b", "w": "left"}),
    "scores": ({"completions": "x", "scores": "w"}, {"x": ["a", "b"], "w": [2, 1]}),
    "messages": (
        {"chosen": "x", "rejected": "y"},
        {"x": [{"role": "assistant", "content": "a"}], "y": [{"role": "assistant", "content": "b"}]},
    ),
}


@pytest.mark.parametrize(("mapping", "row"), PREFIXED.values(), ids=PREFIXED)
def test_a_prefix_begins_both_completions_in_any_combination(saved, mapping, row):
    made = read_pairs(saved([row | {"q": "Why?", "p": "So: "}]), columns={"prompt": "q", "prefix": "p", **mapping})
    (pair,) = made.pairs
    assert (pair.chosen.content, pair.rejected.content) == ("So: a", "So: b")


def test_an_input_stands_below_the_last_turn_of_a_transcript_and_of_messages(saved):
    for prompt in ("Human: Why?\n\nAssistant:", [{"role": "user", "content": "Why?"}]):
        mapping = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", "input": "more"}
        (pair,) = read_pairs(saved([PAIR | {"prompt": prompt, "more": "Think."}]), columns=mapping).pairs
        assert [message.content for message in pair.prompt] == ["Why?\nThink."]


def test_ranks_that_count_from_zero_are_asked_about_and_read_as_either(saved):
    path = saved([{"prompt": "Why?", "completions": ["b", "c", "a"], "ranking": [2, 0, 1]}])
    with pytest.raises(DataError, match=r"rank of each completion .* or as places"):
        read_pairs(path)
    mapping = {"prompt": "prompt", "completions": "completions"}
    (by_rank,) = read_pairs(path, columns=mapping | {"ranking": "ranking"}).pairs
    assert (by_rank.chosen.content, by_rank.rejected.content) == ("c", "b")
    (by_place,) = read_pairs(path, columns=mapping | {"order": "ranking"}).pairs
    assert (by_place.chosen.content, by_place.rejected.content) == ("a", "c")


def test_places_that_are_no_order_are_refused(saved):
    for order in ([0, 0, 1], [1, 3, 2, 5], "0", [2, 3, 4]):
        with pytest.raises(DataError, match="'order' is the place"):
            read_pairs(
                saved([{"prompt": "Why?", "completions": ["a", "b", "c"], "best": order}]),
                columns={"prompt": "prompt", "completions": "completions", "order": "best"},
            )


def test_a_judged_turn_in_the_midst_of_two_conversations_is_read_without_what_came_after(saved):
    def talk(first, second):
        turns = [("user", "Why?"), ("assistant", first), ("user", "And?"), ("assistant", second)]
        return [{"role": role, "content": text} for role, text in turns]

    row = {"conversation_a": talk(GOOD, "x"), "conversation_b": talk(BAD, "y"), "winner": "model_a", "turn": 1}
    (pair,) = read_pairs(saved([row])).pairs
    assert (pair.chosen.content, [message.content for message in pair.prompt]) == (GOOD, ["Why?"])


TURNS = (("user", "Hi"), ("assistant", "Hello"), ("user", "Why?"))


def test_a_prompt_that_is_only_the_first_turn_of_two_dialogues_belongs_to_them(saved):
    before = [
        {"role": role, "content": text} for role, text in (("user", "Hi"), ("assistant", "Hello"), ("user", "Why?"))
    ]
    sides = {
        name: [*before, {"role": "assistant", "content": text}] for name, text in (("chosen", GOOD), ("rejected", BAD))
    }
    (pair,) = read_pairs(saved([{"prompt": "Hi", **sides}])).pairs
    assert [message.content for message in pair.prompt] == ["Hi", "Hello", "Why?"]
