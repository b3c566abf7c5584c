"""Files of reward functions as people write them for TRL run as they stand; their faults are named, not guessed at."""

from __future__ import annotations

import pytest

from tiebreak.config import RuleJudge
from tiebreak.engine.answers.answerer import Answer, Chat
from tiebreak.errors import ConfigError, JudgeError
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.judge import Question
from tiebreak.evaluation.judges.table import JUDGES
from tiebreak.progress import Silent
from tiebreak.records import Message

GRPO = '''
import re

def accuracy_reward(completions, solution, **kwargs):
    """Reward function that checks if the completion is the same as the ground truth."""
    rewards = []
    for completion, wanted in zip(completions, solution):
        found = re.search(r"#### (.+)", completion[0]["content"])
        rewards.append(None if wanted is None else float(found is not None and found[1] == wanted))
    return rewards

def format_reward(completions, **kwargs):
    pattern = r"^<think>.*?</think><answer>.*?</answer>$"
    completion_contents = [completion[0]["content"] for completion in completions]
    return [1.0 if re.match(pattern, content) else 0.0 for content in completion_contents]
'''
LENGTH = "def reward_len(completions, **kwargs):\n    return [float(len(c)) for c in completions]\n"


class Told(Silent):
    """Remembers what is said."""

    def __init__(self):
        self.lines: list[str] = []

    def say(self, text):
        self.lines.append(text)

    warn = say


def chat(text: str, is_text: bool = False, **columns) -> Chat:
    return Chat((Message("user", text),), columns=columns, is_text=is_text)


def rows(*prompts: tuple[Chat, list[str]]) -> list[tuple[Chat, list[Answer]]]:
    return [(one, [Answer(text, tuple(range(len(text))), finished=True) for text in texts]) for one, texts in prompts]


@pytest.fixture
def stand(tmp_path):
    """Stands over answers by the function of a file."""

    def judged(body, answered, name="f", progress=None, beforehand=True, **settings):
        path = tmp_path / "rewards.py"
        path.write_text(body, encoding="utf-8")
        asked = RuleJudge(reward=f"{path}:{name}", **settings)
        given = Given(progress or Silent(), answered=answered if beforehand else None)
        with JUDGES["rule"].make(asked, given) as judge:
            return [one.scores for one in judge.stand([one for one, _ in answered], [some for _, some in answered])]

    return judged


MATHS = rows(
    (chat("2 + 2", solution="4"), ["#### 4", "#### 5", "#### 4"]),
    (chat("3 + 3", solution="6"), ["six", "#### 6"]),
    (chat("no one knows"), ["#### 1", "#### 2"]),
)


def test_a_function_of_chats_reads_the_columns_of_its_prompts(stand):
    found = stand(GRPO, MATHS, "accuracy_reward")
    assert found == [(1.0, 0.0, 1.0), (0.0, 1.0), (None, None)]
    answered = rows((chat("x"), ["<think>a</think><answer>b</answer>", "b"]))
    assert stand(GRPO, answered, "format_reward") == [(1.0, 0.0)]


def test_the_same_file_runs_on_prompts_that_are_text(stand):
    """`completion[0]["content"]` raises on text, so that messages are what it is made for."""
    told = Told()
    answered = rows(*((chat(one.messages[0].content, True, **one.columns), [a.text for a in some])
                      for one, some in MATHS))  # fmt: skip
    assert stand(GRPO, answered, "accuracy_reward", told) == [(1.0, 0.0, 1.0), (0.0, 1.0), (None, None)]
    assert [line.partition(": ")[2] for line in told.lines] == ["takes completions as messages, as was tried"]


def test_a_function_of_texts_runs_on_prompts_that_are_text(stand):
    body = "def f(prompts, completions):\n    return [c.split().count(p) for p, c in zip(prompts, completions)]\n"
    assert stand(body, rows((chat("ab", True), ["ab ab", "b"]))) == [(2.0, 0.0)]


def test_a_function_that_takes_both_is_given_text_as_trl_gives_it(stand):
    answered = rows((chat("x", True), ["four", "sevenly"]))
    assert stand(LENGTH, answered, "reward_len") == [(4.0, 7.0)]
    assert stand(LENGTH, answered, "reward_len", completions="text") == [(4.0, 7.0)]
    assert stand(LENGTH, answered, "reward_len", completions="messages") == [(1.0, 1.0)]


def test_a_function_that_gives_numbers_in_neither_way_says_what_each_gave(stand):
    body = "def f(completions, **kwargs):\n    return [c.nothing() for c in completions]\n"
    each = r"prompt [0-9a-f]{12}: it raised AttributeError: "
    with pytest.raises(JudgeError, match=rf"gives no numbers: as text, {each}'str' .*; as messages, {each}'list' "):
        stand(body, rows((chat("x", True), ["a", "b"])))


def test_chats_are_never_given_as_text_unless_that_is_said(stand):
    body = "def f(prompts, completions):\n    return [float(isinstance(c, list) and isinstance(p, list))\n" \
           "            for p, c in zip(prompts, completions)]\n"  # fmt: skip
    assert stand(body, rows((chat("x"), ["a", "b"]), (chat("y", True), ["a"]))) == [(1.0, 1.0), (1.0,)]
    assert stand(body, rows((chat("x"), ["a", "b"])), completions="text") == [(0.0, 0.0)]


def test_all_that_a_trainer_tells_is_there(stand):
    body = """
def f(prompts, completions, completion_ids, trainer_state, log_extra, log_metric, **kwargs):
    log_extra("length", [len(ids) for ids in completion_ids])
    log_metric("mean", 0.5)
    assert trainer_state is None
    assert sorted(kwargs) == ["level", "solution"], kwargs
    assert kwargs["solution"] == ["4", "4", None], kwargs
    assert kwargs["level"] == [None, None, {"name": "hard"}], kwargs
    return [float(len(ids)) for ids in completion_ids]
"""
    answered = rows((chat("a", solution="4"), ["xx", "y"]), (chat("b", level={"name": "hard"}), ["zzz"]))
    assert stand(body, answered) == [(2.0, 1.0), (3.0,)]


def test_columns_reach_a_function_also_between_two_answers(tmp_path):
    path = tmp_path / "rewards.py"
    path.write_text(GRPO)
    with JUDGES["rule"].make(RuleJudge(reward=f"{path}:accuracy_reward"), Given(answered=MATHS)) as judge:
        [said] = judge.prefer([Question(MATHS[0][0], "#### 4", "#### 5")])
    assert said.first == 1.0


def test_an_argument_of_the_settings_comes_before_a_column_of_its_name(stand):
    body = "def f(completions, word=None, **kwargs):\n    return [float(word == 'mine') for _ in completions]\n"
    assert stand(body, rows((chat("a", word="theirs"), ["x"])), arguments={"word": "mine"}) == [(1.0,)]
    assert stand(body, rows((chat("a", word="theirs"), ["x"]))) == [(0.0,)]


def test_columns_with_the_names_of_trls_own_keywords_are_not_given(stand):
    body = "def f(completions, **kwargs):\n    assert 'prompt' not in kwargs\n    return [1.0] * len(completions)\n"
    assert stand(body, rows((chat("a", prompt="p", completions="c", prompts=["x"], environments=1), ["x"]))) == [(1.0,)]


def test_built_in_rules_keep_their_own_arguments_whatever_columns_are_called():
    answered = rows((chat("a", answer="no", pattern="x"), ["yes", "no"]))
    with JUDGES["rule"].make(
        RuleJudge(reward="exact_answer", arguments={"answer": "yes"}), Given(answered=answered)
    ) as judge:
        assert judge.stand([one for one, _ in answered], [some for _, some in answered])[0].scores == (1.0, 0.0)


# ------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("answered", "words"),
    [
        (rows((chat("a"), ["x"])), "which no row of the prompts has; they have none; name the function's own argument"),
        (rows((chat("a", solutoin="4"), [])), r"they have solutoin; .*Did you mean 'solutoin'\?"),
    ],
)
def test_a_column_that_no_row_has_is_named_before_anything_is_rated(stand, answered, words):
    with pytest.raises(
        ConfigError, match=f"rewards.py:accuracy_reward: wants the column 'solution', .*{words}"
    ) as told:
        stand(GRPO, answered, "accuracy_reward")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["completion_ids", "environments"])
def test_what_only_a_trainer_has_is_refused_by_name(stand, name):
    body = f"def f(completions, {name}):\n    return [1.0] * len(completions)\n"
    answered = rows((chat("a"), ["x"]))
    with pytest.raises(ConfigError, match=f"wants the argument '{name}', which only a trainer has"):
        stand(body, answered, beforehand=name != "completion_ids")


def test_ids_that_are_not_known_are_refused_by_name(stand):
    body = "def f(completions, completion_ids=None):\n    return [1.0] * len(completions)\n"
    answered = [(chat("a"), [Answer("text", (), finished=True)])]
    with pytest.raises(JudgeError, match="it takes completion_ids, and those of these answers are not known"):
        stand(body, answered)


FAULTS = {
    "raise KeyError('solution')": "it raised KeyError: 'solution'",
    "return [1.0]": "it returned 1 numbers for 2 completions",
    "return 1.0": "it returned float, wanted a list of 2 numbers",
    "return [1.0, float('nan')]": "it returned nan, which is no number to compare",
    "return [float('inf'), 1.0]": "it returned inf, which is no number to compare",
    "return [True, False]": "it returned True; return a number, such as 1.0",
    "return ['0.5', 1.0]": "it returned '0.5' in its list, wanted a number",
    "return [[0.5], 1.0]": r"it returned \[0.5\] in its list, wanted a number",
    "raise SystemExit(3)": "it raised SystemExit: 3",
}


@pytest.mark.parametrize(("body", "words"), FAULTS.items(), ids=FAULTS)
def test_a_fault_is_named_with_function_prompt_and_value_and_nothing_is_guessed(stand, body, words):
    bad = chat("the second one")
    answered = rows((chat("fine"), ["a", "b"]), (bad, ["c", "d"]), (chat("fine, too"), ["e", "f"]))
    whole = (
        "def f(completions, prompts):\n    if all('second' not in p[0]['content'] for p in prompts):\n"
        f"        return [1.0] * len(completions)\n    {body.replace('2', str(2))}\n"
    )
    with pytest.raises(JudgeError, match=f"^rule .*rewards.py:f: prompt {bad.prompt_id[:12]}: {words}$") as fault:
        stand(whole, answered)
    assert "\n" not in str(fault.value)


def test_a_fault_of_several_prompts_together_is_one_of_them_all(stand):
    body = "def f(completions):\n    assert len(completions) < 3, 'too many'\n    return [1.0] * len(completions)\n"
    with pytest.raises(JudgeError, match=r"2 prompts from [0-9a-f]{12} on: it raised AssertionError: too many"):
        stand(body, rows((chat("a"), ["x", "y"]), (chat("b"), ["z"])))


@pytest.mark.parametrize(("body", "words"), [("", "has no function 'f'"), ("def f(", "cannot be imported")])
def test_a_function_that_is_missing_is_named(stand, body, words):
    with pytest.raises(ConfigError, match=f"^rule .*rewards.py:f: .*{words}"):
        stand(body, rows((chat("a"), ["x"])))


def test_a_key_that_a_function_tells_of_is_masked(stand, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "acct:9f8e7d6c5b4a3210")
    body = "import os\ndef f(completions):\n    raise ValueError(os.environ['MY_API_KEY'])\n"
    with pytest.raises(JudgeError, match=r"it raised ValueError: \*\*\*$"):
        stand(body, rows((chat("a"), ["x"])))


def test_functions_of_trl_itself_rate_chats():
    answered = rows((chat("a"), ["<think>\nwell\n</think>\nyes", "yes"]))
    asked = RuleJudge(reward="trl.rewards:think_format_reward")
    with JUDGES["rule"].make(asked, Given(answered=answered)) as judge:
        assert judge.stand([answered[0][0]], [answered[0][1]])[0].scores == (1.0, 0.0)
    asked = RuleJudge(reward="trl.rewards:accuracy_reward")
    with (
        pytest.raises(ConfigError, match="wants the column 'solution'"),
        JUDGES["rule"].make(asked, Given(answered=answered)),
    ):
        pass
