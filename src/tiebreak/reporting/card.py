"""The model card of an exported model: measured numbers only.

Owns its text.
"""

from __future__ import annotations

import json
from typing import Any

from tiebreak.config import dump_config
from tiebreak.reporting.numbers import duration, shown
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

# {run.path.resolve().name}

`{manifest["model"]}`, aligned by Direct Preference Optimization with tiebreak {manifest["versions"]["tiebreak"]} \
({manifest["method"]}, {form}).

{_measured(run.evaluation)}

```python
from {package} import {loader}
from transformers import AutoTokenizer

model = {loader}.from_pretrained("THIS_FOLDER")
tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
```

## How it was made

- Reference: {manifest["reference"]}
- Data: {data["num_train_pairs"]} training pairs on {data["num_train_prompts"]} prompts, fingerprint \
`{manifest["data_fingerprint"][:16]}`
- {manifest["num_steps_done"]} of {manifest["num_steps"]} steps in {duration(manifest["training_seconds"])} on \
{manifest["device"]}
- {manifest["num_trainable_parameters"]:,} of {manifest["num_parameters"]:,} parameters trained
{_template(run)}
```yaml
{dump_config(run.config).rstrip()}
```
"""


def _template(run: Run) -> str:
    """Return what was decided about the chat template, a line each; nothing where there is nothing to say."""
    arguments, day = run.config.model.chat_template_arguments, run.manifest.get("template_date")
    told = ", ".join(
        f"`{name}`: `{json.dumps(value, ensure_ascii=False)}`" for name, value in (arguments or {}).items()
    )
    lines = [f"- The chat template here takes {told} where it is told nothing else"] if told else []
    lines += [f"- The chat template writes the date of the day; in training that was {day}"] if day else []
    return "".join(f"{line}\n" for line in lines)


def _overridden(check: dict[str, Any]) -> str:
    return f" (overridden: {_cell(check['override'])})" if check["override"] else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _measured(evaluation: dict[str, Any]) -> str:
    reason = evaluation["reason"]
    rows = [
        f"| {row['name']} | {shown(row['before'], row['unit'])} | {shown(row['after'], row['unit'])} |"
        for row in evaluation["table"]
    ]
    return "\n".join(
        [
            f"**Verdict: {evaluation['verdict']}.** {reason[0].upper()}{reason[1:]}.",
            "",
            f"| {evaluation['num_heldout_pairs']} pairs, {evaluation['num_samples']} answers | before | after |",
            "|---|---|---|",
            *rows,
            "",
            "Measured on held-out prompts. Intervals: 95 %, prompts resampled.",
            "",
            "| rule | verdict | found and wanted |",
            "|---|---|---|",
            *(
                f"| {check['name']} | {check['verdict']}{_overridden(check)} | {_cell(check['says'])} |"
                for check in evaluation.get("checks", ())
            ),
            "",
            "What no rule is about was not tested: other abilities and safety among it.",
        ]
    )
