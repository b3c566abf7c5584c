"""Judges by rule: functions that are found, called as TRL calls them, and believed only where they give numbers."""

from __future__ import annotations

import time

import pytest

from tiebreak.config import RuleJudge
from tiebreak.engine.answers.answerer import Chat
from tiebreak.errors import ConfigError
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.judge import Question
from tiebreak.evaluation.judges.table import JUDGES
from tiebreak.progress import Silent
from tiebreak.records import Message

CHAT = Chat((Message("system", "Be brief."), Message("user", "Say please.")))


class Told(Silent):
    """Remembers what is warned of."""

    def __init__(self):
        self.lines: list[str] = []

    def warn(self, text):
        self.lines.append(text)


def judged(reward, pairs, progress=None, **arguments):
    with JUDGES["rule"].make(RuleJudge(reward=reward, arguments=arguments), Given(progress or Silent())) as judge:
        return [one.first for one in judge.prefer([Question(CHAT, *pair) for pair in pairs])]


@pytest.fixture
def written(tmp_path):
    def write(body: str) -> str:
        path = tmp_path / "mine.py"
        path.write_text(body, encoding="utf-8")
        return f"{path}:f"

    return write


# -------------------------------------------------------------------------------------------------- functions of users


def test_a_function_is_told_conversations_as_trl_tells_them(written):
    reward = written(
        "def f(completions, prompts=None, word='please', **kwargs):\n"
        "    assert [m['role'] for c in completions for m in c] == ['assistant'] * len(completions)\n"
        "    assert [m['role'] for m in prompts[0]] == ['system', 'user'], prompts\n"
        "    return [c[0]['content'].count(word) for c in completions]\n"
    )
    assert judged(reward, [("please", "no"), ("no", "please please"), ("a", "b")]) == [1.0, 0.0, 0.5]
    assert judged(reward, [("please", "no")], word="no") == [0.0]


def test_functions_of_trl_itself_are_taken():
    thought, plain = "<think>\nwell\n</think>\nyes", "yes"
    assert judged("trl.rewards:think_format_reward", [(thought, plain), (plain, thought)]) == [1.0, 0.0]


def test_a_function_that_wants_completions_alone_gets_them(written):
    assert judged(
        written("def f(completions):\n    return [len(c[0]['content']) for c in completions]\n"), [("aa", "b")]
    ) == [1.0]


def test_none_is_no_rating_and_nothing_to_complain_of(written):
    told = Told()
    body = (
        "def f(completions, **kwargs):\n    return [None if 'skip' in c[0]['content'] else 1.0 for c in completions]\n"
    )
    assert judged(written(body), [("skip", "a"), ("a", "b")], told) == [None, 0.5]
    assert told.lines == []


WRONG = {
    "return [True for _ in completions]": "it returned True; return a number, such as 1.0",
    "return [float('nan') for _ in completions]": "it returned nan, which is no number to compare",
    "return [10**400, -(10**400)] * 2": "it returned inf, which is no number to compare",
    "return [1.0]": "it returned 1 numbers for 4 completions",
    "return 1.0": "it returned float, wanted a list of 4 numbers",
    "return None": "it returned NoneType, wanted a list of 4 numbers",
    "return '12'": "it returned str, wanted a list of 4 numbers",
    "return list('1234')": "it returned '1' in its list, wanted a number",
    "raise KeyError('solution')": "KeyError: 'solution'",
    "raise GeneratorExit": "GeneratorExit",
    "raise BaseException('as a library in Rust')": "BaseException: as a library in Rust",
    "import sys; sys.exit('enough')": "SystemExit: enough",
    "raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})()": "Odd",
    "return type('Odd', (list,), {'__iter__': lambda self: 1 / 0})([1.0] * len(completions))": (
        "ZeroDivisionError: division by zero"
    ),
    "return type('Odd', (list,), {'__len__': lambda self: 1 / 0})()": "ZeroDivisionError: division by zero",
    "return [type('Odd', (float,), {'__float__': lambda self: 1 / 0})()] * len(completions)": (
        "ZeroDivisionError: division by zero"
    ),
}


@pytest.mark.parametrize(("body", "words"), WRONG.items(), ids=WRONG)
def test_what_is_no_list_of_numbers_is_no_verdict_and_told_in_one_line(written, body, words):
    told = Told()
    reward = written(f"def f(completions, **kwargs):\n    {body}\n")
    assert judged(reward, [("a", "b"), ("c", "d")], told) == [None, None]
    assert told.lines[0] == f"rule {reward}: 4 of 4 answers have no rating: {words}"
    assert len(told.lines) == 1


def test_an_interruption_of_a_function_is_one(written):
    with pytest.raises(KeyboardInterrupt):
        judged(written("def f(completions, **kwargs):\n    raise KeyboardInterrupt\n"), [("a", "b")])


def test_what_a_function_prints_is_prose_and_no_result(written, capsys):
    body = "print('at import')\ndef f(completions, **kwargs):\n    print('in a call')\n    return [1.0] * 2\n"
    assert judged(written(body), [("a", "b")]) == [0.5]
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "at import\nin a call\n"


def test_a_key_that_a_function_tells_of_is_masked(written, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "acct:9f8e7d6c5b4a3210\n")
    told = Told()
    body = "import os\ndef f(completions, **kwargs):\n    raise ValueError(repr(os.environ['MY_API_KEY'].encode()))\n"
    judged(written(body), [("a", "b")], told)
    assert told.lines[0].endswith("ValueError: b'***'")


def test_a_function_that_raises_for_one_answer_rates_the_others(written):
    told = Told()
    body = "def f(completions, **kwargs):\n    return [1 / len(c[0]['content']) for c in completions]\n"
    assert judged(written(body), [("aa", "b"), ("", "b"), ("c", "dd")], told) == [0.0, None, 1.0]
    assert "1 of 6 answers have no rating: ZeroDivisionError" in told.lines[0]


def test_numbers_of_numpy_are_numbers(written):
    body = (
        "import numpy as np\ndef f(completions, **kwargs):\n"
        "    return list(np.float32([len(c[0]['content']) for c in completions]))\n"
    )
    assert judged(written(body), [("aa", "b")]) == [1.0]


REFUSED = {
    "def g(completions): ...": "has no function 'f'",
    "f = 3": "has no function 'f'",
    "async def f(completions): ...": "is asynchronous; wrap it in a function that runs it",
    "def f(texts): ...": r"takes no 'completions'; wanted def f\(completions, prompts=None, \*\*kwargs\)",
    "def f(completions, solution): ...": r"wants the argument 'solution', as in judge\.arguments\.solution=",
    "def f(completions, completion_ids): ...": "wants the argument 'completion_ids', which only a trainer has",
    "raise ValueError('at import')": r"cannot be imported \(ValueError: at import\)",
    "import sys; sys.exit()": r"cannot be imported \(SystemExit",
    "raise GeneratorExit": r"cannot be imported \(GeneratorExit\)",
    "raise BaseException('odd')": r"cannot be imported \(BaseException: odd\)",
    "def __getattr__(name): raise RuntimeError('lazy')": r"cannot be imported \(RuntimeError: lazy\)",
    "def f(:": r"cannot be imported \(SyntaxError",
}


@pytest.mark.parametrize(("body", "words"), REFUSED.items(), ids=REFUSED)
def test_what_is_no_reward_function_is_refused_before_anything_is_rated(written, body, words):
    with pytest.raises(ConfigError, match=f"^rule .*mine.py:f: .*{words}") as refusal:
        judged(written(body), [("a", "b")])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        ("lenght_band", r"is not built in, wanted one of regex, .*\. Did you mean 'length_band'\?"),
        ("nowhere.py:f", "no such file nowhere.py"),
        ("math:sqrt", "takes no 'completions'"),
        ("builtins:print", "takes no 'completions'"),
        ("sys:exit", "takes no 'completions'"),
        ("no_such_module_at_all:f", "cannot be imported .ModuleNotFoundError"),
        (
            "tiebreak.evaluation.judges.rewards:repetitoin",
            r"has no function 'repetitoin'\. Did you mean 'repetition'\?",
        ),
    ],
)
def test_a_name_of_nothing_is_refused_with_the_nearest_one(reward, words):
    with pytest.raises(ConfigError, match=words):
        judged(reward, [])


def test_a_changed_function_or_argument_is_another_judge(written):
    def identity(reward, **arguments):
        with JUDGES["rule"].make(RuleJudge(reward=reward, arguments=arguments), Given()) as judge:
            return judge.identity

    body = "def f(completions, **kwargs):\n    return [1.0] * len(completions)\n"
    first = identity(written(body))
    assert identity(written(body)) == first
    assert len({first, identity(written(body), word="a"), identity(written(body + "# changed\n"))}) == 3


def test_what_stands_in_a_file_that_arguments_name_is_part_of_the_judge(tmp_path):
    def identity(reward, **arguments):
        with JUDGES["rule"].make(RuleJudge(reward=reward, arguments=arguments), Given()) as judge:
            return judge.identity

    schema = tmp_path / "schema.json"
    found = []
    for text in ('{"type": "object"}', '{"type": "array"}', '{"type": "object"}'):
        schema.write_text(text)
        found.append(identity("json_schema", schema=str(schema)))
    assert found[0] == found[2] != found[1]


def test_another_version_is_another_judge(monkeypatch):
    def identity():
        with JUDGES["rule"].make(RuleJudge(reward="repetition"), Given()) as judge:
            return judge.identity

    before = identity()
    monkeypatch.setattr("importlib.metadata.version", lambda _: "999")
    assert identity() != before


# ----------------------------------------------------------------------------------------------------------- built in


BUILT_IN = [
    ("regex", {"pattern": r"^- "}, "- a list", "no list", 1.0),
    ("regex", {"pattern": "sorry", "wanted": False}, "I am sorry", "Here it is", 0.0),
    ("json_schema", {"schema": {"type": "object", "required": ["a"]}}, '{"a": 1}', "{}", 1.0),
    ("json_schema", {"schema": {"type": "number"}}, "Here:\n```json\n3\n```", "3 or so", 1.0),
    ("json_schema", {"schema": {"type": "number"}}, "Here:\r\n```json \r\n\r\n3\r\n\r\n  ```\r\n", "3 or so", 1.0),
    ("json_schema", {"schema": {"type": "number"}}, "```\n3\n```\nor\n```\n4\n```", "```json\n3", 0.5),
    ("json_schema", {"schema": {}}, "NaN", "[1]", 0.0),
    ("json_schema", {"schema": {}}, "[" * 100_000, "9" * 5000, 0.5),
    ("length_band", {"least": 3}, "one two", "one two three", 0.0),
    ("length_band", {"least": 2, "most": 4}, "a b c", "a b", 0.5),
    ("length_band", {"most": 4}, "a b c d e f", "a b c d e", 0.0),
    ("length_band", {"least": 2}, "", "a", 0.0),
    ("length_band", {"least": 3}, "好", "天气好", 0.0),
    ("length_band", {"most": 3, "unit": "characters"}, "abc", "abcd", 1.0),
    ("repetition", {}, "The sun sets behind the hills, and the lake turns gold.", "I see. " * 30, 1.0),
    ("exact_answer", {"answer": 42}, "42.0", "43", 1.0),
    ("exact_answer", {"answer": "1,250"}, " **1250** ", "1,25", 1.0),
    ("exact_answer", {"answer": "Paris"}, "paris.", "Paris it is", 1.0),
    ("exact_answer", {"answer": "7", "pattern": "#### (.+)"}, "3 + 4\n#### 6\n#### 7", "7", 1.0),
    ("exact_answer", {"answer": "123"}, "123.0", "1, 2, 3", 1.0),
    ("exact_answer", {"answer": "123"}, "12 3", "1 24", 0.5),
    ("exact_answer", {"answer": 5}, "5%", "6", 0.5),
    ("exact_answer", {"answer": "5%"}, "**5.0 %**", "5", 1.0),
    ("exact_answer", {"answer": 1250000}, "1\u00a0250\u00a0000.", "1,25,0000", 1.0),
    ("exact_answer", {"answer": "0.5"}, ".50", "5", 1.0),
    ("exact_answer", {"answer": -3}, "(\u22123)", "3", 1.0),
    ("exact_answer", {"answer": "12_3"}, "123", "124", 0.5),
    ("exact_answer", {"answers": {"Say please.": "please"}}, "Please!", "thanks", 1.0),
    ("exact_answer", {"answers": {"Other.": "x"}}, "x", "y", None),
]


@pytest.mark.parametrize(("reward", "arguments", "first", "second", "preferred"), BUILT_IN)
def test_what_is_built_in_prefers_what_it_says(reward, arguments, first, second, preferred):
    assert judged(reward, [(first, second)], **arguments) == [preferred]


@pytest.mark.parametrize(
    ("reward", "arguments", "words"),
    [
        ("regex", {}, "wants the argument 'pattern', as in judge.arguments.pattern="),
        ("regex", {"pattern": "("}, "pattern: not a regular expression"),
        ("regex", {"pattern": 3}, "pattern: not a regular expression"),
        ("regex", {"pattern": b"a"}, "pattern: not a regular expression"),
        *(
            ("regex", {"pattern": "a", "wanted": one}, "wanted: found .*, wanted true or false")
            for one in ("no", "false", "maybe", 0, 5, None, [])
        ),
        *(
            ("json_schema", {"schema": one}, "schema: found .*, wanted a mapping or the name of a file")
            for one in (True, 3, None, [], ["a"])
        ),
        *(
            ("exact_answer", {"answer": one}, "answer: found .*, wanted text or a number")
            for one in (True, [], {"a": 1})
        ),
        *(
            ("exact_answer", {"answers": one}, "answers: found .*, wanted a mapping or the name of a file")
            for one in (True, 3, [], [["a", "b"]])
        ),
        ("exact_answer", {"answers": {"a": ["b"]}}, r"answers: found \['b'\], wanted text or a number"),
        ("exact_answer", {"answer": "a", "pattern": 3}, "pattern: not a regular expression"),
        *(("language", {"language": one}, "language: found .*, wanted text") for one in (False, 3, ["en"], {})),
        ("length_band", {"least": None}, "least: found None, wanted a number of words"),
        ("length_band", {"least": float("inf")}, "least: found inf, wanted a number of words"),
        ("length_band", {"most": 10**400}, "most: found 1000.*, wanted a number"),
        ("length_band", {"most": "3"}, "most: found '3', wanted a number of words"),
        ("length_band", {"unit": ["words"]}, "unit: found .'words'., wanted words or characters"),
        ("regex", {"patern": "a"}, r"has no argument 'patern'; it takes pattern, wanted\. Did you mean 'pattern'\?"),
        ("repetition", {"least": 1}, "has no argument 'least'; it takes none"),
        ("length_band", {"least": "3"}, "least: found '3', wanted a number of words"),
        ("length_band", {"least": True}, "least: found True, wanted a number of words"),
        ("length_band", {"least": float("nan")}, "least: found nan, wanted a number of words"),
        ("length_band", {"least": 5, "most": 4}, "most: found 4, less than least 5"),
        ("length_band", {"unit": "tokens"}, "unit: found 'tokens', wanted words or characters"),
        ("json_schema", {"schema": {"type": "objekt"}}, "schema: no JSON schema"),
        ("json_schema", {"schema": "nowhere.json"}, "schema: no JSON file that can be read"),
        ("exact_answer", {}, "wanted answer, one for all prompts, or answers"),
        ("exact_answer", {"answers": "nowhere.jsonl"}, "answers: nowhere.jsonl cannot be read"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(reward, arguments, words):
    with pytest.raises(ConfigError, match=words) as refusal:
        judged(reward, [], **arguments)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text", ["```json" + "\n" * 2_000, "a```\n" * 20_000, "```" + " " * 50_000, "```\n" + "\n  " * 20_000]
)
def test_fences_without_an_end_are_read_at_once(text):
    started = time.perf_counter()
    assert judged("json_schema", [(text, "3")], schema={"type": "number"}) == [0.0]
    assert time.perf_counter() - started < 1


def test_a_schema_that_refers_to_an_address_fetches_nothing():
    told = Told()
    schema = {"$ref": "http://127.0.0.1:9/schema.json"}
    assert judged("json_schema", [("1", "2")], told, schema=schema) == [None]
    assert "refers to what does not stand in it" in told.lines[0]


def test_answers_may_stand_in_a_file_and_its_broken_line_is_named(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"prompt": "Say please.", "answer": "please"}\n\n{"prompt": "Other."}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r'answers.jsonl:3: wanted {"prompt": …, "answer": …}'):
        judged("exact_answer", [], answers=str(path))
    path.write_text('{"prompt": "Say please.", "answer": "please"}\n', encoding="utf-8")
    assert judged("exact_answer", [("please", "no")], answers=str(path)) == [1.0]


def test_a_language_is_told_apart_and_the_prompts_own_is_the_default():
    pytest.importorskip("py3langid", reason="the extra 'language' is not installed")
    german, english = "Das ist ein kurzer Satz über das Wetter.", "This is a short sentence about the weather."
    assert judged("language", [(german, english)], language="de") == [1.0]
    assert judged("language", [(english, german), ("42", english)]) == [1.0, None]
    with pytest.raises(ConfigError, match="language: found 'german', wanted a code of ISO 639-1"):
        judged("language", [], language="german")
