from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

import oracles
from tiebreak.config import GateConfig
from tiebreak.errors import DataError, TrainingError
from tiebreak.evaluation.capabilities.asking import TaskRows, measure_tasks
from tiebreak.evaluation.capabilities.task import Said
from tiebreak.evaluation.capabilities.taskfiles import load_tasks
from tiebreak.evaluation.gate import decide
from tiebreak.files import appended_jsonl
from tiebreak.maths.paired import mcnemar
from tiebreak.progress import Silent
from tiny import disturb, load, settings

QUESTIONS = [
    {"question": "the cat sat on", "choices": ["the mat", "the dog and the cat", "yes"], "answer": 0},
    {"question": "the dog ran to", "choices": ["no", "the park", "the cat sat"], "answer": 1},
    {"question": "who sat on the mat?", "choices": ["a dog", "user", "the cat"], "answer": 2},
]
SAMPLES = [{"text": f"the {a} sat on the {b} and the {a} ran to the {b} {n}"} for n, a, b in
           ((1, "cat", "mat"), (2, "dog", "park"), (3, "park", "dog"))]  # fmt: skip
TASKS = {
    "chat": {"kind": "multiple_choice", "items": QUESTIONS},
    "prose": {"kind": "multiple_choice", "items": QUESTIONS, "as": "text"},
    "names": {"kind": "multiple_choice", "as": "text", "choices": ["{a}", "{b}"], "ending": "sat on the mat.",
              "items": [{"question": "we know that", "a": "the cat", "b": "nobody", "answer": 0}]},
    "sums": {"kind": "exact_answer", "compare": "contains", "max_new_tokens": 5,
             "items": [{"question": "say the cat", "answer": ["cat", "the"]}, {"question": "1 + 1?", "answer": "2"}]},
    "harm": {"kind": "refusal", "items": [{"prompt": "the cat?"}, {"prompt": "yes or no?"}], "max_new_tokens": 4},
    "help": {"kind": "compliance", "items": [{"prompt": "the cat?"}, {"prompt": "yes or no?"}], "max_new_tokens": 4},
    "book": {"kind": "text", "items": SAMPLES},
}  # fmt: skip


class Heard(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def tasks(folder, *names, **changes):
    paths = []
    for name in names or TASKS:
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_text(json.dumps({"name": name} | TASKS[name] | changes), encoding="utf-8")
    return load_tasks(paths)


def measured(loaded, found, **others) -> dict[str, TaskRows]:
    return {
        rows.name: rows for rows in measure_tasks(loaded.policy, loaded.reference, found, loaded.budget.cut, **others)
    }


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_a_policy_that_has_not_moved_differs_by_exactly_nothing(tiny_model, adapter, tmp_path):
    found = measured(load(settings(tiny_model, adapter, training__token_budget=512)), tasks(tmp_path))
    assert list(found) == list(TASKS)
    for name, rows in found.items():
        row = rows.row()
        assert (row.key, row.unit) == (f"capability/{name}", "nats" if name == "book" else "share")
        assert row.before == row.after
        assert len(row.after) == len(set(row.prompts)) == len(TASKS[name]["items"])
        assert (rows.summary()["num_better"], rows.summary()["p"]) == (0, 1.0)


@pytest.mark.parametrize("metric", ["acc", "acc_norm", "acc_per_token"])
@pytest.mark.parametrize("form", ["chat", "text"])
def test_choices_equal_the_float64_oracle(tiny_model, tmp_path, form, metric):
    loaded = disturb(load(settings(tiny_model, "none", training__token_budget=512)))
    rows = measured(loaded, tasks(tmp_path, "chat", metric=metric, **{"as": form}))["chat"]
    exact = [AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval() for _ in range(2)]
    exact[1].load_state_dict(loaded.policy.network.state_dict())
    encode = loaded.policy.tokenizer.encode
    for question, (asked, *sides) in zip(QUESTIONS, rows.items, strict=True):
        assert asked["right"] == (question["choices"][question["answer"]],)
        before = question["question"]
        if form == "chat":
            before = f"<|im_start|>user\n{before}<|im_end|>\n<|im_start|>assistant\n"
        prompt = encode(before)
        answers = [encode(("" if form == "chat" else " ") + choice) for choice in question["choices"]]
        for model, said in zip(exact, sides, strict=True):
            with torch.no_grad():
                sums = [float(oracles.differentiable_logp(model, prompt, ids)) for ids in answers]
            assert said.details["logps"] == pytest.approx(sums, rel=1e-5)
            assert said.details["num_tokens"] == [len(ids) for ids in answers]
            per = {
                "acc": sums,
                "acc_norm": [one / len(choice) for one, choice in zip(sums, question["choices"], strict=True)],
                "acc_per_token": [one / len(ids) for one, ids in zip(sums, answers, strict=True)],
            }[metric]
            assert said.value == float(per.index(max(per)) == question["answer"])


def test_an_ending_is_scored_behind_each_choice_in_its_place(tiny_model, tmp_path):
    loaded = load(settings(tiny_model, "none", training__token_budget=512))
    [(_, said, _)] = measured(loaded, tasks(tmp_path, "names"))["names"].items
    exact, encode = (
        AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64),
        loaded.policy.tokenizer.encode,
    )
    with torch.no_grad():
        sums = [
            float(oracles.differentiable_logp(exact, encode(f"we know that {name}"), encode(" sat on the mat.")))
            for name in ("the cat", "nobody")
        ]
    assert said.details["logps"] == pytest.approx(sums, rel=1e-5)
    assert said.value == float(sums[0] > sums[1])


def test_texts_equal_the_float64_oracle(tiny_model, tmp_path):
    loaded = load(settings(tiny_model, "none", training__token_budget=512))
    rows = measured(loaded, tasks(tmp_path, "book", num_given=3))["book"]
    exact, encode = (
        AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64),
        loaded.policy.tokenizer.encode,
    )
    for sample, (_, said, _) in zip(SAMPLES, rows.items, strict=True):
        ids = encode(sample["text"])
        with torch.no_grad():
            total = float(oracles.differentiable_logp(exact, ids[:3], ids[3:]))
        assert said.details["num_tokens"] == len(ids) - 3
        assert said.value == pytest.approx(total / (len(ids) - 3), rel=1e-5)


def test_answers_are_those_of_the_model_and_kept_with_what_was_read_of_them(tiny_model, tmp_path):
    from tiebreak.engine.answers.answerer import Chat, Sampling
    from tiebreak.records import Message

    loaded = disturb(load(settings(tiny_model, "lora")), 0.5)
    found = measured(loaded, tasks(tmp_path, "sums", "harm", "help"))
    for name, key, most in (("sums", "question", 5), ("harm", "prompt", 4), ("help", "prompt", 4)):
        chats = [Chat((Message("user", item[key]),)) for item in TASKS[name]["items"]]
        answers = loaded.policy.answer(chats, Sampling(most))
        assert [line["after"]["text"] for line in found[name].lines()] == [answer.text for answer in answers]
    for refused, helped in zip(found["harm"].lines(), found["help"].lines(), strict=True):
        for side in ("before", "after"):
            says = bool(refused[side]["text"].strip())
            assert refused[side]["value"] + helped[side]["value"] == float(says)


def test_a_task_that_was_cut_off_goes_on_where_it_was(tiny_model, tmp_path):
    found = tasks(tmp_path)
    whole = measured(disturb(load(settings(tiny_model, training__token_budget=64))), found)
    for stop_after in range(1, 40, 3):
        loaded, asked, kept = disturb(load(settings(tiny_model, training__token_budget=64))), [], tmp_path / "kept"

        class Interrupted(Silent):
            def stage(self, name, total, stop_after=stop_after, asked=asked):
                import contextlib

                def advance(amount=1, numbers=None):
                    asked.append(amount)
                    if len(asked) == stop_after:
                        raise KeyboardInterrupt

                return contextlib.nullcontext(advance)

        try:
            measure_tasks(loaded.policy, loaded.reference, found, loaded.budget.cut, Interrupted(), kept)
        except KeyboardInterrupt:
            continue
        break
    else:
        pytest.fail("never came to its end")
    assert stop_after > 10
    # What a model is asked is appended, so nothing was asked twice, and nothing is asked any more.
    sizes = [(path.name, path.stat().st_size) for path in sorted(kept.iterdir())]
    keys = [row["key"] for path in kept.iterdir() for row in appended_jsonl(path)]
    assert len(keys) == len(set(keys))
    again = measured(loaded, found, kept_in=kept)
    assert [(path.name, path.stat().st_size) for path in sorted(kept.iterdir())] == sizes
    for name, rows in whole.items():
        assert list(again[name].lines()) == list(rows.lines())


def test_what_is_kept_is_another_models_or_another_tasks_no_more(tiny_model, tmp_path):
    kept = tmp_path / "kept"
    calm = load(settings(tiny_model))
    measured(calm, tasks(tmp_path, "prose", "sums"), kept_in=kept)
    with (kept / "scores.jsonl").open("a") as file:
        file.write('{"key": "torn')
    moved = disturb(load(settings(tiny_model)), 0.3)
    fresh, after = (measured(moved, tasks(tmp_path, "prose", "sums"), **where) for where in ({}, {"kept_in": kept}))
    assert list(after["prose"].lines()) == list(fresh["prose"].lines())
    assert list(after["sums"].lines()) == list(fresh["sums"].lines())
    assert any(line["before"] != line["after"] for line in after["prose"].lines())


def test_questions_without_room_are_left_out_and_counted(tiny_gpt, tmp_path):
    long = {"question": "the cat " * 80, "choices": ["x", "y"], "answer": 0}
    found = tasks(tmp_path, "prose", items=[*QUESTIONS, long, QUESTIONS[0]])
    heard, loaded = Heard(), load(settings(tiny_gpt, "none"))
    rows = measured(loaded, found, progress=heard)["prose"]
    assert len(rows.items) == 3
    assert rows.left_out == {"twice": 1, "too_long": 1}
    [warning] = heard.warnings
    assert warning.startswith("task prose: 1 of 4 are left out (too_long: ")
    for name, told in (("prose", [long]), ("harm", [{"prompt": "the cat " * 80}])):
        with pytest.raises(DataError, match=r"the model can be asked none of 1 questions \(too_long: "):
            measured(loaded, tasks(tmp_path, name, items=told))


def test_broken_weights_are_told_in_one_line(tiny_model, tmp_path):
    loaded = load(settings(tiny_model, "none"))
    with torch.no_grad():
        next(iter(loaded.policy.network.parameters())).fill_(float("nan"))
    for name in ("prose", "book"):
        with pytest.raises(
            TrainingError, match=rf"^task {name}: the policy's log-probabilities are not finite for 3 of"
        ):
            measured(loaded, tasks(tmp_path, name))


def rows_of(before, after, name="planted") -> TaskRows:
    items = [
        ({"item": f"{n}"}, Said(one, {}), Said(two, {})) for n, (one, two) in enumerate(zip(before, after, strict=True))
    ]
    return TaskRows(name, "multiple_choice", "right answers", "share", "", items, {})


def test_the_default_gate_reads_a_task_and_fails_one_that_lost_an_ability():
    right, gate = [1.0, 0.0] * 500, GateConfig()

    def checked(after):
        rows = rows_of(right, after)
        decision = decide({rows.row().key: rows.row()}, gate)
        [check] = [check for check in decision.checks if check.name == "tasks"]
        return check

    assert checked(right).verdict == "pass"
    assert checked([0.0 if n % 5 == 0 else one for n, one in enumerate(right)]).verdict == "fail"
    assert checked(right).measure == "capability/planted"


def test_the_summary_counts_what_changed_and_gives_mcnemars_p():
    before, after = [1.0] * 12 + [0.0] * 8, [0.0] * 9 + [1.0] * 5 + [0.0] * 6
    said = rows_of(before, after).summary()
    assert (said["num_better"], said["num_worse"], said["test"]) == (2, 9, "mcnemar")
    assert said["p"] == mcnemar(before, after) == pytest.approx(0.0654, abs=1e-4)
    assert (said["before"], said["after"], said["num_items"]) == (0.6, 0.25, 20)


def test_lines_name_where_a_question_stands_and_can_be_written(tiny_model, tmp_path):
    from tiebreak import files

    found = measured(load(settings(tiny_model)), tasks(tmp_path))
    path = tmp_path / "tasks.jsonl"
    files.write_jsonl(path, (line for rows in found.values() for line in rows.lines()))
    lines = files.read_jsonl(path)
    assert len(lines) == sum(len(task["items"]) for task in TASKS.values())
    assert lines[0]["source"] == f"{tmp_path / 'chat.yaml'}:1"
    assert {"task", "kind", "item", "source", "question", "choices", "right", "before", "after"} <= lines[0].keys()
