"""Init: a configuration that trains, out of what the doctor saw."""

from __future__ import annotations

import json

import pytest

import tiebreak
from tiebreak.config import DataConfig, ModelConfig, load_config, warnings_of
from tiebreak.errors import DataError


def write(path, count: int, **more):
    rows = [{"prompt": f"Why {n}?", "chosen": f"Because {n}.", "rejected": "No."} | more for n in range(count)]
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("count", [3, 200, 3000])
def test_the_configuration_loads_without_a_warning_and_names_the_data(tmp_path, count):
    file, out = write(tmp_path / "pairs.jsonl", count), tmp_path / "my.yaml"
    text = tiebreak.init(file, out=out, quiet=True)
    config = load_config(out)
    assert text == out.read_text(encoding="utf-8")
    assert warnings_of(config) == []
    assert (config.data.train, config.data.format) == (str(file), "trl")
    assert 0.02 <= config.data.heldout_share <= 0.25
    assert config.data.max_length == 128


def test_more_pairs_mean_larger_steps_and_a_lower_rate(tmp_path):
    few = load_config(_saved(tmp_path, "few", 100))
    many = load_config(_saved(tmp_path, "many", 3000))
    assert few.training.pairs_per_step < many.training.pairs_per_step
    assert few.learning_rate > many.learning_rate
    assert few.data.heldout_share > many.data.heldout_share


def _saved(folder, name, count):
    tiebreak.init(write(folder / f"{name}.jsonl", count), out=folder / f"{name}.yaml", quiet=True)
    return folder / f"{name}.yaml"


def test_errors_are_told_in_the_comments(tmp_path):
    file = write(tmp_path / "pairs.jsonl", 30, score_chosen=1.0, score_rejected=2.0)
    text = tiebreak.init(file, quiet=True)
    assert "# inverted_score: 30 pairs" in text


def test_no_more_tokens_are_proposed_than_the_model_was_made_for(tmp_path, tiny_model):
    rows = [
        {"prompt": "why " * (150 if n < 12 else 2), "chosen": f"Because {n}.", "rejected": "No."} for n in range(60)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    text = tiebreak.init(tmp_path / "pairs.jsonl", model=str(tiny_model), out=tmp_path / "my.yaml", quiet=True)
    found = load_config(tmp_path / "my.yaml").data
    assert (found.max_length, found.truncation) == (256, "prompt_start")
    assert "12 of 60 pairs are longer" in text
    assert "refuses" not in text


def test_columns_and_pairing_are_kept(tmp_path):
    rows = [{"q": f"Why {n}?", "good": f"Because {n}.", "bad": "No."} for n in range(30)]
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    columns = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    data = tiebreak.DataConfig(train=str(tmp_path / "odd.jsonl"), columns=columns, pairing="all", min_margin=0.5)
    tiebreak.init(data, out=tmp_path / "my.yaml", quiet=True)
    found = load_config(tmp_path / "my.yaml").data
    assert (found.columns, found.pairing, found.min_margin) == (columns, "all", 0.5)


def test_several_sources_are_listed(tmp_path):
    files = [write(tmp_path / f"{name}.jsonl", 20) for name in "ab"]
    tiebreak.init(files, out=tmp_path / "my.yaml", quiet=True)
    assert [source.path for source in load_config(tmp_path / "my.yaml").data.sources] == [str(file) for file in files]


def test_a_path_that_holds_a_line_break_or_a_colon_stays_one_value(tmp_path):
    file = write(tmp_path / "a: #b\nmodel: x.jsonl", 20)
    tiebreak.init(file, out=tmp_path / "my.yaml", quiet=True)
    assert load_config(tmp_path / "my.yaml").data.train == str(file)


def test_an_existing_file_is_not_overwritten(tmp_path):
    file = write(tmp_path / "pairs.jsonl", 20)
    with pytest.raises(DataError, match="already exists"):
        tiebreak.init(file, out=file, quiet=True)


def test_a_held_out_file_is_named_and_nothing_is_split_off(tmp_path):
    train, heldout = write(tmp_path / "p.jsonl", 20), write(tmp_path / "h.jsonl", 5)
    data = tiebreak.DataConfig(train=str(train), heldout=str(heldout))
    text = tiebreak.init(data, out=tmp_path / "my.yaml", quiet=True)
    assert f"  heldout: {heldout}" in text
    assert "heldout_share" not in text
    found = load_config(tmp_path / "my.yaml").data
    assert (found.train, found.heldout) == (str(train), str(heldout))


def test_the_split_of_given_files_is_theirs(tmp_path):
    rows = [{"prompt": f"How {n}?", "chosen": f"So {n}.", "rejected": "No."} for n in range(5)]
    (tmp_path / "h.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    train = write(tmp_path / "p.jsonl", 20)
    data = tiebreak.DataConfig(train=str(train), heldout=str(tmp_path / "h.jsonl"))
    split = tiebreak.check(data, quiet=True).as_dict()["split"]
    assert (split["heldout_share"], split["num_train_pairs"], split["num_heldout_pairs"]) == (None, 20, 5)


# ----------------------------------------------------------------------------------------------------------- objectives


def _loss_of(tmp_path, rows):
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    text = tiebreak.init(tmp_path / "pairs.jsonl", out=tmp_path / "my.yaml", quiet=True)
    return load_config(tmp_path / "my.yaml").loss, text


def test_where_every_pair_says_how_sure_it_is_soft_labels_are_proposed(tmp_path):
    rows = [
        {"prompt": f"Why {n}?", "chosen": f"Because {n}.", "rejected": f"Never {n}.", "soft_label": 0.6 + n % 4 / 10}
        for n in range(40)
    ]
    loss, text = _loss_of(tmp_path, rows)
    assert (loss.name, loss.soft_labels) == ("dpo", True)
    assert "every pair says how sure its label is" in text
    del rows[7]["soft_label"]
    (tmp_path / "other").mkdir()
    assert "soft_labels" not in _loss_of(tmp_path / "other", rows)[1]


def test_where_length_alone_tells_the_sides_log_ratios_are_divided_by_it(tmp_path):
    rows = [
        {"prompt": f"Why {n}?", "chosen": f"Because {n} " + "it is so " * (4 + n % 9), "rejected": f"No {n * 7 % 11}."}
        for n in range(300)
    ]
    loss, text = _loss_of(tmp_path, rows)
    assert (loss.name, loss.beta) == ("dpo_norm", 5.0)
    assert "length alone tells what is preferred" in text


def test_thumbs_without_partners_are_learned_from_one_by_one(tmp_path):
    rows = [{"prompt": f"Why {n}?", "completion": f"Because {n} {n * 7}.", "label": n % 4 == 0} for n in range(400)]
    loss, text = _loss_of(tmp_path, rows)
    config = load_config(tmp_path / "my.yaml")
    assert (loss.name, config.data.pairing, loss.undesirable_weight) == ("kto", "none", 1.0)
    labels = tiebreak.check(config.data, quiet=True).as_dict()["labels"]
    ratio = loss.desirable_weight * labels["num_liked"] / labels["num_disliked"]
    assert 1 <= ratio <= 4 / 3
    for words in ("completions were judged one at a time", "liked to ", "400 completions on 400 prompts", "of pairs"):
        assert (words in text) is (words != "of pairs"), words
    assert (config.training.pairs_per_step, "about 100 steps in all" in text) == (8, True)


def test_how_completions_are_paired_is_the_users_to_say(tmp_path):
    rows = [{"prompt": f"Why {n // 2}?", "completion": f"Because {n}.", "label": n % 2 == 0} for n in range(80)]
    path = tmp_path / "thumbs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert "name: dpo" in tiebreak.init(path, quiet=True)
    assert "name: kto" in tiebreak.init(tiebreak.DataConfig(train=str(path), pairing="none"), quiet=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows[::3]))
    with pytest.raises(DataError, match="no pair can be read"):
        tiebreak.init(tiebreak.DataConfig(train=str(path), pairing="best_worst"), quiet=True)


def test_tokens_of_completions_on_their_own_set_the_length(tmp_path, tiny_model):
    rows = [{"prompt": f"Why {n}?", "completion": f"Because {n}.", "label": n % 2 == 0} for n in range(80)]
    path = tmp_path / "thumbs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    text = tiebreak.init(path, model=str(tiny_model), quiet=True)
    assert "99 % of completions have at most" in text
    assert "a longer completion is left out" in text


SAID = {
    "columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}, "pairing": "best_worst",
    "turns": "all", "min_margin": 0.5, "allow": ("contradiction",), "heldout_prompts": "prompts.jsonl",
    "heldout_share": 0.3, "set_aside": 0.2, "max_pairs": 50, "max_length": 777, "truncation": "prompt_start",
    "max_dropped_share": 0.4, "store": "off", "format": "auto",
}  # fmt: skip


def test_everything_that_is_said_of_data_stands_in_the_configuration(tmp_path):
    assert SAID.keys() == DataConfig.model_fields.keys() - {"train", "heldout"}
    write(tmp_path / "prompts.jsonl", 2)
    said = SAID | {"heldout_prompts": str(tmp_path / "prompts.jsonl")}
    data = DataConfig(train=str(write(tmp_path / "pairs.jsonl", 60)), **said)
    tiebreak.init(data, out=tmp_path / "my.yaml", quiet=True)
    found = load_config(tmp_path / "my.yaml").data
    assert {name: getattr(found, name) for name in said if name != "format"} == {
        name: value for name, value in said.items() if name != "format"
    }


def test_everything_that_is_said_of_the_model_stands_in_the_configuration(tmp_path, tiny_model):
    model = ModelConfig(name=str(tiny_model), device="cpu", dtype="float32")
    tiebreak.init(write(tmp_path / "pairs.jsonl", 60), model=model, out=tmp_path / "my.yaml", quiet=True)
    assert load_config(tmp_path / "my.yaml").model == model
