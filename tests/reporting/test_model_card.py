"""The model card: front matter that hubs read, and no place on the machine where it was made."""

from __future__ import annotations

import re

import pytest
import yaml
from huggingface_hub import ModelCard

from tiebreak.config.yaml_text import parse_yaml
from tiebreak.files import write_jsonl
from tiebreak.reporting.card import Origin, model_card
from written_runs import written_run

HOSTILE = "x: [y]\n---\n# <b> | `c` {z} & 'q' \"d\" !tag %"


def _front_matter(card: str):
    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    theirs = yaml.safe_load(found[1])
    assert theirs == parse_yaml(found[1], "README.md")
    return theirs


@pytest.mark.parametrize(("form", "library"), [("merged", "transformers"), ("adapter", "peft")])
def test_what_is_known_stands_where_hubs_read_it(tmp_path, form, library):
    origin = Origin("owner/base", {"license": "other", "license_name": "llama3"}, ("owner/pairs", "imdb"))
    card = model_card(written_run(tmp_path), form, origin)
    front = _front_matter(card)
    assert front.pop("model-index")
    assert front == {
        "library_name": library,
        "pipeline_tag": "text-generation",
        "base_model": "owner/base",
        "base_model_relation": "adapter" if form == "adapter" else "finetune",
        "license": "other",
        "license_name": "llama3",
        "datasets": ["owner/pairs", "imdb"],
        "tags": ["dpo", "preference-optimization", "tiebreak"],
    }
    assert "- Base model: `owner/base`" in card
    assert "- Licence of the base model: llama3" in card


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_what_is_not_known_is_left_out_and_said_to_be_unknown(tmp_path, form):
    card = model_card(written_run(tmp_path), form, Origin())
    assert _front_matter(card).keys() == {"library_name", "pipeline_tag", "tags", "model-index"}
    assert "its name on a hub is not known" in card
    assert "Licence of the base model: unknown" in card
    assert ("base_model_name_or_path" in card) == (form == "adapter")


@pytest.mark.parametrize(("form", "told"), [("adapter", True), ("merged", False)])
def test_an_adapter_s_card_says_where_answers_end_that_its_base_does_not(tmp_path, form, told):
    run = written_run(tmp_path)
    card = model_card(run, form, Origin("owner/base", unheard_ends=(7, 2)))
    assert ("give `eos_token_id=[7, 2]`" in card) == told
    assert "eos_token_id=" not in model_card(run, form, Origin("owner/base"))


def test_a_card_says_in_what_numbers_it_was_computed(tmp_path):
    run = written_run(tmp_path)
    assert ", computed in float32\n" in model_card(run, "merged")
    run.update_manifest(dtype="bfloat16")
    assert ", computed in bfloat16\n" in model_card(run, "merged")


def test_hubs_read_the_measured_numbers_with_their_intervals(tmp_path):
    run = written_run(tmp_path)
    read = ModelCard(model_card(run, "merged", Origin(datasets=("owner/pairs",)))).data
    assert read.model_name == "run"
    told = {one.metric_type: (one.metric_value, one.metric_name) for one in read.eval_results}
    table = {row["key"]: row["after"]["mean"] for row in run.evaluation["table"]}
    assert told["accuracy"][0] == table["accuracy"]
    assert told["win_rate"][0] == table["answers/preferred"]
    assert re.fullmatch(r"Held-out preference accuracy: 90\.0 % \(.+ … .+\)", told["accuracy"][1])
    assert {one.dataset_type for one in read.eval_results} == {"owner/pairs"}


def test_the_card_says_what_its_numbers_do_not(tmp_path):
    run = written_run(tmp_path)
    side = {"text": "a", "finished": False}
    write_jsonl(run.samples_file, [{"before": side, "after": side}] * 3)
    limits = model_card(run, "merged").partition("## Limits")[2].partition("```")[0]
    assert "What no rule is about was not tested" in limits
    assert "3 of 3 were cut there" in limits
    failing = [one["name"] for one in run.evaluation["checks"] if one["verdict"] != "pass"]
    assert failing
    assert all(name in limits for name in failing)


def test_no_name_breaks_the_front_matter_or_the_text(tmp_path):
    origin = Origin(HOSTILE, {"license": HOSTILE}, (HOSTILE, "---", "null", "5e-7", "- a"))
    run = written_run(tmp_path, name="---\n: `x` # [y](z)", model=HOSTILE)
    card = model_card(run, "merged", origin)
    found = _front_matter(card)
    assert (found["base_model"], found["license"]) == (HOSTILE, HOSTILE)
    assert found["datasets"] == list(origin.datasets)
    plain = model_card(written_run(tmp_path / "plain"), "merged", Origin())
    body = card.split("\n---\n\n# ", 1)[1]
    assert len(re.findall("^#", body, re.MULTILINE)) == len(re.findall("^#", plain, re.MULTILINE)) - 1
    assert "<b>" not in re.sub(r"`+[^`]*.*?`+", "", body.partition("```python")[0])


def test_the_settings_in_the_card_say_no_place_of_this_machine(tmp_path):
    """Each setting that takes a file or a folder, absolute, relative, or as Windows writes it."""
    away = "/srv/somebody/secret"
    settings = {
        "model.name": f"{away}/base",
        "model.chat_template": "../secret/template.jinja",
        "data.train": [{"path": f"{away}/pairs/*.jsonl"}, {"path": "hf:owner/name@train"}, {"path": "bundled"}],
        "data.heldout": r"C:\secret\heldout.jsonl",
        "data.heldout_prompts": f"{away}/asked.txt",
        "data.store": f"{away}/prepared/",
        "model.base": f"{away}/under",
        "reference.base": "../secret/under",
        "reference.model": f"{away}/other",
        "reference.store": f"{away}/store/",
        "evaluation.tasks": [f"{away}/sums.yaml", "secret/tasks.yaml"],
        "evaluation.lm_eval": {"include_path": f"{away}/lm", "tasks": ["arc"]},
        "evaluation.judge": {"kind": "rule", "reward": f"{away}/f.py:reward", "arguments": {"words": f"{away}/w"}},
        "output.dir": f"{away}/runs/my",
    }
    run = written_run(tmp_path, **settings)
    run.update_manifest(model_folder=f"{away}/base", run_folder=str(run.path), base_model=f"{away}/base")
    card = model_card(run, "adapter", Origin())
    assert "secret" not in card
    assert str(tmp_path) not in card
    config = parse_yaml(re.search(r"```yaml\n(.*)\n```", card, re.DOTALL)[1], "card")
    assert config["model"]["name"] == "base"
    assert [source["path"] for source in config["data"]["train"]] == ["*.jsonl", "hf:owner/name@train", "bundled"]
    assert config["data"]["heldout"] == "heldout.jsonl"
    assert config["evaluation"]["judge"]["reward"] == "f.py:reward"
    assert config["evaluation"]["tasks"] == ["sums.yaml", "tasks.yaml"]


@pytest.mark.parametrize(
    "judge", [{"kind": "model", "model": "/secret/j"}, {"kind": "reward_model", "model": "a/b/secret/j"}]
)
def test_a_judge_in_a_folder_is_named_without_it(tmp_path, judge):
    card = model_card(written_run(tmp_path, **{"evaluation.judge": judge}), "merged", Origin())
    assert "secret" not in card
    assert "model: j\n" in card


@pytest.mark.parametrize("name", ["owner/name", "gpt2"])
def test_a_name_of_a_hub_stays_whole(tmp_path, name):
    settings = {"model.name": name, "evaluation.judge": {"kind": "model", "model": name}}
    card = model_card(written_run(tmp_path, **settings), "merged", Origin(name))
    assert card.count(f": {name}\n") == 3
