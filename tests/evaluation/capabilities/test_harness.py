from __future__ import annotations

import json
import socket
from importlib.util import find_spec

import pytest

from tiebreak.config import LmEvalConfig
from tiebreak.errors import ConfigError, DataError
from tiebreak.evaluation.capabilities import harness
from tiebreak.evaluation.capabilities.asking import measure_tasks
from tiebreak.evaluation.capabilities.harness import check_lm_eval, measure_lm_eval
from tiebreak.evaluation.capabilities.task import Said
from tiebreak.evaluation.capabilities.taskfiles import load_tasks
from tiny import disturb, load, settings

QUESTIONS = [
    {"question": "the cat sat on", "choices": ["the mat", "the dog and the cat", "yes"], "answer": 0},
    {"question": "the dog ran to", "choices": ["no", "the park", "the cat sat"], "answer": 1},
    {"question": "who sat on the mat?", "choices": ["a dog", "user", "the cat"], "answer": 2},
    {"question": "and the park", "choices": ["ran", "to the mat and the dog", "no"], "answer": 0},
]
needs_lm_eval = pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is not installed (the extra lm-eval)")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Task files of lm-eval and their data; whoever calls a network fails."""

    def no_network(*_):
        raise AssertionError("lm-eval called a network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    data = tmp_path / "q.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS), encoding="utf-8")
    common = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
    kinds = {
        "choosing": 'output_type: multiple_choice\ndoc_to_text: "{{question}}"\ndoc_to_choice: "{{choices}}"\n'
        "doc_to_target: answer\nmetric_list: [{metric: acc_norm}, {metric: acc}]\n",
        "saying": 'output_type: generate_until\ndoc_to_text: "{{question}}"\ndoc_to_target: "{{choices[answer]}}"\n'
        'generation_kwargs: {until: ["yes"], max_gen_toks: 4}\nmetric_list: [{metric: exact_match}]\n',
        "rolling": 'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: "{{question}}"\n'
        "metric_list: [{metric: byte_perplexity}]\n",
        "nought": 'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: "{{gone}}"\n'
        "metric_list: [{metric: byte_perplexity}]\n",
    }
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for name, text in kinds.items():
        (tasks / f"{name}.yaml").write_text(f"task: {name}\n{common}{text}", encoding="utf-8")
    return tasks


def of(folder, *names, **others) -> LmEvalConfig:
    return LmEvalConfig(include_path=str(folder), tasks=names, **others)


@pytest.mark.skipif(find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_without_lm_eval_one_line_says_how_to_get_it(folder):
    with pytest.raises(
        ConfigError, match=r'^evaluation\.lm_eval: lm-eval is not installed; pip install "tiebreak\[lm-eval\]"$'
    ):
        check_lm_eval(of(folder, "choosing"))


@needs_lm_eval
@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_its_rows_are_those_of_our_own_task_of_the_same_questions(tiny_model, folder, tmp_path, adapter):
    loaded = disturb(load(settings(tiny_model, adapter)))
    [theirs] = measure_lm_eval(loaded.policy, loaded.reference, of(folder, "choosing"))
    own = tmp_path / "own.yaml"
    own.write_text(json.dumps({"name": "choosing", "kind": "multiple_choice", "as": "text", "items": QUESTIONS}))
    [ours] = measure_tasks(loaded.policy, loaded.reference, load_tasks([own]), loaded.budget.cut)
    assert (theirs.row().key, theirs.row().unit) == (ours.row().key, ours.row().unit)
    assert list(theirs.row().before) == list(ours.row().before)
    assert list(theirs.row().after) == list(ours.row().after)
    for (_, *sides), (_, *own_sides) in zip(theirs.items, ours.items, strict=True):
        for their, our in zip(sides, own_sides, strict=True):
            assert [logps for logps, _ in their.details["said"]] == pytest.approx(our.details["logps"], abs=1e-4)
    assert any(one.details != two.details for _, one, two in theirs.items)


@needs_lm_eval
def test_generated_answers_and_texts_are_rows_too(tiny_model, folder):
    import random

    import numpy as np
    import torch

    loaded = load(settings(tiny_model))
    training = loaded.policy.network.training
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    said, texts = measure_lm_eval(loaded.policy, loaded.reference, of(folder, "saying", "rolling", limit=3))
    # Random streams belong to the process.
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert (said.row().unit, texts.row().unit) == ("share", "nats")
    for rows in (said, texts):
        assert list(rows.row().before) == list(rows.row().after)
        assert len(rows.items) == 3
    assert all(value < 0 for value in texts.row().before)
    assert loaded.policy.network.training is training


@needs_lm_eval
def test_a_side_that_is_done_is_not_asked_again(tiny_model, folder, tmp_path):
    loaded, kept = disturb(load(settings(tiny_model))), tmp_path / "kept"
    [first] = measure_lm_eval(loaded.policy, loaded.reference, of(folder, "choosing"), kept_in=kept)
    size = (kept / "lm_eval.jsonl").stat().st_size
    [again] = measure_lm_eval(loaded.policy, loaded.reference, of(folder, "choosing"), kept_in=kept)
    assert (kept / "lm_eval.jsonl").stat().st_size == size
    assert list(again.lines()) == list(first.lines())
    measure_lm_eval(loaded.policy, loaded.reference, of(folder, "choosing", limit=2), kept_in=kept)
    assert (kept / "lm_eval.jsonl").stat().st_size > size


@needs_lm_eval
def test_what_it_cannot_do_is_one_line(tiny_model, folder, tmp_path):
    with pytest.raises(ConfigError, match=r"holds no task 'chosing'\. Did you mean 'choosing'\? There is choosing, "):
        check_lm_eval(of(folder, "chosing"))
    own = tmp_path / "own.yaml"
    own.write_text(json.dumps({"name": "choosing", "kind": "multiple_choice", "items": QUESTIONS}))
    with pytest.raises(ConfigError, match=r"own\.yaml: a task of lm-eval is called 'choosing' as well; rename one"):
        check_lm_eval(of(folder, "choosing"), load_tasks([own]))
    check_lm_eval(of(folder, "saying"), load_tasks([own]))
    with pytest.raises(ConfigError, match="no such folder"):
        check_lm_eval(of(tmp_path / "gone", "choosing"))
    loaded = load(settings(tiny_model))
    with pytest.raises(DataError, match=r"^lm-eval failed on nought \(\w+: .*gone") as error:
        measure_lm_eval(loaded.policy, loaded.reference, of(folder, "nought"))
    assert "\n" not in str(error.value)
    (folder / "hub.yaml").write_text("task: hub\ndataset_path: owner/set\noutput_type: multiple_choice\n")
    with pytest.raises(ConfigError, match=r"hub\.yaml: dataset_path 'owner/set' is no local folder"):
        check_lm_eval(of(folder, "choosing"))


def test_what_a_task_reads_is_known_by_content_wherever_it_lies(folder, tmp_path, monkeypatch):
    """Answers of before must not pass for those of a task file, an included one, or data that changed since."""
    (tmp_path / "outside").mkdir()
    template = tmp_path / "outside" / "shared_yaml"
    template.write_text("dataset_path: json\ndataset_kwargs: {data_files: {test: 'outside/*.jsonl'}}\n")
    (tmp_path / "outside" / "d.jsonl").write_text("{}\n")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "rows.json").write_text("[]")
    (folder / "t.yaml").write_text("task: t\ninclude: ../outside/shared_yaml\nprocess_docs: !function u.f\n")
    (folder / "s.yaml").write_text(f"task: s\ndataset_path: {tmp_path / 'set'}\n")
    (folder / "u.py").write_text("f = list\n")
    inline = {
        "task": "within",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": str(tmp_path / "within.jsonl")},
    }
    (folder / "group.yaml").write_text(json.dumps({"group": "g", "task": ["t", {"group": "h", "task": [inline]}]}))
    (tmp_path / "within.jsonl").write_text("{}\n")
    (folder / "round.yaml").write_text("task: &a [*a]\n")
    (folder / "broken.yaml").write_text("[")
    monkeypatch.chdir(tmp_path)
    known = harness._contents(folder)
    assert known == harness._contents(folder)
    read = (folder / "choosing.yaml", tmp_path / "q.jsonl", template, tmp_path / "outside" / "d.jsonl",
            tmp_path / "set" / "rows.json", folder / "u.py", tmp_path / "within.jsonl")  # fmt: skip
    for file in read:
        before = file.read_bytes()
        file.write_bytes(before + b"\n")
        assert harness._contents(folder) != known, file
        file.write_bytes(before)
    assert harness._contents(folder) == known


def test_another_version_of_lm_eval_asks_again(tiny_model, folder, tmp_path, monkeypatch):
    loaded, asked = load(settings(tiny_model)), []
    said = [({"item": "1", "metric": "acc"}, Said(1.0, {}))]
    monkeypatch.setattr(harness, "_manager", lambda _: None)
    monkeypatch.setattr(harness, "_answered", lambda *_: asked.append(1) or {"choosing": said})
    counts = []
    for version in ("1", "1", "2", "2"):
        monkeypatch.setattr(harness.metadata, "version", lambda _, version=version: version)
        measure_lm_eval(loaded.policy, loaded.reference, of(folder, "choosing"), kept_in=tmp_path / "kept")
        counts.append(len(asked))
    assert counts[0] == counts[1] < counts[2] == counts[3]


def test_a_task_that_asked_nothing_is_named_in_a_line():
    with pytest.raises(DataError, match=r"^lm-eval's task bare asked nothing: .*take it out of evaluation\.lm_eval"):
        list(harness._of_samples("bare", [], {"metric_list": [{"metric": "acc"}]}, {}))
