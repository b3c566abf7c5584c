from __future__ import annotations

import pytest

from tiebreak.evaluation.capabilities.templates import Template

ROW = {
    "ctx": "The cat",
    "endings": ["sat.", "ran."],
    "n": 7,
    "deep": {"list": [{"text": "a", "label": "A"}, {"text": "b", "label": "B"}], "dotted.name": "whole"},
    "dotted.name": "whole",
    "marks": {"yes": 1, "no": 0},
    "solution": "so #### no #### 18 ",
    "flag": True,
    "none": None,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("Q: {ctx}\nA:", "Q: The cat\nA:"),
        ("{n} + {n}", "7 + 7"),
        ("{endings.1}", "ran."),
        ("{deep.list.0.text}", "a"),
        ("{dotted.name}", "whole"),
        ("{deep.dotted.name}", "whole"),
        ("{{{ctx}}}", "{The cat}"),
        ("{solution|after ####}", " 18 "),
        ("{solution|after ####|strip}", "18"),
        ("{solution|before ####|strip}", "so"),
        ("plain", "plain"),
    ],
)
def test_fields_are_put_into_the_text(template, text):
    assert Template(template).text(ROW) == text


def test_one_field_alone_gives_what_it_holds():
    assert Template("{endings}").value(ROW) == ["sat.", "ran."]
    assert Template("{n}").value(ROW) == 7
    assert Template("{n}.").value(ROW) == "7."


def test_a_list_gives_a_text_for_each_member_and_what_stands_around_it_each_time():
    assert Template("{endings}").texts(ROW) == ["sat.", "ran."]
    assert Template("{ctx} {endings}").texts(ROW) == ["The cat sat.", "The cat ran."]
    assert Template("{deep.list.label}").texts(ROW) == ["A", "B"]
    assert Template("{marks}").texts(ROW) == ["yes", "no"]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{ctx", "a brace has no other; write {{ for one"),
        ("ctx}", "a brace has no other; write }} for one"),
        ("{}", "braces name no field"),
        ("{ctx|upper}", "behind | stands 'before TEXT', 'after TEXT' or 'strip', found 'upper'"),
        ("{ctx|after}", "found 'after'"),
        ("{ctx|strip x}", "found 'strip x'"),
    ],
)
def test_what_is_no_template_is_said_when_it_is_made(template, said):
    with pytest.raises(ValueError, match=r".") as error:
        Template(template)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{gone}", "'gone' is missing; there is 'ctx, endings, n, deep, "),
        ("{deep.gone}", "'gone' is missing; there is 'list, dotted.name'"),
        ("{endings.2}", "'2' is missing; there is ['sat.', 'ran.']"),
        ("{ctx.x}", "'x' is missing; there is 'The cat'"),
        ("{flag}", "'flag' holds no text but True"),
        ("{none}", "'none' holds no text but None"),
        ("{endings}", "'endings' holds no text but ['sat.', 'ran.']"),
        ("{ctx|after #}", "'ctx' holds no '#'"),
    ],
)
def test_what_a_row_lacks_is_said_in_words(template, said):
    with pytest.raises(ValueError, match=r".") as error:
        Template(template).text(ROW)
    assert said in str(error.value)


def test_two_lists_or_none_make_no_choices():
    for template in ("{endings} {deep.list}", "{ctx}"):
        with pytest.raises(ValueError, match="wanted one field that holds a list"):
            Template(template).texts(ROW)


def test_nothing_of_a_template_is_run():
    # What str.format would do with these: show classes, call methods, take any width.
    for template in ("{ctx.__class__}", "{endings.__len__}"):
        with pytest.raises(ValueError, match="is missing"):
            Template(template).text(ROW)
    with pytest.raises(ValueError, match="is missing"):
        Template("{ctx!r:>1000000000}").text(ROW)


def test_lists_inside_lists_are_not_unfolded():
    bomb: list = ["x"]
    for _ in range(60):
        bomb = [bomb, bomb]
    with pytest.raises(ValueError, match="is missing"):
        Template("{bomb.text}").value({"bomb": bomb})
    with pytest.raises(ValueError, match="holds no text"):
        Template("{bomb}").texts({"bomb": bomb})
