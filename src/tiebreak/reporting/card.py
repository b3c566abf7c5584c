"""The model card of an exported model: measured numbers only.

Owns its text.
"""

from __future__ import annotations

from typing import Any

from tiebreak.config import dump_config
from tiebreak.reporting.numbers import duration, shown
from tiebreak.runs import Run, as_a_run_writes


def model_card(run: Run, form: str) -> str:
    """Return README.md of an artefact, in the form that model hubs read."""
    with as_a_run_writes(run.path):
        return _card(run, form)


def _card(run: Run, form: str) -> str:
    package, loader = ("peft", "AutoPeft") if form == "adapter" else ("transformers", "Auto")
    parts = [
        _front_matter(package),
        _title(run, form),
        _measured(run.evaluation),
        _usage(package, f"{loader}ModelForCausalLM"),
        _provenance(run),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(package: str) -> str:
    """Return what model hubs read, and no person."""
    return f"---\nlibrary_name: {package}\ntags: [dpo, preference-optimization, tiebreak]\n---"


def _title(run: Run, form: str) -> str:
    manifest = run.manifest
    return f"""# {run.path.resolve().name}

`{manifest["model"]}`, aligned by Direct Preference Optimization with tiebreak {manifest["versions"]["tiebreak"]} \
({manifest["method"]}, {form})."""


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
            "Measured on held-out prompts. Intervals: 95 %, prompts resampled. It covers this preference alone;",
            "it says nothing of other abilities or of safety.",
        ]
    )


def _usage(package: str, loader: str) -> str:
    return f"""```python
from {package} import {loader}
from transformers import AutoTokenizer

model = {loader}.from_pretrained("THIS_FOLDER")
tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
```"""


def _provenance(run: Run) -> str:
    manifest, data = run.manifest, run.data
    return f"""## How it was made

- Reference: {manifest["reference"]}
- Data: {data["num_train_pairs"]} training pairs on {data["num_train_prompts"]} prompts, fingerprint \
`{manifest["data_fingerprint"][:16]}`
- {manifest["num_steps_done"]} of {manifest["num_steps"]} steps in {duration(manifest["training_seconds"])} on \
{manifest["device"]}
- {manifest["num_trainable_parameters"]:,} of {manifest["num_parameters"]:,} parameters trained

```yaml
{dump_config(run.config).rstrip()}
```"""
