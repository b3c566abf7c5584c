from __future__ import annotations

import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

import oracles
from tiebreak.errors import TrainingError
from tiebreak.evaluation.probe import NUM_GIVEN, NeutralProbe, ProbeItem, neutral_items
from tiebreak.progress import Silent
from tiny import disturb, load, settings

TEXTS = [item for item in neutral_items() if "text" in item]
QUESTIONS = [item for item in neutral_items() if "question" in item]


class Heard(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def _rows(loaded, progress=None) -> list[ProbeItem]:
    return NeutralProbe(loaded.policy, loaded.reference, loaded.budget.cut).rows(progress)


def _mean(rows: list[ProbeItem], kind: str, side: str) -> float:
    values = [getattr(row, side) for row in rows if row.kind == kind]
    return sum(values) / len(values)


def test_the_bundled_items_are_different_and_whole():
    assert (len(TEXTS), len(QUESTIONS)) == (48, 64)
    assert len({item["id"] for item in neutral_items()}) == len(neutral_items())
    assert len({item.get("text", item.get("question")) for item in neutral_items()}) == len(neutral_items())
    for item in QUESTIONS:
        answers = [item["right"], *item["wrong"]]
        assert len(answers) == len(set(answers)) == 4
        assert all(answer.strip() == answer != "" for answer in answers)
        # Telling the answers apart takes knowledge, and not a look at their length.
        assert max(map(len, answers)) <= 24
    longest = [max([item["right"], *item["wrong"]], key=len) == item["right"] for item in QUESTIONS]
    assert sum(longest) / len(longest) < 0.4


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_a_policy_that_has_not_moved_differs_by_exactly_nothing(tiny_model, adapter):
    rows = _rows(load(settings(tiny_model, adapter, training__token_budget=512)))
    assert [row.item_id for row in rows] == [item["id"] for item in neutral_items()]
    for row in rows:
        assert (row.before, row.right_before) == (row.after, row.right_after)
        assert row.before < 0
        assert (row.right_before is None) == (row.kind == "text")


def test_values_equal_the_float64_oracle(tiny_model):
    loaded = disturb(load(settings(tiny_model, "none", training__token_budget=512)))
    exact = [AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval() for _ in range(2)]
    exact[1].load_state_dict(loaded.policy.network.state_dict())
    encode = loaded.policy.tokenizer.encode
    found = {row.item_id: row for row in _rows(loaded)}
    for item in TEXTS[::12]:
        ids, row = encode(item["text"]), found[item["id"]]
        with torch.no_grad():
            sums = [float(oracles.differentiable_logp(model, ids[:NUM_GIVEN], ids[NUM_GIVEN:])) for model in exact]
        assert row.num_tokens == len(ids) - NUM_GIVEN
        assert [row.before, row.after] == pytest.approx([one / row.num_tokens for one in sums], rel=1e-5)
    for item in QUESTIONS[::16]:
        prompt = encode(f"<|im_start|>user\n{item['question']}<|im_end|>\n<|im_start|>assistant\n")
        row, answers = found[item["id"]], [encode(answer) for answer in (item["right"], *item["wrong"])]
        assert row.num_tokens == len(answers[0])
        for model, value, right in zip(
            exact, (row.before, row.after), (row.right_before, row.right_after), strict=True
        ):
            with torch.no_grad():
                sums = [float(oracles.differentiable_logp(model, prompt, ids)) for ids in answers]
            means = torch.tensor([one / len(ids) for one, ids in zip(sums, answers, strict=True)], dtype=torch.float64)
            assert value == pytest.approx(float((means.exp() / means.exp().sum()).log()[0]), abs=1e-5)
            assert right == float(means.argmax() == 0)


def test_how_items_are_grouped_changes_nothing_but_rounding(tiny_model):
    loaded = disturb(load(settings(tiny_model, "lora", training__token_budget=512)))
    one_by_one = NeutralProbe(loaded.policy, loaded.reference, lambda examples: [[one] for one in examples]).rows()
    for together, alone in zip(_rows(loaded), one_by_one, strict=True):
        assert (together.before, together.after) == pytest.approx((alone.before, alone.after), abs=2e-5)


def test_noise_on_the_weights_makes_neutral_text_less_likely(tiny_model):
    loaded = load(settings(tiny_model, "none", training__token_budget=512))
    rows = _rows(disturb(loaded, 0.5))
    assert _mean(rows, "text", "after") < _mean(rows, "text", "before") - 1


def test_a_real_model_knows_more_before_noise_than_after(stories, tmp_path):
    loaded = load(settings(stories, "lora", training__token_budget=1024))
    calm = _rows(loaded)
    assert _mean(calm, "text", "after") == _mean(calm, "text", "before")
    rows = _rows(disturb(loaded, 0.3))
    assert _mean(rows, "text", "before") == _mean(calm, "text", "before")
    assert _mean(rows, "text", "after") < _mean(rows, "text", "before") - 1


def test_broken_weights_are_told_in_one_line(tiny_model):
    loaded = load(settings(tiny_model, "none", training__token_budget=512))
    with torch.no_grad():
        next(iter(loaded.policy.network.parameters())).fill_(float("nan"))
    with pytest.raises(
        TrainingError, match=r"^neutral .* the policy's log-probabilities are not finite for 112 of 112"
    ):
        _rows(loaded)


def test_texts_end_where_the_positions_of_a_model_do_and_questions_without_room_are_left_out(tiny_gpt):
    loaded, heard = load(settings(tiny_gpt, "none", training__token_budget=512)), Heard()
    rows = _rows(loaded, heard)
    texts = [row for row in rows if row.kind == "text"]
    assert len(texts) == 48
    assert max(row.num_tokens for row in texts) == 64 - NUM_GIVEN
    left = 112 - len(rows)
    assert left
    [warning] = heard.warnings
    assert warning.startswith(f"neutral questions: {left} are left out (too_long: ")


def test_a_template_that_takes_no_plain_answer_costs_the_questions_and_not_the_texts(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    opened = load(settings(folder)).policy.tokenizer
    opened.chat_template = opened.chat_template.replace("assistant\n", "assistant\n<think>\n")
    opened.save_pretrained(folder)
    heard = Heard()
    rows = _rows(load(settings(folder, training__token_budget=512)), heard)
    assert {row.kind for row in rows} == {"text"}
    [warning] = heard.warnings
    assert warning.startswith("neutral questions: 64 are left out (seam: the chat template opens the reasoning")
