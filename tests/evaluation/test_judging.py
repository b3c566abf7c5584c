"""Who says whether answers got better, and whether to believe it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from judge_endpoints import Reply, endpoint, longer
from tiebreak.config import load_config
from tiebreak.engine.answers.answerer import Chat
from tiebreak.errors import ConfigError, ModelError
from tiebreak.evaluation.judges.given import Fitting, Given
from tiebreak.evaluation.judges.judge import Preference, Question
from tiebreak.evaluation.judging import judge_answers
from tiebreak.progress import Silent
from tiebreak.records import Message, Pair
from tiebreak.training.settled import check_evaluation
from tiny import load, settings, token_pairs


def _evaluation(**more):
    return load_config(None, {f"evaluation.{key}": value for key, value in more.items()}).evaluation


def _sample(index, before, after, matches=(False, False)):
    sides = {
        "before": {"text": before, "matches_rule": matches[0]},
        "after": {"text": after, "matches_rule": matches[1]},
    }
    prompt = [{"role": "user", "content": f"question {index}"}]
    return {"prompt_id": f"prompt{index}", "prompt": prompt, **sides}


def _pair(index, chosen, rejected):
    return Pair((Message("user", f"held {index}"),), Message("assistant", chosen), Message("assistant", rejected))


LONGER = {"kind": "rule", "reward": "length_band", "arguments": {"least": 5, "unit": "characters"}}


def _by(reward, folder, body):
    file = folder / "mine.py"
    file.write_text(
        f"def {reward}(completions, **kwargs):\n    texts = [one[-1]['content'] for one in completions]\n{body}"
    )
    return {"kind": "rule", "reward": f"{file}:{reward}"}


def test_a_rule_says_a_half_where_it_says_the_same_of_both():
    samples = [
        _sample(0, "a", "b", (False, True)),
        _sample(1, "a", "b", (True, False)),
        _sample(2, "a", "b", (True, True)),
    ]
    found = judge_answers(samples, [], _evaluation(rule={"name": "short", "pattern": "x"}), Given(), 0)
    assert [row["preferred"] for row in found.rows()] == [1.0, 0.0, 0.5]
    [row, *_] = found.measured()
    assert (row.key, row.after, row.before) == ("answers/preferred", [1.0, 0.0, 0.5], [0.5] * 3)
    assert not row.weak


def test_nobody_is_asked_where_there_is_no_answer_or_no_judge():
    assert judge_answers([], [], _evaluation(judge=LONGER), Given(), 0) is None
    assert judge_answers([_sample(0, "a", "b")], [], _evaluation(), Given(), 0) is None


def test_a_judge_is_asked_only_where_answers_differ_and_what_it_did_not_say_is_counted(tmp_path):
    judge = _by("longest", tmp_path, "    return [None if '?' in text else len(text) for text in texts]\n")
    samples = [_sample(0, "aa", "aaaa"), _sample(1, "same", "same"), _sample(2, "aaa", "a"), _sample(3, "a?", "aa")]
    found = judge_answers(samples, [], _evaluation(judge=judge), Given(), 0)
    assert [row["preferred"] for row in found.rows()] == [1.0, 0.5, 0.0, None]
    told = found.as_dict(0)
    assert (told["num_judged"], sum(told["not_judged"].values())) == (3, 1)
    # Two of three are less than four fifths, and equal texts nobody judged: what it left out are no random ones.
    assert "judged 2 of 3 pairs of answers that differ" in told["refusal"]
    same = [_sample(place, "same", "same") for place in range(4, 20)]
    assert judge_answers([*samples, *same], [], _evaluation(judge=judge), Given(), 0).refusal == told["refusal"]
    assert found.measured() == []
    json.dumps(told, allow_nan=False)
    more = [*samples, *(_sample(place, "aa", "a") for place in range(4, 7))]
    found = judge_answers(more, [], _evaluation(judge=judge), Given(), 0)
    assert found.refusal is None
    assert found.measured()[0].prompts == [f"prompt{place}" for place in (0, 1, 2, 4, 5, 6)]


def test_the_datas_own_judge_that_cannot_be_made_or_used_decides_nothing_and_says_why(tiny_model, tmp_path):
    config = settings(tiny_model)
    loaded = load(config)
    samples = [_sample(i, "the cat", "a dog") for i in range(3)]

    def asked(train, heldout):
        fitting = Fitting(loaded.reference, train, heldout, config.data, loaded.budget.cut, 0, tmp_path / "judge")
        return judge_answers(samples, [], _evaluation(), Given(fitting=fitting), 0)

    few = asked(token_pairs(3), token_pairs(3, seed=1))
    assert "3 training pairs and 3 held-out pairs" in few.refusal
    assert few.measured() == []
    assert few.as_dict(0)["num_judged"] == 0
    # Labels drawn by chance: it agrees with nobody.
    chance = asked(token_pairs(40), token_pairs(40, seed=1))
    assert chance.refusal.startswith("it agrees with held-out labels no better than chance may (fitted on")
    assert chance.note == ""
    for one in (few, chance):  # who it is stands before it
        assert "own judge" not in one.refusal
        assert not one.may_be_heard
    assert chance.is_weak
    # What was fitted is found again, and not fitted anew; without training pairs and a file there is none.
    kept = (tmp_path / "judge").read_bytes()
    again = asked((), token_pairs(40, seed=1))
    assert again.refusal == chance.refusal
    assert (tmp_path / "judge").read_bytes() == kept
    (tmp_path / "judge").unlink()
    assert "training pairs are at hand only while a run trains" in asked((), ()).refusal
    (tmp_path / "judge").write_bytes(kept[:-9])
    assert "is not a judge as a run keeps one" in asked((), ()).refusal


def test_a_judge_that_agrees_with_nobody_is_not_heard(tiny_model, tmp_path):
    """A reward model drawn by chance."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_labels=1, pad_token_id=0,
    )  # fmt: skip
    LlamaForSequenceClassification(shape).save_pretrained(tmp_path / "rm")
    tokenizer.save_pretrained(tmp_path / "rm")
    pairs = [
        _pair(i, "the cat sat", "the dog ran") if i % 2 else _pair(i, "the dog ran", "the cat sat") for i in range(60)
    ]
    evaluation = _evaluation(judge=f"reward_model:{tmp_path / 'rm'}")
    samples = [_sample(i, "the cat", "the dog") for i in range(4)]
    found = judge_answers(samples, pairs, evaluation, Given(Silent()), 0)
    assert found.agreement.num == 60
    assert "no better than chance" in found.refusal or "not known" in found.refusal
    assert not found.may_be_heard
    assert found.measured() == []
    # Not tried, it is heard, and called weak: who sets that to 0 takes it upon themselves.
    untried = judge_answers(samples, pairs, evaluation.model_copy(update={"calibration_pairs": 0}), Given(Silent()), 0)
    assert untried.refusal is None
    assert untried.is_weak
    assert "not tried on pairs that people judged" in untried.measured()[0].note
    assert len(untried.measured()[0].after) == 4


def test_what_could_not_be_measured_at_the_end_is_refused_at_the_start(tmp_path):
    with pytest.raises(ConfigError, match="is not built in, wanted one of"):
        check_evaluation(_evaluation(judge="rule:lenth_band"))
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        check_evaluation(_evaluation(tasks=[str(tmp_path / "missing.yaml")]))
    check_evaluation(_evaluation(judge=LONGER))


@pytest.mark.parametrize("kind", ["model", "reward_model"])
def test_a_judge_that_cannot_be_loaded_is_refused_at_the_start(tiny_model, tmp_path, kind):
    def refused(folder, words):
        with pytest.raises(ModelError, match=words) as refusal:
            check_evaluation(_evaluation(judge=f"{kind}:{folder}"))
        assert "\n" not in str(refusal.value)

    refused(tmp_path / "mistyped", "^evaluation.judge: .*no such folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"holds neither config\.json nor")
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    (broken / "config.json").write_text("{")
    refused(broken, "broken: cannot be loaded")
    if kind == "reward_model":
        refused(tiny_model, "is no sequence classifier")
        shaped = _of_config(tiny_model, tmp_path / "two", architectures=["LlamaForSequenceClassification"])
        refused(shaped, "has 2 labels; wanted a reward model")
    bare = _of_config(tiny_model, tmp_path / "bare", architectures=ARCHITECTURES[kind], **ONE_LABEL)
    (bare / "chat_template.jinja").unlink()
    refused(bare, "has no chat template")


@pytest.mark.parametrize("kind", ["model", "reward_model"])
def test_a_judge_is_looked_at_without_its_weights(tiny_model, tmp_path, kind):
    folder = _of_config(tiny_model, tmp_path / "sound", architectures=ARCHITECTURES[kind], **ONE_LABEL)
    (folder / "model.safetensors").write_bytes(b"never read")
    check_evaluation(_evaluation(judge=f"{kind}:{folder}"))


ARCHITECTURES = {"model": ["LlamaForCausalLM"], "reward_model": ["LlamaForSequenceClassification"]}
ONE_LABEL = {"id2label": {"0": "better"}, "label2id": {"better": 0}}


def _of_config(tiny_model, folder, **changes):
    shutil.copytree(tiny_model, folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def test_an_endpoint_that_is_down_costs_the_verdict_and_not_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    down = {"kind": "server", "model": "m", "base_url": "http://127.0.0.1:9/v1", "num_retries": 0, "timeout_seconds": 2}
    given = Given(kept=tmp_path / "kept.sqlite")
    found = judge_answers([_sample(0, "a", "b")], [_pair(0, "a", "b")], _evaluation(judge=down), given, 0)
    assert found.by == "server:m"
    assert "m: no connection" in found.refusal
    assert "0 of 2 answers are kept" in found.refusal
    assert found.refusal.endswith("(of a run that is trained: evaluate)")
    assert found.measured() == []
    assert found.may_be_heard


@pytest.mark.parametrize("deaf_to", ["held", "question"])
def test_a_server_that_failed_at_most_questions_may_be_heard_when_it_is_asked_again(tmp_path, monkeypatch, deaf_to):
    """At those that it is tried on, or at the answers."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    fails = True

    def said(asked, number):
        is_deaf = fails and f"user: {deaf_to}" in asked and number % 2
        return Reply(status=500, body="{}") if is_deaf else longer(asked, number)

    pairs = [_pair(place, "a longer answer", "short") for place in range(30)]
    samples = [_sample(place, "a long answer", "a long answers") for place in range(12)]
    with endpoint(said) as there:
        judge = {"kind": "server", "model": "m", "base_url": there.url, "num_retries": 0, "num_at_once": 1}
        given = Given(kept=tmp_path / "kept.sqlite")
        failed = judge_answers(samples, pairs, _evaluation(judge=judge), given, 0)
        fails = False
        heard = judge_answers(samples, pairs, _evaluation(judge=judge), given, 0)
    assert failed.refusal
    assert failed.as_dict(0)["may_be_heard"] is True
    assert (heard.refusal, heard.may_be_heard) == (None, False)
    assert set(heard.measured()[0].after) == {1.0}


def test_answers_that_grew_all_alike_are_not_judged_better_unless_a_rule_defines_that():
    samples = [_sample(place, "a" * 40, "a" * 60) for place in range(30)]
    asked = _evaluation(judge=LONGER)
    by_rule = judge_answers(samples, [], asked, Given(), 0)
    assert by_rule.refusal is None
    assert {row.key for row in by_rule.measured()} == {"answers/preferred"}
    claimed = replace(by_rule, is_definition=False, preferences=[Preference(1.0)] * 30)
    assert "changed in length all alike (× 1.49)" in claimed.untold()
    a_little = [_sample(place, "a" * 40, "a" * 44) for place in range(30)]
    assert replace(claimed, samples=a_little).untold() is None


def test_a_judge_sees_the_whole_chat_of_a_sample():
    call = {"id": "1", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    chat = Chat(
        (
            Message("user", "What time is it?"),
            Message("assistant", "", tool_calls=(call,), reasoning="ask"),
            Message("tool", "noon", name="time", tool_call_id="1"),
        ),
        ({"type": "function", "function": {"name": "time"}},),
    )
    prompt = [message.as_dict() for message in chat.messages]
    sample = {"prompt": prompt, "tools": list(chat.tools), "before": {"text": "one"}, "after": {"text": "Noon."}}
    assert Question.of_sample(json.loads(json.dumps(sample))) == Question(chat, "Noon.", "one")
