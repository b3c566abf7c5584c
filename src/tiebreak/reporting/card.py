"""The model card of an exported model: measured numbers only.

Owns its text. Everything from a run or from data is escaped for Markdown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tiebreak.config import dump_config
from tiebreak.reporting.capability_card import by_group, capability_card
from tiebreak.reporting.numbers import alone, duration, effect, shown
from tiebreak.reporting.visible import code_block, code_span, in_markdown
from tiebreak.runs import Run, as_a_run_writes


def model_card(run: Run, form: str) -> str:
    """Return README.md of an artefact, in the form that model hubs read."""
    package, loader = ("peft", "AutoPeft") if form == "adapter" else ("transformers", "Auto")
    loader = f"{loader}ModelForCausalLM"
    with as_a_run_writes(run.path):
        manifest, data = run.manifest, run.data
        return f"""---
library_name: {package}
tags: [dpo, preference-optimization, tiebreak]
---

# {in_markdown(run.path.resolve().name)}

{code_span(manifest["model"])}, aligned by Direct Preference Optimization with tiebreak \
{in_markdown(manifest["versions"]["tiebreak"])} ({in_markdown(manifest["method"])}, {form}).

{_measured(capability_card(run))}

```python
from {package} import {loader}
from transformers import AutoTokenizer

model = {loader}.from_pretrained("THIS_FOLDER")
tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
```

## How it was made

- Reference: {in_markdown(manifest["reference"])}
- Data: {in_markdown(data["num_train_pairs"])} training pairs on {in_markdown(data["num_train_prompts"])} prompts, \
fingerprint {code_span(manifest["data_fingerprint"][:16])}
- Configuration: fingerprint {code_span(manifest["config_fingerprint"][:16])}
- {in_markdown(manifest["num_steps_done"])} of {in_markdown(manifest["num_steps"])} steps in \
{duration(manifest["training_seconds"])} on {in_markdown(manifest["device"])}
- {manifest["num_trainable_parameters"]:,} of {manifest["num_parameters"]:,} parameters trained
{_template(run)}
{code_block(dump_config(run.config), "yaml")}
"""


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
            f"Measured on held-out prompts. Intervals: 95 %, prompts resampled.{probed}"
            + (f" Nothing measured, and no rule insisted on: {in_markdown(not_asked)}." if not_asked else ""),
            "",
            "| rule | verdict | found and wanted |",
            "|---|---|---|",
            *(_row(rule["name"], _verdict(rule), rule["says"]) for rule in ruled),
            "",
            "What no rule is about was not tested: other abilities and safety among it.",
        ]
    )


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
