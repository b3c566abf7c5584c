"""The model card of an exported model: measured numbers, and what is known of where it comes from.

Owns its text, and that no place on the machine where it was made stands in it. Everything from a run or from data is
escaped for Markdown, and for YAML in the part that model hubs read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tiebreak.config import BUNDLED_PAIRS
from tiebreak.config.yaml_text import write_yaml
from tiebreak.reporting.capability_card import by_group, capability_card
from tiebreak.reporting.numbers import INTERVALS, alone, duration, effect, shown
from tiebreak.reporting.visible import code_block, code_span, harmless, in_markdown
from tiebreak.runs import Run, as_a_run_writes


@dataclass(frozen=True)
class Origin:
    """What is known of the base model and the data; what is not is left out of the card or said to be unknown."""

    base_model: str | None = None
    """Its name on a hub."""
    terms: Mapping[str, Any] = field(default_factory=dict)
    """`license`, `license_name`, `license_link` of the base model."""
    datasets: tuple[str, ...] = ()
    """Names on the Hub of what was trained on."""
    quantization: str | None = None
    """How the base model lay in four bits while an adapter on it was trained; None: it did not."""
    on_original: bool = False
    """Whether that adapter was added to the base model as it is all the same."""
    unheard_ends: tuple[int, ...] = ()
    """The ids at which answers ended, where an adapter's base model does not name them all."""


def _objective(run: Run) -> str:
    """Return the objective in words; those that have no long name by the one that a configuration has for them."""
    name = run.config.loss.name
    return "Direct Preference Optimization" if name == "dpo" else f"preference optimization ({in_markdown(name)})"


def model_card(run: Run, form: str, origin: Origin | None = None) -> str:
    """Return README.md of an artefact, in the form that model hubs read."""
    package, loader = ("peft", "AutoPeft") if form == "adapter" else ("transformers", "Auto")
    loader = f"{loader}ModelForCausalLM"
    origin = origin or Origin()
    with as_a_run_writes(run.path):
        manifest, data, measured = run.manifest, run.data, capability_card(run)
        return f"""---
{_front_matter(package, form, origin, measured)}---

# {in_markdown(run.path.resolve().name)}

{code_span(manifest["model"])}, aligned by {_objective(run)} with tiebreak \
{in_markdown(manifest["versions"]["tiebreak"])} ({in_markdown(manifest["method"])}, {form}).

{_measured(measured)}

## Limits

{_limits(run, measured)}

```python
{_loading(package, loader, form, origin)}
tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
```

## How it was made

{_base(form, origin)}
- Reference: {in_markdown(manifest["reference"])}
- Data: {in_markdown(data["num_train_pairs"])} training pairs on {in_markdown(data["num_train_prompts"])} prompts, \
fingerprint {code_span(manifest["data_fingerprint"][:16])}
- Configuration: fingerprint {code_span(manifest["config_fingerprint"][:16])}
- {in_markdown(manifest["num_steps_done"])} of {in_markdown(manifest["num_steps"])} steps in \
{duration(manifest["training_seconds"])} on {in_markdown(manifest["device"])}, \
computed in {in_markdown(manifest.get("dtype") or "float32")}
- {manifest["num_trainable_parameters"]:,} of {manifest["num_parameters"]:,} parameters trained
{_template(run)}
Settings; of a file or folder, the last step of its path:

{code_block(write_yaml(_placeless(run)), "yaml")}
"""


def _loading(package: str, loader: str, form: str, origin: Origin) -> str:
    """Return the lines of Python that load the model as it was trained."""
    if form != "adapter" or not origin.quantization:
        return (
            f"from {package} import {loader}\nfrom transformers import AutoTokenizer\n\n"
            f'model = {loader}.from_pretrained("THIS_FOLDER")'
        )
    return (
        f"import json\n\nfrom {package} import {loader}\nfrom transformers import AutoTokenizer, BitsAndBytesConfig\n\n"
        'with open("THIS_FOLDER/quantization_config.json") as file:\n'
        "    quantization = BitsAndBytesConfig.from_dict(json.load(file))\n"
        f'model = {loader}.from_pretrained("THIS_FOLDER", quantization_config=quantization)'
    )


_ON_HUBS = {"accuracy": "accuracy", "answers/preferred": "win_rate", "human_win_rate": "human_win_rate", "kl": "kl"}
"""Measures that stand in the part that hubs read, and what they call such a number."""


def _front_matter(package: str, form: str, origin: Origin, card: Mapping[str, Any]) -> str:
    relation = "adapter" if form == "adapter" else "finetune"
    said: dict[str, Any] = {"library_name": package, "pipeline_tag": "text-generation"}
    if origin.base_model:
        said |= {"base_model": origin.base_model, "base_model_relation": relation}
    said |= origin.terms
    if origin.datasets:
        said["datasets"] = list(origin.datasets)
    said["tags"] = ["dpo", "preference-optimization", "tiebreak"]
    metrics = [
        {
            "type": _ON_HUBS[one["key"]],
            "name": f"{one['name']}: {shown(one['after'], one['unit'])}",
            "value": one["after"]["mean"],
        }
        for one in card["measures"]
        if one["key"] in _ON_HUBS and one["after"]
    ]
    if metrics:
        held_out = {"type": (origin.datasets or ("preference-pairs",))[0], "name": "held-out prompts of the same data"}
        result = {"task": {"type": "text-generation"}, "dataset": held_out, "metrics": metrics}
        said["model-index"] = [{"name": harmless(card["run"]), "results": [result]}]
    return write_yaml(said)


def _base(form: str, origin: Origin) -> str:
    """Return what is known of the base model, and what is not."""
    lines = [f"- Base model: {code_span(origin.base_model)}"] if origin.base_model else []
    if not origin.base_model:
        lines += ["- Base model: a folder where this was made; its name on a hub is not known"]
        if form == "adapter":
            where = f"{code_span('base_model_name_or_path')} in {code_span('adapter_config.json')}"
            lines += [f"- Whoever loads the adapter needs that folder: {where} has to say where it lies"]
    if form == "adapter" and origin.unheard_ends:
        given = code_span(f"eos_token_id={[*origin.unheard_ends]}")
        lines += [f"- Answers ended at ids that the base model's generation settings do not all name: give {given}"]
    if origin.quantization:
        lines += [f"- {_quantized(form, origin)}"]
    named = origin.terms.get("license_name") or origin.terms.get("license")
    terms = ", ".join(map(str, named)) if isinstance(named, list) else named
    unknown = "unknown, since nothing here states it; find out before you pass this on"
    return "\n".join([*lines, f"- Licence of the base model: {in_markdown(terms) if terms else unknown}"])


def _quantized(form: str, origin: Origin) -> str:
    """Return on which numbers the adapter was trained, and which ones stand here."""
    trained = f"Trained on the base model in four bits (bitsandbytes, {origin.quantization})"
    if form == "adapter":
        return f"{trained}, as {code_span('quantization_config.json')} says: load it so, it says other things elsewhere"
    if origin.on_original:
        return (
            f"{trained}; the adapter was added to the base model as it is, which is another model than the measured one"
        )
    return f"{trained}; these weights are the numbers that the four bits stand for, with the adapter added"


def _placeless(run: Run) -> dict[str, Any]:
    """Return the settings as plain values, in which no path says where anything lies on this machine."""
    tree = run.config.model_dump(mode="json")
    model, data, judge = tree["model"], tree["data"], tree["evaluation"]["judge"] or {}
    local = run.manifest.get("model_folder") is not None or _looks_local(model["name"])
    model["name"] = _last(model["name"]) if local else model["name"]
    against = tree["reference"]["model"]
    if against and ((run.manifest.get("reference_model") or {}).get("folder") or _looks_local(against)):
        tree["reference"]["model"] = _last(against)
    if isinstance(data["train"], str):
        data["train"] = _data(data["train"])
    else:
        data["train"] = [source | {"path": _data(source["path"])} for source in data["train"]]
    for key in ("heldout", "heldout_prompts"):
        data[key] = data[key] and _data(data[key])
    for section in (model, tree["reference"]):
        if section["base"] and _looks_local(section["base"]):
            section["base"] = _last(section["base"])
    harness = tree["evaluation"]["lm_eval"] or {}
    stores = [(data, "store"), (tree["reference"], "store")]
    places = [(model, "chat_template"), *stores, (tree["output"], "dir"), (judge, "reward")]
    places.append((tree["training"], "moments_from"))
    for section, key in (*places, (harness, "include_path")):
        if section.get(key):
            section[key] = _last(section[key])
    told = judge.get("arguments") or {}
    for section, key in ((judge, "model"), *((told, key) for key in told)):
        if isinstance(section.get(key), str) and _looks_local(section[key]):
            section[key] = _last(section[key])
    tree["evaluation"]["tasks"] = [_last(task) for task in tree["evaluation"]["tasks"]]
    return tree


def _data(spec: str) -> str:
    return spec if spec == BUNDLED_PAIRS or spec.startswith("hf:") else _last(spec)


def _looks_local(name: str) -> bool:
    return bool(re.match(r"[./~\\]|[A-Za-z]:\\", name)) or name.count("/") > 1


def _last(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or path


def _template(run: Run) -> str:
    """Return what was decided about the chat template, a line each; nothing where there is nothing to say."""
    arguments, day = run.config.model.chat_template_arguments, run.manifest.get("template_date")
    told = ", ".join(
        f"{code_span(name)}: {code_span(json.dumps(value, ensure_ascii=False))}"
        for name, value in (arguments or {}).items()
    )
    lines = [f"- The chat template here takes {told} where it is told nothing else"] if told else []
    lines += [f"- The chat template writes the date of the day; in training that was {in_markdown(day)}"] if day else []
    return "".join(f"{line}\n" for line in lines)


def _measured(card: Mapping[str, Any]) -> str:
    """Return the capability card as a table."""
    reason = card["first_line"]
    rows, ruled = [], list(card["unmeasured"])
    for title, measures in by_group(card):
        rows.append(f"| **{title}** | | | | | |")
        for one in measures:
            unit, on_the_way = one["unit"], [alone(seen["mean"], one["unit"]) for seen in _few(one["during"])]
            weak = f" (weak evidence{': ' if one['note'] else ''}{one['note']})" if one["weak"] else ""
            sides = [shown(one[side], unit) if one[side] else "no number" for side in ("before", "after")]
            num = str(one["num"]) + (f" on {one['num_prompts']} prompts" if one["num_prompts"] != one["num"] else "")
            rules = [
                f"{rule['name']}: {_verdict(rule)}"
                + (f" ({effect(rule['minimum_detectable'], unit)})" if rule["minimum_detectable"] is not None else "")
                for rule in one["rules"]
            ]
            ruled += one["rules"]
            rows.append(_row(one["name"] + weak, sides[0], " → ".join(on_the_way), sides[1], num, "; ".join(rules)))
    not_asked = ", ".join(card["not_asked"])
    probed = f" On the way: the first {card['num_probed_pairs']} held-out pairs." if card["num_probed_pairs"] else ""
    return "\n".join(
        [
            f"**Verdict: {in_markdown(card['verdict'])}.** {in_markdown(reason[:1].upper() + reason[1:])}.",
            "",
            "| measured | before | on the way | after | items | rules (what so many items would show) |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"Measured on held-out prompts. {INTERVALS}{probed}"
            + (f" Nothing measured, and no rule insisted on: {in_markdown(not_asked)}." if not_asked else ""),
            "",
            "| rule | verdict | found and wanted |",
            "|---|---|---|",
            *(_row(rule["name"], _verdict(rule), rule["says"]) for rule in ruled),
            *(_row(name, "less than the default rule asks", how) for name, how in card["loosened"].items()),
        ]
    )


def _limits(run: Run, card: Mapping[str, Any]) -> str:
    """Return what these numbers do not say, a line each."""
    samples = run.samples
    cut = sum(not one["after"]["finished"] for one in samples)
    most = run.config.evaluation.max_new_tokens
    weak = [one["name"] for one in card["measures"] if one["weak"]]
    not_held = [rule["name"] for one in card["measures"] for rule in one["rules"] if not rule["holds"]]
    not_held += [rule["name"] for rule in card["unmeasured"] if not rule["holds"]]
    lines = [
        "What no rule is about was not tested: other abilities and safety among it.",
        "Held-out prompts are of the same data as those of training; of other prompts, other languages and longer "
        "conversations nothing is known.",
        f"Training saw at most {run.config.data.max_length} tokens of prompt and completion.",
        *([f"Answers were measured up to {most} tokens: {cut} of {len(samples)} were cut there."] if cut else []),
        *([f"Weak evidence: {', '.join(weak)}."] if weak else []),
        *([f"Not shown to hold: {', '.join(not_held)}."] if not_held else []),
    ]
    return "\n".join(f"- {in_markdown(line)}" for line in lines)


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(in_markdown, cells))} |"


def _few(during: list[Any], most: int = 5) -> list[Any]:
    """Return some of the probes, evenly spaced, first and last among them."""
    if len(during) <= most:
        return during
    return [during[round(index * (len(during) - 1) / (most - 1))] for index in range(most)]


def _verdict(rule: Mapping[str, Any]) -> str:
    """Return whether a rule holds, and why it does not count where it is overridden."""
    said = {"pass": "holds", "fail": "does not hold"}.get(rule["verdict"], "not known to hold")
    return f"{said}, overridden: {rule['override']}" if rule["override"] else said
