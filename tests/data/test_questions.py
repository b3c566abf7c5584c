"""What is asked about a file is answered by pasting: each printed mapping reads as the form does, but for the doubt."""

from __future__ import annotations

import json

import pytest

from asked import answers
from tiebreak.data.whole import read_pairs
from tiebreak.errors import DataError

TOPICS = ("tin", "rope", "salt", "coal", "corn", "silk", "wool", "lime", "bees", "maps", "rain", "oaks")


def good(number):
    return f"GOOD: much is known of {TOPICS[number]}."


def bad(number):
    return f"BAD: nobody cares for {TOPICS[number]}."


@pytest.fixture
def saved(tmp_path):
    def save(row):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row(number)) + "\n" for number in range(len(TOPICS))))
        return path

    return save


def prompts(path, **how):
    found = read_pairs(path, **how)
    return {tuple((said.role, said.content) for said in pair.prompt) for pair in found.pairs}


def asked(path, **how):
    with pytest.raises(DataError) as refused:
        read_pairs(path, **how)
    return refused.value


# ---------------------------------------------------------------------------- the prompt of a question is the whole one

BEFORE = {
    "an instruction with its input": lambda n: {"instruction": "Tell.", "input": f"Of {TOPICS[n]}."},
    "an input in half of the rows": lambda n: {"instruction": f"Tell of {TOPICS[n]}.", "input": ["", "Do."][n % 2]},
    "a system text": lambda n: {"question": f"What of {TOPICS[n]}?", "system_prompt": "Be brief."},
    "a system text in the last row": lambda n: {"prompt": f"What of {TOPICS[n]}?", "system": "Be brief." * (n == 11)},
    "earlier rounds": lambda n: {"prompt": f"What of {TOPICS[n]}?", "history": [["Hi", "Hello"]], "system": "Brief."},
    "rounds in the middle of a system message": lambda n: {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"What of {TOPICS[n]}?"}],
        "history": [["Hi", "Hello"]],
    },
}  # fmt: skip
SIDES = {
    "places or votes": ({"preference": [0, 1]}, {"preference": ["a", "b"]}),
    "a scale": ({"preference": [1, 5]}, {"preference": ["a", "b"]}),
    "two columns that disagree": ({"winner": ["a", "b"], "label": ["b", "a"]}, {"winner": ["a", "b"]}),
    "counts or annotators": ({"votes": [[1, 2], [2, 2]]}, {"votes": [["a", "a"], ["b", "b"]]}),
    "strengths without a sign": ({"preference_strength": [1, 2]}, {"winner": ["a", "b"]}),
}


def two_sided(before, verdict):
    return lambda n: {
        **before(n),
        "answer_a": good(n),
        "answer_b": bad(n),
        **{name: told[n % 2] for name, told in verdict.items()},
    }


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize(("doubtful", "plain"), SIDES.values(), ids=SIDES)
def test_a_pasted_answer_forgets_nothing_of_the_prompt(saved, before, doubtful, plain):
    wanted = prompts(saved(two_sided(before, plain)))
    path = saved(two_sided(before, doubtful))
    mappings = answers(asked(path))
    assert mappings
    for mapping in mappings:
        assert prompts(path, columns=mapping) <= wanted
        assert len(read_pairs(path, columns=mapping).pairs) > 0


def test_the_tools_of_a_prompt_are_in_the_pasted_answer(saved):
    tool = {"type": "function", "function": {"name": "look"}}
    path = saved(two_sided(lambda n: {"prompt": TOPICS[n], "tools": [tool]}, {"preference": [0, 1]}))
    for mapping in answers(asked(path)):
        assert all(pair.tools == (tool,) for pair in read_pairs(path, columns=mapping).pairs)


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
def test_a_pasted_answer_about_ranks_forgets_nothing_of_the_prompt(saved, before):
    def ranked(ranks):
        return lambda n: {**before(n), "completions": [bad(n), good(n), "Well."], **ranks}

    wanted = prompts(saved(ranked({"ranks": [3, 1, 2]})))
    path = saved(ranked({"ranking": [2, 0, 1]}))
    mappings = answers(asked(path))
    assert len(mappings) == 2
    for mapping in mappings:
        assert prompts(path, columns=mapping) == wanted


# ------------------------------------------------------------------------------------------- two completions in a list


def judged_lists(name, wrap, verdict):
    def row(n):
        both = [good(n), bad(n)] if n % 2 else [bad(n), good(n)]
        return {"prompt": TOPICS[n], name: [wrap(text) for text in both], **verdict(n % 2)}

    return row


def chosen(path, columns):
    return {pair.chosen.content[:4] for pair in read_pairs(path, columns=columns).pairs}


@pytest.mark.parametrize("name", ["output", "outputs", "responses"])
@pytest.mark.parametrize("wrap", [str, lambda text: {"text": text}])
@pytest.mark.parametrize(
    ("column", "first", "second"),
    [("preference", 1, 2), ("best", "A", "B"), ("label", "first", "second"), ("best", 0, 1), ("choice", "x", "y")],
)
def test_a_list_of_two_beside_a_verdict_is_mapped_by_pasting(saved, name, wrap, column, first, second):
    path = saved(judged_lists(name, wrap, lambda is_first: {column: first if is_first else second}))
    (start,) = answers(asked(path))
    assert (start["completion_a"], start["completion_b"]) == (f"{name}.0", f"{name}.1")
    if column == "choice" or first == 0:  # nobody but the user knows
        ways = answers(asked(path, columns=start))
        assert len(ways) == 2
        assert {"GOOD"} in [chosen(path, way) for way in ways]
    else:
        assert chosen(path, start) == {"GOOD"}


# ------------------------------------------------------------------------------------------------- words of no language

WORDS = {
    "two": ("links", "rechts", None),
    "two and ties": ("links", "rechts", "tie"),
    "of two words": ("the red one", "the blue one", None),
}


@pytest.mark.parametrize(("first", "second", "tie"), WORDS.values(), ids=WORDS)
@pytest.mark.parametrize("is_mapped", [False, True])
def test_two_words_that_say_no_side_stand_in_the_answers_to_paste(saved, first, second, tie, is_mapped):
    def row(n):
        texts = (good(n), bad(n)) if n % 2 else (bad(n), good(n))
        verdict = tie if tie and n > 9 else first if n % 2 else second
        return {"prompt": TOPICS[n], "answer_a": texts[0], "answer_b": texts[1], "preference": verdict}

    path = saved(row)
    how = {"prompt": "prompt", "completion_a": "answer_a", "completion_b": "answer_b", "winner": "preference"}
    found = answers(asked(path, columns=how) if is_mapped else asked(path))
    assert {frozenset(chosen(path, columns)) for columns in found} == {frozenset({"GOOD"}), frozenset({"BAD:"})}
    assert all(len(read_pairs(path, columns=columns).pairs) == 12 - 2 * bool(tie) for columns in found)


def test_three_words_that_say_no_side_are_named(saved):
    plain = two_sided(lambda n: {"prompt": TOPICS[n]}, {})
    question = asked(saved(lambda n: plain(n) | {"preference": ("links", "rechts", "gleich")[n % 3]}))
    assert "'preference' holds 'links', 'rechts', 'gleich', and none of them says a side" in str(question)


# ----------------------------------------------------------------------------------------------------------- rankings

ORDER = (1, 2, 0)  # the completion in the middle is the best, then the last, then the first


def ranked(number, first, *, places):
    told = {place: at for at, place in enumerate(ORDER)}
    numbers = ORDER if places else [told[place] for place in range(3)]
    answers = [bad(number), good(number), f"Well, {TOPICS[number]}."]
    return {"prompt": TOPICS[number], "completions": answers, "ranking": [first + one for one in numbers]}


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("places", [False, True])
@pytest.mark.parametrize("written", [int, str, float])
def test_a_whole_order_is_asked_about_and_each_answer_reads_it_as_it_says(saved, first, places, written):
    path = saved(lambda n: (row := ranked(n, first, places=places)) | {"ranking": [*map(written, row["ranking"])]})
    by_rank, by_place = answers(asked(path))
    found = read_pairs(path, columns=by_place if places else by_rank)
    assert {(pair.chosen.content[:4], pair.rejected.content[:4]) for pair in found.pairs} == {("GOOD", "BAD:")}


@pytest.mark.parametrize(
    "settling",
    [
        {"ranking": [1, 1, 2]}, {"ranking": [1, 3, 4]}, {"ranking": [2, None, 1]}, {"ranking": [1.5, 1.5, 3]},
    ],
)  # fmt: skip
def test_ties_or_gaps_say_that_all_lists_are_ranks(saved, settling):
    path = saved(lambda n: ranked(n, 1, places=False) | (settling if n in (7, 8) else {}))
    found = [pair for pair in read_pairs(path).pairs if pair.source.line not in (8, 9)]
    assert len(found) == 10
    assert all(pair.chosen.content.startswith("GOOD") for pair in found)


def test_what_means_the_same_as_ranks_and_as_places_is_read(saved):
    for first in (0, 1):
        path = saved(lambda n: {"prompt": TOPICS[n], "responses": [bad(n), good(n)], "ranking": [first + 1, first]})  # noqa: B023
        found = read_pairs(path).pairs
        assert len(found) == 12
        assert all(pair.chosen.content.startswith("GOOD") for pair in found)


@pytest.mark.parametrize("name", ["ranks", "rank"])
def test_a_name_that_says_ranks_is_believed(saved, name):
    def row(number):
        told = ranked(number, 1, places=False)
        return {name: told.pop("ranking")} | told

    found = read_pairs(saved(row)).pairs
    assert len(found) == 12
    assert all(pair.chosen.content.startswith("GOOD") for pair in found)
