"""What is said of a model before the first step."""

from __future__ import annotations

import math

import torch

from tiebreak.maths.logps import TokenLogps
from tiebreak.runs import Run
from tiebreak.training.start_check import has_told, untuned


def test_a_model_that_never_ends_an_answer_is_told_to_need_sft_first():
    def of(*ends: float) -> TokenLogps:
        return TokenLogps(torch.tensor([value for end in ends for value in (-20.0, -0.1, end)]), (3,) * len(ends))

    assert untuned(of(-0.01, -3.0), 1000) is None  # what stands before the end is no matter
    assert untuned(of(-math.log(1000) + 0.1), 1000) is None
    said = untuned(of(-9.0, -11.0), 1000)
    assert said is not None
    assert "a probability of 5e-05, less than to a token drawn blindly" in said
    assert "sft before dpo" in said


def test_what_a_run_was_told_of_its_model_is_known_to_the_next_one(tmp_path):
    run = Run(tmp_path)
    run.update_manifest(warnings=[])
    assert not has_told(run)
    said = untuned(TokenLogps(torch.tensor([-20.0, -11.0]), (2,)), 1000)
    run.update_manifest(warnings=[{"attempt": 1, "text": said}])
    assert has_told(run)
