"""Prompts are read from whatever asks: prompt-only rows, dialogues, rows of every form of preference data."""

from __future__ import annotations

import json

import pytest

from tiebreak.data.asking import read_prompts
from tiebreak.errors import DataError
from tiebreak.files import write_jsonl


def _read(tmp_path, *rows, **options):
    write_jsonl(tmp_path / "prompts.jsonl", rows)
    return read_prompts(str(tmp_path / "prompts.jsonl"), **options)


def _said(asked):
    return [(message.role, message.content) for message in asked.prompt]


USER = {"role": "user", "content": "how are you"}
ASSISTANT = {"role": "assistant", "content": "well"}
SINGLE = [
    ({"prompt": "what", "solution": "4", "level": None}, [("user", "what")], {"solution": "4"}, True, False),
    ({"prompt": [USER], "ground_truth": 7}, [("user", "how are you")], {"ground_truth": 7}, False, False),
    ({"messages": [USER]}, [("user", "how are you")], {}, False, False),
    ({"messages": [USER, ASSISTANT]}, [("user", "how are you")], {}, False, True),
    ({"prompt": [USER, ASSISTANT], "x": 1}, [("user", "how are you")], {"x": 1}, False, True),
    ({"conversations": [{"from": "human", "value": "hey"}]}, [("user", "hey")], {}, False, False),
    ({"input": {"messages": [USER]}}, [("user", "how are you")], {}, False, False),
    ({"question": "q", "answer": "a #### 3"}, [("user", "q")], {"answer": "a #### 3"}, True, True),
    ({"problem": "p", "solution": "s"}, [("user", "p")], {"solution": "s"}, True, False),
    ({"instruction": "do", "input": "this"}, [("user", "do\nthis")], {}, True, False),
    ({"prompt": "s", "system": "be brief"}, [("system", "be brief"), ("user", "s")], {}, False, False),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "gold": 1}, [("user", "p")], {"gold": 1}, True, True),
    ({"prompt": "p", "completion": "c", "label": True}, [("user", "p")], {}, True, True),
]


@pytest.mark.parametrize(("row", "prompt", "columns", "is_text", "has_answer"), SINGLE)
def test_a_row_is_read_as_what_it_asks(tmp_path, row, prompt, columns, is_text, has_answer):
    [asked] = _read(tmp_path, row).asked
    assert _said(asked) == prompt
    assert (dict(asked.columns), asked.is_text, asked.has_answer) == (columns, is_text, has_answer)
    assert str(asked.source) == "prompts.jsonl:1"


def test_a_pair_whose_answers_are_no_pair_still_asks(tmp_path):
    tied = {"prompt": "p", "chosen": "a", "rejected": "a"}
    scored = {"prompt": "q", "responses": ["a", "b"], "scores": [1, 1]}
    found = _read(tmp_path, tied, scored)
    assert [_said(one) for one in found.asked] == [[("user", "p")], [("user", "q")]]
    assert found.num_answered == 2


def test_a_prompt_counts_once_and_what_cannot_be_used_is_counted_by_reason(tmp_path):
    rows = [
        {"prompt": "p"}, {"prompt": " p "}, {"messages": [{"role": "user", "content": "p"}]}, {"prompt": ""},
        {"prompt": "x", "image": "cat.png"}, {"prompt": "\ud800"}, {"text": "a"}, {"messages": [ASSISTANT]},
        {"prompt": [{"role": "narrator", "content": "x"}]},
    ]  # fmt: skip
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"prompt": "n", "x": NaN}\nnot json\n')
    found = read_prompts(str(path))
    assert len(found.asked) == 1
    assert (found.num_records, found.num_repeated) == (11, 2)
    assert sum(found.reasons.values()) == 8
    assert found.reasons["no_prompt"] == 2
    assert found.dropped[0].source.line == 4
    with pytest.raises(DataError, match=r"prompts.jsonl:4: .*8 of 11 records hold no usable prompt, more than"):
        read_prompts(str(path), 0.5)


@pytest.mark.parametrize("rows", [[], [{"prompt": "  "}, {"prompt": ""}]])
def test_a_file_without_a_prompt_is_one_line(tmp_path, rows):
    with pytest.raises(
        DataError, match=r"prompts.jsonl(: the file holds no record|:1: .*no record of the file)"
    ) as one:
        _read(tmp_path, *rows)
    assert "\n" not in str(one.value)


def test_the_bundled_pairs_ask_and_files_held_out_by_name_are_told(tmp_path):
    assert len(read_prompts("bundled").asked) > 200
    write_jsonl(tmp_path / "train.jsonl", [{"prompt": "a"}, {"prompt": "b"}])
    write_jsonl(tmp_path / "test.jsonl", [{"prompt": "b"}, {"prompt": "c"}])
    found = read_prompts(str(tmp_path))
    assert len(found.asked) == 3
    assert len(found.held_out) == 2


def test_groups_decide_the_split(tmp_path):
    one, two = _read(tmp_path, {"prompt": "a", "group": "g"}, {"prompt": "b", "group": "g"}).asked
    assert one.prompt_id != two.prompt_id
    assert one.split_key == two.split_key != one.prompt_id
