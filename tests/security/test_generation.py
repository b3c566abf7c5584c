"""Promise: what a model's folder says of generating changes no answer; only the ids that end a turn are read."""

from __future__ import annotations

import json

import pytest

HOSTILE = {
    "do_sample": True, "temperature": 5.0, "top_k": 1, "top_p": 0.1, "min_p": 0.9, "typical_p": 0.2,
    "epsilon_cutoff": 0.5, "eta_cutoff": 0.5, "repetition_penalty": 9.0, "encoder_repetition_penalty": 3.0,
    "no_repeat_ngram_size": 1, "min_length": 90, "min_new_tokens": 4, "max_length": 3, "max_new_tokens": 1,
    "max_time": 1e-9, "num_beams": 2, "num_return_sequences": 2, "length_penalty": 9.0, "early_stopping": True,
    "bad_words_ids": [[5], [6, 7]], "suppress_tokens": [*range(20, 200)], "begin_suppress_tokens": [*range(20, 200)],
    "sequence_bias": [[[8], 50.0]], "forced_bos_token_id": 9, "forced_eos_token_id": 2, "stop_strings": ["a"],
    "renormalize_logits": True, "guidance_scale": 4.0, "use_cache": False, "token_healing": True,
    "exponential_decay_length_penalty": [1, 9.0], "output_scores": True, "return_dict_in_generate": True,
}  # fmt: skip


@pytest.fixture
def plain_and_hostile(model_copy, tmp_path):
    """Say the answers of a model to a question and of its evaluation, as it is and with hostile settings beside it."""
    import shutil

    other = shutil.copytree(model_copy, tmp_path / "hostile")
    file = other / "generation_config.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(HOSTILE | {key: value for key, value in known.items() if key.endswith("token_id")}))
    return model_copy, other


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_the_folder_of_a_model_changes_no_answer(plain_and_hostile, trained_on, pairs, command, here, adapter):
    said = []
    for number, model in enumerate(plain_and_hostile):
        run = f"runs/{number}"
        code, _, err = trained_on(model, pairs, f"output.dir={run}", f"adapter.kind={adapter}")
        assert code == 0, err
        code, out, err = command("chat", run, "-p", "the cat 1", "--max-new-tokens", 7)
        assert code == 0, err
        said.append((out, (here / run / "samples.jsonl").read_text()))
    assert said[0] == said[1]
