"""Answers survive a crash, belong to their weights and sampling, and a torn file costs only what it lost."""

from __future__ import annotations

import dataclasses

import pytest

from tiebreak.engine.answers.kept import AnswerFile
from tiebreak.engine.answers.local import Answer, Sampling, generate
from tiebreak.engine.models import load_policy
from tiny import settings

SAMPLING = Sampling(max_new_tokens=4, eos_ids=(2,), pad_id=0)


def test_an_answer_is_known_to_the_same_model_and_sampling_only(tmp_path):
    path, answer = tmp_path / "answers.jsonl", Answer((5, 6), finished=True)
    AnswerFile(path, "model", SAMPLING).put([((1, 2), answer)])
    assert AnswerFile(path, "model", SAMPLING).get((1, 2)) == answer
    assert AnswerFile(path, "model", SAMPLING).get((1, 3)) is None
    assert AnswerFile(path, "other", SAMPLING).get((1, 2)) is None
    assert AnswerFile(path, "model", dataclasses.replace(SAMPLING, max_new_tokens=5)).get((1, 2)) is None


@pytest.mark.parametrize("torn", [b"{", b'{"key": 1}\n', b"\xff\n", b"[]\n"])
def test_a_torn_line_ends_what_is_known(tmp_path, torn):
    path = tmp_path / "answers.jsonl"
    AnswerFile(path, "model", SAMPLING).put([((1,), Answer((7,), finished=False))])
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert AnswerFile(path, "model", SAMPLING).get((1,)) in (Answer((7,), finished=False), None)
    path.write_bytes(torn + whole)
    assert AnswerFile(path, "model", SAMPLING).get((1,)) is None


def test_only_what_is_missing_is_generated_and_the_result_is_the_same(tiny_model, tmp_path):
    policy, prompts = load_policy(settings(tiny_model)), [(1, 3, 4), (1, 5), (1, 6, 7, 8)]
    plain = generate(policy.model, prompts, SAMPLING)
    path = tmp_path / "answers.jsonl"
    kept = AnswerFile(path, "model", SAMPLING)
    assert generate(policy.model, prompts, SAMPLING, kept=kept) == plain
    told = []
    again = AnswerFile(path, "model", SAMPLING)
    assert generate(policy.model, prompts, SAMPLING, kept=again, progress=told.append) == plain
    assert sum(told) == 3
