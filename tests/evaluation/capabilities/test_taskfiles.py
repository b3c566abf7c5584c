from __future__ import annotations

import gzip
import json
import os
import time

import pytest

from tiebreak.errors import ConfigError, DataError, TiebreakError
from tiebreak.evaluation.capabilities.taskfiles import load_tasks

QUESTIONS = [
    {"question": "What is the capital of France?", "choices": ["Rome", "Paris", "Oslo"], "answer": "Paris"},
    {"question": "How many legs has a spider?", "choices": ["two", "eight", "five"], "answer": "eight"},
    {"question": "What colour is snow?", "choices": ["white", "green", "black"], "answer": "white"},
]
CHOICE = "name: mine\nkind: multiple_choice\n"


def written(folder, task=CHOICE + "data: q.jsonl\n", rows=QUESTIONS, name="mine.yaml"):
    (folder / name).write_text(task, encoding="utf-8")
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / name


def refusal(*paths) -> str:
    with pytest.raises(TiebreakError) as error:
        load_tasks(paths)
    said = str(error.value)
    assert "\n" not in said
    return said


def test_ten_lines_of_yaml_are_a_task(tmp_path):
    path = tmp_path / "capitals.yaml"
    path.write_text(
        """
name: capitals
kind: multiple_choice
items:
- question: What is the capital of France?
  choices: [Rome, Paris, Oslo]
  answer: Paris
- question: What is the capital of Norway?
  choices: [Rome, Paris, Oslo]
  answer: Oslo
""",
        encoding="utf-8",
    )
    [task] = load_tasks([path])
    assert [item.right for item in task.items] == [("Paris",), ("Oslo",)]
    assert [item.source.line for item in task.items] == [5, 8]


def test_data_stands_beside_the_task_file_and_may_be_packed(tmp_path, monkeypatch):
    path = written(tmp_path, CHOICE + "data: packed\n")
    with gzip.open(tmp_path / "packed", "wb") as file:
        file.write((tmp_path / "q.jsonl").read_bytes())
    monkeypatch.chdir("/")
    [task] = load_tasks([path])
    assert [item.question for item in task.items] == [row["question"] for row in QUESTIONS]
    assert [item.source.line for item in task.items] == [1, 2, 3]


def test_which_questions_a_limit_takes_does_not_hang_on_their_order(tmp_path):
    rows = [{"question": f"{n} + 1?", "choices": ["x", "y"], "answer": 0} for n in range(40)]
    task = CHOICE + "data: q.jsonl\nlimit: 10\n"
    [one] = load_tasks([written(tmp_path, task, rows)])
    [two] = load_tasks([written(tmp_path, task, rows[::-1])])
    assert len(one.items) == 10
    assert one.num_beyond == 30
    assert {item.item_id for item in one.items} == {item.item_id for item in two.items}
    assert one.fingerprint == two.fingerprint
    assert [item.question for item in one.items] == [item.question for item in two.items][::-1]
    [more] = load_tasks([written(tmp_path, task.replace("10", "11"), rows)])
    assert {item.item_id for item in one.items} < {item.item_id for item in more.items}


def test_the_same_question_twice_is_asked_once_and_counted(tmp_path):
    [task] = load_tasks([written(tmp_path, rows=[*QUESTIONS, QUESTIONS[0]])])
    assert (len(task.items), task.num_twice) == (3, 1)


def test_the_right_answer_is_a_text_a_place_a_label_or_a_mark(tmp_path):
    def right(task, *rows):
        [found] = load_tasks([written(tmp_path, CHOICE + "data: q.jsonl\n" + task, rows)])
        return [item.right[0] for item in found.items]

    asked = {"question": "q", "choices": ["x", "y"]}
    assert right("", asked | {"answer": "y"}) == ["y"]
    assert right("", asked | {"answer": 1}) == ["y"]
    assert right("", asked | {"answer": [0, 1]}) == ["y"]
    assert right("", asked | {"answer": [False, True]}) == ["y"]
    assert right("labels: [A, B]\n", asked | {"answer": "B"}) == ["y"]
    assert right('labels: ["1", "2"]\n', asked | {"answer": "2"}) == ["y"]
    assert right("labels: [1, 2]\n", asked | {"answer": 2}) == ["y"]
    labelled = {"question": "q", "options": [{"label": "1", "text": "x"}, {"label": "2", "text": "y"}], "answer": "2"}
    assert right('choices: "{options.text}"\nlabels: "{options.label}"\n', labelled) == ["y"]
    marked = {"question": "q", "targets": {"x": 0, "y": 1}}
    assert right('choices: "{targets}"\nanswer: "{targets}"\n', marked) == ["y"]
    columns = {"question": "q", "a": "x", "b": "y", "answer": 0}
    assert right('choices: ["{a}", "{b}"]\n', columns) == ["x"]
    # The choices themselves may be what labels look like: the text of a choice comes first where no label is named.
    assert right("", {"question": "q", "choices": ["B", "A"], "answer": "A"}) == ["A"]


@pytest.mark.parametrize(
    ("choices", "answer", "by_text", "by_place"),
    [
        ([1, 2, 3, 0], 2, "2", "3"),
        (["1", "2", "3", "0"], 2, "2", "3"),
        ([1, 2, 3, 0], "2", "2", "3"),
        (["10", "0"], 0, "0", "10"),
        ([5, 1, 3], "1", "1", "1"),
        ([0, 1, 2], 1, "1", "1"),
        ([1, 2, 5], 5, "5", None),
        ([-1, 0, 1], 0, "0", "-1"),
    ],
)
def test_a_number_that_is_a_choice_and_the_place_of_another_is_no_answer_until_labels_say_which(
    tmp_path, choices, answer, by_text, by_place
):
    row = {"question": "q", "choices": choices, "answer": answer}

    def right(labels):
        [task] = load_tasks([written(tmp_path, CHOICE + f"data: q.jsonl\n{labels}", [row])])
        return task.items[0].right[0]

    assert right("labels: choices\n") == by_text
    if by_place is None:
        assert "is none of the places" in refusal(written(tmp_path, CHOICE + "data: q.jsonl\nlabels: places\n", [row]))
        assert "say labels: choices" in refusal(written(tmp_path, rows=[row]))
    elif by_text == by_place:
        assert right("") == right("labels: places\n") == by_text
    else:
        assert right("labels: places\n") == by_place
        told = refusal(written(tmp_path, rows=[QUESTIONS[0], row]))
        assert told.startswith(
            f"{tmp_path / 'q.jsonl'}:2: answer {answer!r} is the choice '{by_text}', and the place of"
        )
        assert told.endswith("labels: choices, or labels: places")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "q", "choices": ["x", "y"]}, "'answer' is missing; there is 'question, choices'"),
        ({"question": "q", "choices": ["x", "y"], "answer": "z"}, "answer 'z' is not among the choices ['x', 'y']"),
        ({"question": "q", "choices": ["x", "y"], "answer": "B"}, "name that as labels"),
        ({"question": "q", "choices": ["x", "y"], "answer": 2}, "answer 2 is no place among 2 choices, counted from 0"),
        ({"question": "q", "choices": ["x", "y"], "answer": True}, "answer True is not among the choices"),
        ({"question": "q", "choices": ["x", "y"], "answer": [1, 1]}, "wanted one 1 among a mark for each of 2"),
        ({"question": "q", "choices": ["x", "x"], "answer": "x"}, "the choice 'x' is there twice"),
        ({"question": "q", "choices": ["x"], "answer": "x"}, "wanted 2 to 100 choices, found 1"),
        ({"question": "q", "choices": ["x", " "], "answer": "x"}, "choice 2 is empty"),
        ({"question": " ", "choices": ["x", "y"], "answer": "x"}, "the question is empty"),
        ({"question": None, "choices": ["x", "y"], "answer": "x"}, "'question' holds no text but None"),
        (["no", "object"], "wanted an object with the fields of a question, found ['no', 'object']"),
    ],
)
def test_a_row_that_is_no_question_is_told_with_its_file_and_line(tmp_path, row, said):
    path = written(tmp_path, rows=[QUESTIONS[0], row])
    told = refusal(path)
    assert told.startswith(f"{tmp_path / 'q.jsonl'}:2: ")
    assert said in told


def test_rows_that_are_no_questions_are_left_out_only_where_a_task_says_so(tmp_path):
    rows = [*QUESTIONS, QUESTIONS[0] | {"answer": "nowhere"}]
    [task] = load_tasks([written(tmp_path, CHOICE + "data: q.jsonl\nmax_dropped_share: 0.25\n", rows)])
    assert len(task.items) == 3
    [dropped] = task.dropped
    assert dropped.startswith(f"{tmp_path / 'q.jsonl'}:4: answer 'nowhere'")
    told = refusal(written(tmp_path, CHOICE + "data: q.jsonl\nmax_dropped_share: 0.2\n", rows))
    assert "1 of 4 rows are no questions, more than max_dropped_share 0.2" in told


@pytest.mark.parametrize(
    ("task", "line", "said"),
    [
        ("name: mine\ndata: q.jsonl\n", None, "'kind' is missing; kind is one of multiple_choice, exact_answer"),
        ("name: mine\nkind: quiz\ndata: q.jsonl\n", 2, "kind: found 'quiz'; kind is one of"),
        ("kind: multiple_choice\ndata: q.jsonl\n", None, "'name' is missing"),
        ("name: a b\nkind: multiple_choice\ndata: q.jsonl\n", 1, "name: found 'a b'"),
        (CHOICE + "dta: q.jsonl\n", 3, "has no setting 'dta'. Did you mean 'data'?"),
        (CHOICE + "data: q.jsonl\nas: prose\n", 4, "as: found 'prose'"),
        (CHOICE + "data: q.jsonl\nmetric: f1\n", 4, "metric: found 'f1'"),
        (CHOICE + "data: q.jsonl\nlimit: 0\n", 4, "limit: found 0"),
        (CHOICE + "data: q.jsonl\nlimit: many\n", 4, "limit: found 'many'"),
        (CHOICE + "data: gone.jsonl\n", 3, "no such file"),
        (CHOICE, 1, "wanted data (a file) or items"),
        (CHOICE + "data: q.jsonl\nitems: [{question: q}]\n", 1, "wanted data (a file) or items"),
        (CHOICE + "data: q.jsonl\nending: x\n", 1, "ending is for 'as: text'"),
        (CHOICE + "data: q.jsonl\nquestion: question\n", None, "question is the same for every row; name a field"),
        (CHOICE + 'data: q.jsonl\nquestion: "{question"\n', None, "a brace has no other"),
        ("name: e\nkind: exact_answer\ndata: q.jsonl\npattern: '('\n", 4, "pattern: found '('; not a regular"),
        ("name: t\nkind: text\nitems: [{text: a}]\nchunk: 200\n", 1, "chunk cuts a file of plain text"),
        ("- a list\n", None, "wanted settings like 'name:' and 'kind:'"),
        ("", None, "wanted settings like 'name:' and 'kind:'"),
        ("name: [", None, "not valid YAML"),
        ("name: a\nname: b\n", None, "key 'name' is given twice"),
        ("name: !!python/object/apply:os.system [echo]\n", None, "not valid YAML"),
    ],
)
def test_what_is_wrong_in_a_task_file_is_one_line_with_its_place(tmp_path, task, line, said):
    path = written(tmp_path, task)
    told = refusal(path)
    assert told.startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert said in told


def test_a_fault_in_a_question_of_the_yaml_itself_has_its_line(tmp_path):
    path = written(tmp_path, CHOICE + "items:\n- question: q\n  choices: [x, y]\n  answer: x\n- question: q\n")
    assert refusal(path) == f"{path}:7: 'choices' is missing; there is 'question'"


def test_two_tasks_of_one_name_are_refused(tmp_path):
    one = written(tmp_path)
    two = written(tmp_path, CHOICE.replace("mine", "Mine") + "data: q.jsonl\n", name="two.yaml")
    assert refusal(one, two) == f"{two}: another task is called 'Mine' as well ({one}); rename one"


def test_what_is_no_file_does_not_hang(tmp_path):
    assert "no such file" in refusal(tmp_path / "gone.yaml")
    assert "is a folder" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe" in refusal(tmp_path / "pipe")
    path = written(tmp_path, CHOICE + "data: pipe\n")
    assert "is a pipe" in refusal(path)
    (tmp_path / "latin").write_bytes(b"name: \xff\n")
    assert "cannot be read as UTF-8" in refusal(tmp_path / "latin")


def test_hostile_yaml_is_refused_at_once(tmp_path):
    begun = time.monotonic()
    lists = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" if n else "a0: &a0 [x]" for n in range(30))
    bomb = f"{lists}\n{CHOICE}items: [{{question: *a29, choices: *a29, answer: *a29}}]\n"
    assert "has no setting 'a0'" in refusal(written(tmp_path, bomb))
    inside = f"{CHOICE}items:\n- {{{', '.join(lists.splitlines())}, question: q, choices: *a29, answer: x}}\n"
    assert "holds no text" in refusal(written(tmp_path, inside))
    assert "nested too deeply" in refusal(written(tmp_path, CHOICE + "items: " + "[" * 1500))
    assert "larger than 4 MiB" in refusal(written(tmp_path, CHOICE + "# " + "x" * 2**22))
    assert time.monotonic() - begun < 100


def test_plain_text_is_cut_at_line_ends_into_pieces(tmp_path):
    lines = ["x" * 60, "y" * 60, "", "z" * 130, "w"]
    (tmp_path / "book.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    [task] = load_tasks([written(tmp_path, "name: book\nkind: text\ndata: book.txt\nchunk: 100\n")])
    assert [item.question for item in task.items] == ["\n".join(lines[:2]), "\n".join(lines[2:4]), "w"]
    assert [item.source.line for item in task.items] == [1, 3, 5]
    (tmp_path / "book.txt").write_bytes(b"fine\n\xff\n")
    path = written(tmp_path, "name: book\nkind: text\ndata: book.txt\nchunk: 100\n")
    assert refusal(path).startswith(f"{tmp_path / 'book.txt'}:2: is no UTF-8 text")


def test_an_empty_file_is_no_task(tmp_path):
    with pytest.raises(DataError, match=r"holds no question; q\.jsonl is empty"):
        load_tasks([written(tmp_path, rows=[])])


def test_a_broken_line_of_data_is_told(tmp_path):
    path = written(tmp_path)
    (tmp_path / "q.jsonl").write_text(json.dumps(QUESTIONS[0]) + '\n{"question": \n', encoding="utf-8")
    with pytest.raises(DataError, match=r"q\.jsonl:2: not JSON"):
        load_tasks([path])


def test_no_path_no_task():
    assert load_tasks([]) == []
    with pytest.raises(ConfigError):
        load_tasks(["nowhere.yaml"])
