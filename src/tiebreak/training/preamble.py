"""What a run says before it trains: records and pairs, what was dropped or cut, what trains, what the reference is.

Owns these sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tiebreak.config import SAMPLED, DataConfig, EvaluationConfig, SignalsConfig, StoppingConfig
from tiebreak.data.preparation import PreparedData
from tiebreak.engine.arithmetic import name_of
from tiebreak.engine.model import Model
from tiebreak.engine.reference.kinds import Reference
from tiebreak.engine.sources import same_model
from tiebreak.progress import Progress
from tiebreak.reporting.visible import visible


def tell(data: PreparedData, policy: Model, reference: Reference, config: DataConfig, progress: Progress) -> None:
    """Tell all of it, one sentence each."""
    report = data.report
    examples = "completions" if config.keeps_apart else "pairs"
    forms = ", ".join(sorted({file["format"] for file in report["files"]}))
    progress.say(
        f"{report['num_records']} records ({forms}): {report['num_train_pairs']} {examples} to train on, "
        f"{report['num_heldout_pairs']} held out on {report['num_heldout_prompts']} prompts"
    )
    for file in report["files"]:
        for one in _reading_of(file):
            progress.say(one)
    if report["num_dropped"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report["dropped_by_reason"].items())
        first = data.dropped[0]
        progress.warn(f"{report['num_dropped']} records dropped ({reasons}); the first: {first.source}: {first.detail}")
    if report["num_weighted_pairs"]:
        progress.say(f"{report['num_weighted_pairs']} pairs have a weight other than 1: their loss is multiplied by it")
    _tell_context(data, policy, config, progress)
    if policy.continues_adapter:
        is_start = same_model(policy.source, reference.source)
        progress.say(
            "the model is an adapter: it is trained on with its own rank, scale and targets (of other settings of it "
            f"dropout alone has an effect){', and its start is the reference' if is_start else ''}"
        )
    if policy.now:
        day = policy.now.date()
        progress.say(f"the chat template writes the date: in all of this run it is {day} (model.chat_template_date)")
    if policy.plain_because:
        progress.say(f"pairs are scored in padded rows, slower and with the same results: {policy.plain_because}")
    trainable, total = policy.num_parameters
    progress.say(
        f"{policy.source.identity}: {trainable:,} of {total:,} parameters train; "
        f"arithmetic: {name_of(policy.dtype)} on {policy.device}; reference: {reference.identity}"
    )


def tell_watch(
    signals: SignalsConfig, stopping: StoppingConfig, evaluation: EvaluationConfig, total: int, progress: Progress
) -> None:
    """Tell how the run is watched, what ends it, and which of its `total` steps may become the policy."""
    parts = [f"held-out pairs at {min(evaluation.probes, total)} steps"] * bool(evaluation.probes)
    if signals.looks:
        bound = "" if signals.most_share is None else f", in at most {signals.most_share:.0%} of the time"
        parts.append(f"what the policy says to {signals.prompts} prompts at {min(signals.looks, total)}{bound}")
    if parts:
        progress.say(f"watched: {'; '.join(parts)}")
    ends = [f"after {stopping.patience} probes without a better {stopping.score}"] if stopping.patience else []
    ends += [f"where {rule.told}" for rule in stopping.rules]
    if ends:
        progress.say(f"training ends early {', or '.join(ends)}")
    if stopping.patience and stopping.patience >= evaluation.probes:
        progress.warn(
            f"stopping.patience {stopping.patience}: evaluation.probes {evaluation.probes} never use it up; raise these"
        )
    if signals.most_share is not None and any(rule.signal.startswith(SAMPLED) for rule in stopping.rules):
        progress.warn(
            "stopping.rules about sampled/ are held against the looks that there is time for; signals.most_share null "
            "takes all of them"
        )


def _reading_of(file: Mapping[str, Any]) -> Iterator[str]:
    """Yield how a file's first record was read, and what of it was not."""
    if first := file["first_record"]:
        sides = " over ".join(f"'{visible(first[side], 60)}'" for side in ("chosen", "rejected") if first[side])
        asked, why = visible(first["prompt"], 60), visible(first["why"], 80)
        yield f"{file['path']}:{first['line']} is read as '{asked}' → {sides} ({why})"
    if file["columns_unread"]:
        yield f"{file['path']}: not read: {visible(', '.join(file['columns_unread']))}"


def _tell_context(data: PreparedData, policy: Model, config: DataConfig, progress: Progress) -> None:
    """Tell how many prompts were cut, and where `data.max_length` goes beyond what the model sees or was made for."""
    limit, made_for = policy.context.limit(config.max_length), policy.context.made_for
    num_dropped, num_cut = data.report["dropped_by_reason"].get("too_long", 0), data.report["num_truncated_pairs"]
    if limit < config.max_length and (num_dropped or num_cut):
        became = f"{num_dropped} dropped as too_long, {num_cut} prompts cut at the start"
        progress.warn(
            f"the model has {limit} positions, data.max_length is {config.max_length}; longer pairs: {became}"
        )
    elif num_cut:
        progress.warn(f"{num_cut} prompts cut at the start to data.max_length {limit}")
    pairs = data.all_pairs
    lengths = pairs.prompt_lengths + pairs.longest_completions
    if made_for is not None and (num_beyond := int((lengths > made_for).sum())):
        progress.warn(
            f"{num_beyond} of {len(lengths)} pairs have more tokens than the {made_for} that the model was made for; "
            f"data.max_length is {config.max_length}: lower it to {made_for}, or the model trains at positions that it "
            "has never seen"
        )
