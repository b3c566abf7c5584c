"""The model card of an exported model: measured numbers only.

Owns its text.
"""

from __future__ import annotations

from tiebreak.config import dump_config
from tiebreak.reporting.numbers import duration, shown
from tiebreak.reporting.sound import as_a_run_writes
from tiebreak.runs import Run


def model_card(run: Run, form: str) -> str:
    """Return README.md of an artefact, in the form that model hubs read."""
    with as_a_run_writes(run.path):
        return _card(run, form)


def _card(run: Run, form: str) -> str:
    manifest, evaluation, data = run.manifest, run.evaluation, run.data
    loader = "AutoPeftModelForCausalLM" if form == "adapter" else "AutoModelForCausalLM"
    package = "peft" if form == "adapter" else "transformers"
    rows = [
        f"| {r['name']} | {shown(r['before'], r['unit'])} | {shown(r['after'], r['unit'])} |"
        for r in evaluation["table"]
    ]
    return "\n".join(
        [
            "---",
            f"library_name: {package}",
            "tags: [dpo, preference-optimization, tiebreak]",
            "---",
            f"# {run.path.resolve().name}",
            "",
            f"`{manifest['model']}`, aligned by Direct Preference Optimization with tiebreak "
            f"{manifest['versions']['tiebreak']} ({manifest['method']}, {form}).",
            "",
            f"**Verdict: {evaluation['verdict']}.** {evaluation['reason'][0].upper()}{evaluation['reason'][1:]}.",
            "",
            f"| {evaluation['num_heldout_pairs']} pairs, {evaluation['num_samples']} answers | before | after |",
            "|---|---|---|",
            *rows,
            "",
            "Measured on held-out prompts. Intervals: 95 %, prompts resampled. It covers this preference alone;",
            "it says nothing of other abilities or of safety.",
            "",
            "```python",
            f"from {package} import {loader}",
            "from transformers import AutoTokenizer",
            "",
            f'model = {loader}.from_pretrained("THIS_FOLDER")',
            'tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")',
            "```",
            "",
            "## How it was made",
            "",
            f"- Reference: {manifest['reference']}",
            f"- Data: {data['num_train_pairs']} training pairs on {data['num_train_prompts']} prompts, fingerprint "
            f"`{manifest['data_fingerprint'][:16]}`",
            f"- {manifest['num_steps_done']} of {manifest['num_steps']} steps in "
            f"{duration(manifest['training_seconds'])} on {manifest['device']}",
            f"- {manifest['num_trainable_parameters']:,} of {manifest['num_parameters']:,} parameters trained",
            "",
            "```yaml",
            dump_config(run.config).rstrip(),
            "```",
            "",
        ]
    )
