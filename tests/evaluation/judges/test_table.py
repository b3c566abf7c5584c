"""Every judge of the table has both faces: it prefers one of two, and it stands over all answers to a prompt."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from judge_endpoints import endpoint, longer
from judge_models import leaning, make_pairs, saved
from tiebreak.config import DataConfig
from tiebreak.config.judges import (
    DataJudge,
    ModelJudge,
    PeopleJudge,
    RewardModelJudge,
    RuleJudge,
    SelfJudge,
    ServerJudge,
)
from tiebreak.engine.answers.answerer import Answer, Chat
from tiebreak.errors import ConfigError, ModelError
from tiebreak.evaluation.judges.given import Fitting, Given
from tiebreak.evaluation.judges.judge import Question
from tiebreak.evaluation.judges.people import _item
from tiebreak.evaluation.judges.table import JUDGES, check_for_rounds
from tiebreak.files import write_jsonl
from tiebreak.records import Message
from tiebreak.training.trained import load
from tiny import settings

CHATS = [Chat((Message("user", "the cat"),)), Chat((Message("user", "the dog"),))]
ANSWERS = [[Answer(text, (5,), finished=True) for text in texts]
           for texts in (("the cat sat", "no", "the cat sat", "the cat sat on the mat"), ("yes", "no no"))]  # fmt: skip


@pytest.fixture
def opened(request, tiny_model, tmp_path, tokenizer, monkeypatch):
    """Opens a judge of a kind."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")

    @contextlib.contextmanager
    def rule():
        with JUDGES["rule"].make(RuleJudge(reward="length_band", arguments={"least": 9}), Given()) as judge:
            yield judge

    @contextlib.contextmanager
    def reward_model():
        asked = RewardModelJudge(model=str(saved(tmp_path / "reward", tokenizer)))
        with JUDGES["reward_model"].make(asked, Given()) as judge:
            yield judge

    @contextlib.contextmanager
    def model():
        folder = leaning(tiny_model, tmp_path / "model", tokenizer, A=9.0, B=8.0)
        with JUDGES["model"].make(ModelJudge(model=str(folder)), Given()) as judge:
            yield judge

    @contextlib.contextmanager
    def itself():
        from tiebreak.config import ModelConfig
        from tiebreak.engine.models import load_frozen

        folder = leaning(tiny_model, tmp_path / "self", tokenizer, A=9.0, B=8.0)
        with JUDGES["self"].make(SelfJudge(), Given(policy=load_frozen(ModelConfig(name=str(folder))))) as judge:
            yield judge

    @contextlib.contextmanager
    def server():
        with endpoint(longer) as there:
            asked = ServerJudge(model="m", base_url=there.url)
            with JUDGES["server"].make(asked, Given(kept=tmp_path / "kept.sqlite")) as judge:
                yield judge

    @contextlib.contextmanager
    def data():
        loaded, told = load(settings(tiny_model)), DataConfig(max_length=200)
        renderer = loaded.policy.renderer(told)
        sides = [[renderer.pair(pair) for pair in make_pairs(num, seed)] for num, seed in ((60, 0), (40, 1))]
        fitting = Fitting(loaded.reference, *sides, told, loaded.budget.cut, 0, tmp_path / "judge.safetensors")
        with JUDGES["data"].make(DataJudge(), Given(fitting=fitting)) as judge:
            yield judge

    @contextlib.contextmanager
    def people():
        couples = [(0, 0, 1), (0, 0, 3), (0, 1, 3), (1, 0, 1)]
        items = [_item(Question(CHATS[at], ANSWERS[at][one].text, ANSWERS[at][two].text)) for at, one, two in couples]
        rows = [{"item": item, "annotator": "ann", "choice": "a"} for item in items]
        write_jsonl(tmp_path / "votes.jsonl", rows)
        with JUDGES["people"].make(PeopleJudge(), Given(folder=tmp_path)) as judge:
            yield judge

    known = {"rule": rule, "reward_model": reward_model, "model": model, "self": itself, "server": server,
             "data": data, "people": people}  # fmt: skip
    assert set(known) == set(JUDGES), "a kind without a test"
    return known[request.param]


@pytest.mark.parametrize("opened", list(JUDGES), indirect=True)
def test_a_judge_stands_over_answers_as_it_prefers_one_of_two(opened):
    told = []
    with opened() as judge:
        found = judge.stand(CHATS, ANSWERS, told.extend)
        said = [judge.prefer([Question(CHATS[1], "yes", "no no")])[0].first]
    assert dict(told) == dict(enumerate(found))
    assert [len(one.scores) for one in found] == [4, 2]
    assert all(isinstance(score, float) for one in found for score in one.scores), found
    assert found[0].scores[0] == found[0].scores[2]
    one, two = found[1].scores
    assert [1.0 if one > two else 0.0 if one < two else 0.5] == [(score > 0.5) + 0.5 * (score == 0.5) for score in said]


@pytest.mark.parametrize(("kind", "asked"), [("self", SelfJudge()), ("people", PeopleJudge())])
def test_who_belongs_to_rounds_is_refused_elsewhere_in_one_line(kind, asked):
    with pytest.raises(ConfigError, match=f"judge {kind}: .*rounds have one"), JUDGES[kind].make(asked, Given()):
        pass
    with pytest.raises(ConfigError, match=f"evaluation.judge: {kind} is a judge for rounds; take another one here"):
        JUDGES[kind].check(asked, Given())
    JUDGES[kind].check(asked, Given(answered=[]))


ROUND = Given(answered=[(chat, ()) for chat in CHATS])
RULE = RuleJudge(reward="repetition")


@pytest.mark.parametrize(
    ("judge", "evaluation", "words"),
    [
        (DataJudge(), None, "^rounds.judge: data is fitted on the pairs of one run, and rounds have none"),
        (RULE, DataJudge(), "^evaluation.judge: data is fitted on the pairs of one run, and rounds have none"),
        (
            RULE,
            SelfJudge(),
            "^evaluation.judge: self is a judge for rounds; .* each round's own run",
        ),
        (
            SelfJudge(),
            PeopleJudge(),
            "^evaluation.judge: people is a judge for rounds; .* or leave it out for rounds.judge",
        ),
        (ModelJudge(model="./none"), None, "^rounds.judge: "),
        (RULE, ModelJudge(model="./none"), "^evaluation.judge: "),
        (RewardModelJudge(model="./none"), RULE, "^rounds.judge: "),
        (ServerJudge(model="m"), None, "^rounds.judge: the environment variable OPENAI_API_KEY holds no key"),
        (RULE, ServerJudge(model="m"), "^evaluation.judge: the environment variable OPENAI_API_KEY holds no key"),
        (ServerJudge(model="m", base_url="http://127.0.0.1:9/v1"), None, "a cap on the cost needs judge.price_in"),
        (RULE, ServerJudge(model="m", base_url="http://127.0.0.1:9/v1"), "a cap on the cost needs judge.price_in"),
        (RuleJudge(reward="{code}:f"), None, "wants the column 'solution', which no row of the prompts has"),
    ],
)
def test_who_cannot_judge_or_measure_rounds_is_refused_at_once_in_one_line(
    judge, evaluation, words, tmp_path, monkeypatch
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "f.py").write_text("def f(completions, solution):\n    return [1.0 for _ in completions]\n")
    if judge.kind == "rule" and "{code}" in judge.reward:
        judge = RuleJudge(reward=f"{tmp_path / 'f.py'}:f")
    with pytest.raises((ConfigError, ModelError), match=words) as told:
        check_for_rounds(judge, evaluation, replace(ROUND, kept=tmp_path / "kept.sqlite"), 1.0)
    assert "\n" not in str(told.value)


def test_a_function_that_wants_columns_of_the_prompts_may_judge_and_measure_rounds(tmp_path):
    (tmp_path / "f.py").write_text("def f(completions, solution):\n    return [1.0 for _ in completions]\n")
    wants = RuleJudge(reward=f"{tmp_path / 'f.py'}:f")
    given = Given(answered=[(Chat(CHATS[0].messages, columns={"solution": "4"}), ())])
    check_for_rounds(wants, wants, given, 1.0)


@pytest.mark.parametrize("judge", [RULE, SelfJudge(), PeopleJudge()])
def test_who_can_judge_rounds_is_not_refused(judge):
    check_for_rounds(judge, None, ROUND, 1.0)
    check_for_rounds(judge, RULE, ROUND, 1.0)
    server = ServerJudge(model="m", base_url="http://127.0.0.1:9/v1", price_in=1.0, price_out=1.0)
    check_for_rounds(server, server, ROUND, 1.0)


def test_only_the_policy_itself_changes_with_each_round_and_says_so(tiny_model, tmp_path, tokenizer):
    from tiebreak.config import ModelConfig
    from tiebreak.engine.models import load_frozen

    assert [kind for kind, row in JUDGES.items() if row.changes] == ["self"]
    notes, identities = [], []
    for number, weights in enumerate(({"A": 9.0, "B": 8.0}, {"A": 9.0, "B": 7.0})):
        folder = leaning(tiny_model, tmp_path / f"{number}", tokenizer, **weights)
        given = Given(policy=load_frozen(ModelConfig(name=str(folder))), noted=notes.append)
        with JUDGES["self"].make(SelfJudge(), given) as judge:
            identities.append(judge.identity)
    assert len(set(identities)) == 2
    assert notes == ["the policy judges its own answers: it changes with each round"] * 2
