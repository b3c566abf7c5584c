"""What the first rows of a file say together: two readings are asked about, and what was read is told."""

from __future__ import annotations

import json
import shlex

import pytest

from tiebreak.config import SourceConfig
from tiebreak.data import survey
from tiebreak.data.reader import open_files
from tiebreak.data.whole import read_pairs
from tiebreak.errors import DataError

# Of each question the true answer and a false one.
FACTS = [(f"What is {n} + {n}?", f"{2 * n}", f"{2 * n + 1}") for n in range(1, 13)]


def sides(row, first, second, *, names=("response_a", "response_b"), turned):
    """A row whose true answer stands second where it is turned."""
    true, false = (names[1], names[0]) if turned else names
    return row | {true: first, false: second}


def two_sided(verdict, *, names=("response_a", "response_b"), column="label"):
    """Rows of two answers; `verdict` gives what stands in the verdict's column, told whether the second is true."""
    rows = []
    for number, (asked, true, false) in enumerate(FACTS):
        turned = number % 3 == 1
        row = sides({"prompt": asked}, true, false, names=names, turned=turned)
        rows.append(row | ({column: verdict(turned)} if column else verdict(turned)))
    return rows


@pytest.fixture
def saved(tmp_path):
    def save(rows, name="pairs.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return save


def look(path, **how):
    (file,) = open_files(SourceConfig(path=str(path), **how))
    return file.look


def is_true(found):
    """Whether each pair has the true answer as chosen."""
    true = {asked: answer for asked, answer, _ in FACTS}
    return len(found.pairs) > 0 and all(true[pair.prompt[-1].content] == pair.chosen.content for pair in found.pairs)


def test_numbers_that_may_count_from_zero_are_asked_about_with_both_readings(saved):
    path = saved(two_sided(int))
    with pytest.raises(DataError, match=r"can be read in two ways: as places .* or as votes") as asked:
        read_pairs(path)
    said = str(asked.value)
    assert "\n" not in said
    for_places = shlex.split(said.partition("For places: ")[2].partition("; for votes")[0])
    mapping = dict(word.split("=", 1) for word in for_places[1::2])
    assert is_true(read_pairs(path, columns=mapping))
    assert len(read_pairs(path, columns=mapping).pairs) == 12


@pytest.mark.parametrize("words", [int, lambda turned: str(int(turned)), float, lambda turned: [int(turned)]])
@pytest.mark.parametrize("column", ["label", "choice", "winner", "preference", "better"])
def test_numbers_from_zero_are_asked_about_however_they_are_written(saved, words, column):
    with pytest.raises(DataError, match=f"'{column}' can be read in two ways"):
        read_pairs(saved(two_sided(words, column=column)))


@pytest.mark.parametrize("columns", [{"winner": "label"}, {"votes": "label"}])
def test_a_mapping_of_such_numbers_is_asked_about_too_until_it_says_what_they_mean(saved, columns):
    path = saved(two_sided(int, names=("x", "y")))
    (key,) = columns
    mapping = {"prompt": "prompt", "completion_a": "x", "completion_b": "y"} | columns
    with pytest.raises(DataError, match="two ways"):
        read_pairs(path, columns=mapping)
    assert is_true(read_pairs(path, columns=mapping | {f"{key}.first": "0", f"{key}.second": "1"}))


def test_columns_that_count_from_zero_say_themselves_what_the_numbers_mean(saved):
    rows = two_sided(int, names=("response_0", "response_1"), column="better_response_id")
    found = read_pairs(saved([row | {"safer_response_id": 0} for row in rows]))
    assert (len(found.pairs), found.format, is_true(found)) == (12, "votes", True)


def test_zero_is_a_tie_where_two_is_said_as_well(saved):
    rows = two_sided(lambda turned: 2 if turned else 1)
    rows[5] = rows[5] | {"label": 0}
    found = read_pairs(saved(rows))
    assert (len(found.pairs), is_true(found), found.reasons) == (11, True, {"tie": 1})


def test_two_that_is_rare_beside_zero_and_one_may_be_the_tie_and_is_asked_about(saved):
    rows = [row | {"label": 2 if number % 12 == 8 else row["label"]} for number, row in enumerate(two_sided(int) * 2)]
    with pytest.raises(DataError, match="two ways"):
        read_pairs(saved(rows))


NAMES = {
    "letters": (lambda turned: {"chosen": "AB"[turned], "rejected": "BA"[turned]}, ("response_a", "response_b")),
    "small letters": (lambda turned: {"chosen": "ab"[turned], "rejected": "ba"[turned]}, ("answer_a", "answer_b")),
    "columns": (
        lambda turned: {"chosen": ["one_text", "another"][turned], "rejected": ["another", "one_text"][turned]},
        ("one_text", "another"),
    ),
    "numbers": (lambda turned: {"chosen": turned + 1, "rejected": 2 - turned}, ("output_1", "output_2")),
    "numbers from zero": (lambda turned: {"chosen": int(turned), "rejected": 1 - turned}, ("output_0", "output_1")),
}


@pytest.mark.parametrize(("words", "names"), NAMES.values(), ids=NAMES)
def test_chosen_and_rejected_may_name_the_completions_and_are_not_taken_for_them(saved, words, names):
    found = read_pairs(saved(two_sided(words, names=names, column=None)))
    assert (len(found.pairs), found.format, is_true(found)) == (12, "named_sides", True)


def test_one_word_answers_are_completions_where_nothing_else_could_be(saved):
    rows = [
        {"prompt": "A or B?", "chosen": "A", "rejected": "B"},
        {"prompt": "B or A?", "chosen": "B", "rejected": "A"},
    ]
    found = read_pairs(saved(rows))
    assert (found.format, [pair.chosen.content for pair in found.pairs]) == ("trl", ["A", "B"])


@pytest.mark.parametrize(
    "winner", [lambda turned: "AB"[turned], lambda turned: turned + 1, lambda t: f"response_{t + 1}"]
)
@pytest.mark.parametrize("strength", ["preference_strength", "overall_preference"])
def test_a_stated_winner_decides_over_a_strength_without_a_sign(saved, winner, strength):
    rows = two_sided(winner, names=("response_1", "response_2"), column="winner")
    found = read_pairs(saved([row | {strength: 1 + number % 3} for number, row in enumerate(rows)]))
    assert is_true(found)
    assert [pair.preference.margin for pair in found.pairs] == [1.0, 2.0, 3.0] * 4


def test_a_signed_strength_decides_and_a_row_whose_winner_says_otherwise_is_refused(saved):
    rows = two_sided(lambda turned: turned + 1, names=("response_1", "response_2"), column="winner")
    rows = [row | {"preference_strength": 2 if row["winner"] == 2 else -2} for row in rows]
    rows[4] |= {"preference_strength": -rows[4]["preference_strength"]}
    found = read_pairs(saved(rows))
    assert (len(found.pairs), is_true(found)) == (11, True)
    assert [(item.reason, item.source.line) for item in found.dropped] == [("wrong_type", 5)]


def test_a_winner_and_a_sign_that_disagree_in_many_rows_are_asked_about(saved):
    rows = two_sided(lambda turned: turned + 1, names=("response_1", "response_2"), column="winner")
    rows = [row | {"preference_strength": (-1) ** number} for number, row in enumerate(rows)]
    with pytest.raises(DataError, match=r"name different sides in . of 12 rows"):
        read_pairs(saved(rows))


def test_strengths_without_a_sign_and_without_a_winner_are_asked_about(saved):
    rows = two_sided(lambda turned: 1 + turned, names=("response_1", "response_2"), column="preference_strength")
    path = saved(rows)
    with pytest.raises(DataError, match="no column says who won") as asked:
        read_pairs(path)
    options = shlex.split(str(asked.value).partition("(below zero: the first): ")[2])
    found = read_pairs(path, columns=dict(word.split("=", 1) for word in options[1::2]))
    assert len(found.pairs) == 12


# ----------------------------------------------------------------------------------------------------- text as messages


def as_messages(asked, answer):
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize("written", [json.dumps, repr, lambda value: repr(value).replace("}, {", "}\n {")])
def test_messages_written_as_text_are_unfolded_in_any_container(saved, tmp_path, written):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"chosen": written(as_messages(asked, true)), "rejected": written(as_messages(asked, false)), "id": "[1]"}
        for asked, true, false in FACTS
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    for path in (saved(rows), tmp_path / "pairs.parquet"):
        found = read_pairs(path)
        assert (len(found.pairs), is_true(found)) == (12, True)


def test_a_cell_of_other_text_in_a_column_of_messages_is_refused_and_no_text_is_taken_for_messages(saved):
    rows = [
        {"chosen": json.dumps(as_messages(asked, true)), "rejected": json.dumps(as_messages(asked, false))}
        for asked, true, false in FACTS * 100
    ]
    late = survey.MAX_ROWS + 1
    rows[late] |= {"chosen": "[broken"}
    found = read_pairs(saved(rows))
    assert [(item.reason, item.source.line) for item in found.dropped] == [("wrong_type", late + 1)]
    one, other = ([{"role": "assistant", "content": text}] for text in ("Yes.", "No."))
    texts = [{"prompt": asked, "chosen": json.dumps(one), "rejected": json.dumps(other)} for asked, _, _ in FACTS]
    texts[3] |= {"chosen": "Plain."}
    found = read_pairs(saved(texts))  # one plain text in twelve: it is refused
    assert [(item.reason, item.source.line) for item in found.dropped] == [("wrong_type", 4)]
    for row in texts[:6]:  # a column of both is unfolded no more, and no such text is learned
        row |= {"chosen": "Plain.", "rejected": "Simple."}
    found = read_pairs(saved(texts))
    assert [pair.chosen.content for pair in found.pairs] == ["Plain."] * 6
    assert found.reasons == {"wrong_type": 6}


# --------------------------------------------------------------------------------------------------- what is told of it

PAIR = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}


def test_the_columns_that_were_read_and_those_that_were_not_are_told(saved):
    row = PAIR | {"system_prompt": "Be brief.", "id": 7, "note": None, "score_chosen": 4, "source": {"a": 1}}
    found = look(saved([row]))
    assert found.read == ("prompt", "chosen", "rejected", "system_prompt", "score_chosen")
    assert found.unread == ("id", "source")
    assert found.missed == ()


@pytest.mark.parametrize("name", ["context", "background", "passage", "retrieved_documents", "few_shot", "persona"])
@pytest.mark.parametrize(
    "value", ["A text that explains it.", ["A text that explains it."], [{"title": "A text in parts."}]]
)
def test_a_column_that_the_prompt_may_need_is_missed(saved, name, value):
    assert look(saved([PAIR | {name: value}])).missed == (name,)


@pytest.mark.parametrize(
    "more",
    [
        {"context": ""},
        {"context": []},
        {"context": "Why?"},
        {"instruction": "n/a"},
        {"model": "A long name of a model"},
    ],
)
def test_a_column_that_is_empty_or_says_nothing_new_is_not_missed(saved, more):
    assert look(saved([PAIR | more])).missed == ()


def test_the_first_record_is_told_with_the_reason_why_a_side_is_chosen(saved):
    row = {"prompt": "Why?", "response_1": "a", "response_2": "b", "winner": 2}
    first = look(saved([{"prompt": None}, row])).first
    assert (str(first.source), first.prompt[-1].content, first.chosen, first.rejected) == (
        "pairs.jsonl:2",
        "Why?",
        "b",
        "a",
    )
    assert first.why == "winner 2 → response_2"
    mapping = {"prompt": "q", "completion_a": "x", "completion_b": "y", "winner": "w"}
    first = look(saved([{"q": "Why?", "x": "a", "y": "b", "w": "x"}]), columns=mapping).first
    assert (first.chosen, first.why) == ("a", "w 'x' (winner)")
    first = look(saved([{"prompt": "Why?", "completions": ["a", "b"], "scores": [1, 3]}])).first
    assert (first.chosen, first.why) == ("b", "score 3 over 1")


def test_a_form_is_found_behind_any_number_of_rows_that_say_nothing(saved):
    found = read_pairs(saved([{"x": 1}] * (survey.MAX_ROWS + 5) + [PAIR]))
    assert (found.format, len(found.pairs)) == ("trl", 1)


def test_a_file_of_no_known_form_is_answered_with_a_mapping_that_can_be_pasted(saved):
    rows = [
        {"topic": asked, "a1": true, "a2": false, "votes": [{"worker": "w", "vote": "a1"}]}
        for asked, true, false in FACTS
    ]
    path = saved(rows)
    with pytest.raises(DataError, match="a start: ") as refused:
        read_pairs(path)
    options = shlex.split(str(refused.value).partition("a start: ")[2].partition(" (unknown_format")[0])
    assert is_true(read_pairs(path, columns=dict(word.split("=", 1) for word in options[1::2])))


@pytest.mark.parametrize("word", ["a1", "equal"])
def test_votes_of_which_some_words_are_columns_are_read(saved, word):
    rows = [{"topic": "Why?", "a1": "Because.", "a2": "No.", "votes": ["a1", word, "a1", "a2"]}]
    mapping = {"prompt": "topic", "completion_a": "a1", "completion_b": "a2", "votes": "votes"}
    (pair,) = read_pairs(saved(rows), columns=mapping).pairs
    assert pair.chosen.content == "Because."
