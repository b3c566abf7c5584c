"""What became of the model: displaced, without variety, without an end, or never taught to answer."""

from __future__ import annotations

import math
from statistics import fmean

from tiebreak.config.gate import DEFAULT_RULES
from tiebreak.diagnosis.cause import Finding
from tiebreak.diagnosis.ends import all_open, piled_up
from tiebreak.diagnosis.signals import Signals
from tiebreak.diagnosis.strides import best_probe, garbled
from tiebreak.runs import DONE, FAILED, INTERRUPTED, RUNNING

NEVER_TUNED = "it looks like a base model that was never tuned to answer"
"""What the start check says of such a model."""
ALIKE = 0.5
"""Self-BLEU from which on drawn answers to one prompt have more in common than not."""


def never_tuned(signals: Signals) -> Finding | None:
    """The start check found that the model does not end answers where examples do."""
    told = [text for text in signals.warnings if NEVER_TUNED in text]
    if not told or (signals.settings and not signals.settings.learns_bad):
        return None
    begun = signals.measures.get("answers/unfinished")
    if begun and fmean(begun.before) < 0.5:
        return None  # most of its answers ended: it is the completions that do not end as it would
    evidence = [told[0].partition(";")[0].partition(":")[0]]
    ends = signals.measures.get("answers/unfinished")
    if ends and ends.at_start and ends.at_end:
        evidence.append(f"answers that do not end: {ends.at_start.value:.0%} before, {ends.at_end.value:.0%} after")
    return Finding(
        "the model was not tuned to answer: where completions end, it expects anything but an end",
        tuple(evidence),
        "teach it answers first, with stages: sft before dpo (docs/stages.md); or name the template that it was tuned "
        "with as model.chat_template",
        0,
    )


def eos_or_masks(signals: Signals) -> Finding | None:
    """Completions were cut off, or the policy forgot to end although they do."""
    do = "draw the completions anew with more room (max_new_tokens), and leave out those that did not end by themselves"
    piled = piled_up(signals)
    if piled:
        return Finding(piled, _endings(signals), do)
    if stops := all_open(signals):
        ask = "look at the ends of five completions: where they were cut off, " + do
        return Finding(stops, _endings(signals), ask, level="warning")
    cut = signals.found.get("fully_truncated")
    if cut:
        return Finding(
            f"{cut.count} prompts ({cut.share:.0%}) are cut so far that nearly nothing is left of them",
            (cut.detail,) if cut.detail else (),
            "raise data.max_length, or leave these pairs out",
        )
    measure, most = signals.measures.get("answers/unfinished"), DEFAULT_RULES["unfinished"].margin or math.inf
    repeats = signals.measures.get("answers/repetition")
    loops = DEFAULT_RULES["repetition"].margin or math.inf
    if measure is None or measure.change is None or measure.change.low <= most or not signals.sees_ends:
        return None
    if repeats and repeats.change and repeats.change.high > loops:
        return None  # what goes round in circles has no end for another reason
    return Finding(
        f"answers forgot how to end: {fmean(measure.before):.0%} did not before, {fmean(measure.after):.0%} do not now",
        _endings(signals),
        "look at the ends of the chosen completions, and at the template's: 'tiebreak check FILE --model MODEL'",
    )


def displacement(signals: Signals) -> Finding | None:
    """Chosen completions became unlikely, though nothing was broken by the size of the steps."""
    chosen, fell = signals.measures.get("chosen_logps"), signals.measures.get("displaced")
    most = DEFAULT_RULES["chosen"].margin or math.inf
    if chosen is None:
        return _displaced_so_far(signals, most)
    if chosen.change is None or fell is None or fell.share is None or chosen.change.high >= -most:
        return None
    if fell.share.low <= 0.5:
        return None
    evidence = []
    rejected = signals.measures.get("rejected_logps")
    if rejected and rejected.change:
        evidence.append(f"rejected ones lost {-rejected.change.value:.2f} nats a token")
    if signals.alike is not None:
        evidence.append(f"chosen and rejected share {signals.alike:.0%} of their words: what is pushed down is in both")
    evidence += garbled(signals)
    won = share.share if (share := signals.measures.get("accuracy")) else None
    wins = ", while they still win" if won and won.low > 0.5 else ""
    evidence += [f"held-out pairs are won in {won.value:.0%} ({won.low:.0%} … {won.high:.0%})"] if won else []
    return Finding(
        f"chosen completions lost {-chosen.change.value:.2f} nats a token, and {fell.share.value:.0%} "
        f"({fell.share.low:.0%} …) of them became less likely{wins}",
        tuple(evidence),
        _HOLD_UP,
        best_probe(signals),
    )


_HOLD_UP = (
    "take a loss that holds chosen up, loss: {name: dpop, penalty: 50} or {name: iterative_rpo, alpha: 1}, or leave "
    "out pairs whose sides are nearly the same"
)


def _displaced_so_far(signals: Signals, most: float) -> Finding | None:
    """What probes show of a run that is at work."""
    seen = [row for row in signals.probes if "heldout/chosen_moved" in row and "heldout/displaced" in row]
    if not seen or seen[-1]["heldout/chosen_moved"] >= -most or seen[-1]["heldout/displaced"] <= 0.5:
        return None
    step, fell, share = (seen[-1][key] for key in ("step", "heldout/chosen_moved", "heldout/displaced"))
    says = (
        f"at step {step} chosen completions have lost {-fell:.2f} nats a token, {share:.0%} of them became less likely"
    )
    return Finding(says, (), _HOLD_UP, int(step))


def collapse(signals: Signals) -> Finding | None:
    """Answers became one answer: the next token is hardly open any more, and drawn answers are alike."""
    entropy, alike = signals.measures.get("answers/entropy"), signals.measures.get("answers/self_bleu")
    if entropy is None and (now := signals.of_steps("sampled/entropy", signals.looks)):
        begun = signals.of_steps("sampled/before/entropy", signals.looks) or now[:1]
        if now[-1] < begun[0] / 2:
            step, do = int(signals.looks[-1]["step"]), "stop here, or bring chosen completions that differ"
            says = f"at step {step} the entropy of the next token has fallen from {begun[0]:.2f} to {now[-1]:.2f} nats"
            return Finding(says, (), do, step)
    if entropy is None or entropy.change is None or entropy.at_start is None or entropy.at_end is None:
        return None
    # Half of the entropy of each token is the square root of the number of answers.
    is_sure = entropy.at_end.high < entropy.at_start.value / 2 and entropy.change.high < 0
    are_one = alike and alike.at_start and alike.at_end and alike.at_start.high < ALIKE < alike.at_end.low
    if not (is_sure or are_one):
        return None
    evidence = []
    if alike and alike.at_start and alike.at_end:
        evidence.append(f"likeness of drawn answers: {alike.at_start.value:.0%} before, {alike.at_end.value:.0%} after")
    few = _few_chosen(signals)
    evidence += [few] if few else []
    return Finding(
        f"the entropy of the next token fell from {entropy.at_start.value:.2f} to {entropy.at_end.value:.2f} nats: "
        "to one prompt the model now has one answer",
        (*evidence, *garbled(signals)),
        "bring chosen completions that differ from each other, or stop earlier: training.epochs: 1",
        best_probe(signals),
    )


def cut_short(signals: Signals) -> Finding | None:
    """The run did not come to its end."""
    steps = f"step {signals.last_step}" + (f" of {signals.num_steps}" if signals.num_steps else "")
    again = "the same command goes on from its last checkpoint"
    if signals.status == FAILED:
        return Finding(f"the run failed after {steps}", (signals.error or "no reason was written down",), again)
    if signals.status == INTERRUPTED:
        return Finding(f"the run was interrupted after {steps}", (signals.error or "",), again, level="warning")
    if signals.status == RUNNING and not signals.at_work:
        says = f"the run says that it is at work, and no process is: it was killed after {steps}"
        return Finding(says, ("nobody holds its lock",), again)
    if signals.status not in (DONE, RUNNING, None):
        return Finding(f"the run's status is '{signals.status}', which no version writes", (), "train it anew")
    return None


def _endings(signals: Signals) -> tuple[str, ...]:
    measure = signals.measures.get("answers/unfinished")
    length = signals.measures.get("answers/length")
    found = []
    if measure and measure.at_start and measure.at_end:
        found.append(f"answers that do not end: {measure.at_start.value:.0%} before, {measure.at_end.value:.0%} after")
    if length and length.at_start and length.at_end:
        found.append(f"tokens of an answer: {length.at_start.value:.0f} before, {length.at_end.value:.0f} after")
    return tuple(found)


def _few_chosen(signals: Signals) -> str | None:
    texts = [chosen for _, chosen, _ in signals.texts]
    return f"{len(set(texts))} different texts are chosen in {len(texts)} held-out pairs" if texts else None
