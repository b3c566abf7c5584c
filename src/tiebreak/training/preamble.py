"""What a run says before it trains: records and pairs, what was dropped or cut, what trains, what the reference is.

Owns these sentences.
"""

from __future__ import annotations

from tiebreak.config import DataConfig
from tiebreak.data.preparation import PreparedData
from tiebreak.engine.model import Model
from tiebreak.engine.reference.kinds import Reference
from tiebreak.progress import Progress


def tell(data: PreparedData, policy: Model, reference: Reference, config: DataConfig, progress: Progress) -> None:
    """Tell all of it, one sentence each."""
    report = data.report
    forms = ", ".join(sorted({file["format"] for file in report["files"]}))
    progress.say(
        f"{report['num_records']} records ({forms}): {report['num_train_pairs']} pairs to train on, "
        f"{report['num_heldout_pairs']} held out on {report['num_heldout_prompts']} prompts"
    )
    if report["num_dropped"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report["dropped_by_reason"].items())
        first = data.dropped[0]
        progress.warn(f"{report['num_dropped']} records dropped ({reasons}); the first: {first.source}: {first.detail}")
    if report["num_weighted_pairs"]:
        progress.say(f"{report['num_weighted_pairs']} pairs have a weight other than 1: their loss is multiplied by it")
    if report["num_truncated_pairs"]:
        progress.warn(
            f"{report['num_truncated_pairs']} prompts cut at the start to data.max_length {config.max_length}"
        )
    if policy.continues_adapter:
        progress.say(
            "the model is an adapter: it is trained on with its own rank and targets (other adapter settings have no "
            "effect), and its start is the reference"
        )
    if policy.now:
        day = policy.now.date()
        progress.say(f"the chat template writes the date: in all of this run it is {day} (model.chat_template_date)")
    if policy.plain_because:
        progress.say(f"pairs are scored in padded rows, slower and with the same results: {policy.plain_because}")
    trainable, total = policy.num_parameters
    progress.say(
        f"{policy.source.identity}: {trainable:,} of {total:,} parameters train; reference: {reference.identity}"
    )
