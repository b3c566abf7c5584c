"""Every cause that is known, in the order in which they are named: what was given first, what came of it last.

Owns the order and what explains what. A cause is a row here and a function beside it.
"""

from __future__ import annotations

from tiebreak.diagnosis import harms, lessons, strides
from tiebreak.diagnosis.cause import Cause, Diagnosis, diagnosed
from tiebreak.diagnosis.signals import Signals

_BROKEN = ("displacement", "collapse", "eos_or_masks", "memorising")
"""What too long strides do to a model."""

CAUSES = (
    Cause(
        "wrong_reference",
        "Wrong reference",
        "The policy is compared with a model that nobody named, so that the first step already sees a gain or a loss "
        "that nobody made.",
        "The start check's error; where reference.model names no other model, rewards of step 1 over beta, and the "
        "margin of the probe before it: more than 0.1 nats off zero, where rounding moves a mean by 0.03.",
        "`model.name` is the very model that training starts from, `reference.model` the one to compare with; "
        "`reference.store: off` asks it anew.",
        lessons.wrong_reference,
        (*_BROKEN, "swapped_labels", "shuffled_labels", "learning_rate_too_high", "learning_rate_too_low"),
    ),
    Cause(
        "eos_or_masks",
        "Ends or masks are wrong",
        "Completions that were cut off by a limit get an end behind the cut, and the model learns to stop in "
        "mid-sentence; or it learns no end at all.",
        "A tenth of all held-out completions of one length, the largest (lengths of whole texts thin out), that stop "
        "without a punctuation mark more often than shorter ones (three standard errors). A warning that "
        "asks: 90 % of them (whole interval) stop so, and half close a sentence before, or have one length in "
        "characters or words. Prompts of which nothing is left; answers that no longer end (the gate's 15 points, "
        "whole interval) and do not loop.",
        "Draw completions with more room, leave out those that did not end; raise `data.max_length`.",
        harms.eos_or_masks,
        ("displacement", "never_tuned"),
    ),
    Cause(
        "never_tuned",
        "A base model that was never tuned to answer",
        "The model does not know that an answer ends. A preference between answers is not what it has to learn first.",
        "The start check: where completions end, EOS is less likely than a token drawn blindly.",
        "`stages` with `sft` before `dpo` ([stages.md](stages.md)), or `model.chat_template`.",
        harms.never_tuned,
        ("displacement", "collapse", "memorising"),
    ),
    Cause(
        "contradictory_labels",
        "Contradictory labels",
        "The data prefer A to B and B to A, and nothing can satisfy both.",
        "The doctor's counts of contradictions and circles: a tenth of all pairs, which are labels of which one in "
        "twenty is wrong, what the doctor calls noisy.",
        "`tiebreak clean FILE OUT`, and train on what it keeps.",
        lessons.contradictory_labels,
        ("shuffled_labels", "memorising"),
    ),
    Cause(
        "swapped_labels",
        "Swapped labels",
        "What is called chosen is the worse side, most often by a column read the wrong way round. Training then does "
        "as it is told: accuracy rises, answers get worse.",
        "Scores or votes against the labels in over half of the pairs; held-out rejected completions that match "
        "`evaluation.rule` more often than chosen ones (95 % interval below zero); held-out accuracy below one half "
        "(the whole interval) with training accuracy above.",
        "Exchange chosen and rejected in `data.columns` ([data.md](data.md)).",
        lessons.swapped_labels,
        ("shuffled_labels",),
    ),
    Cause(
        "duplicated_data",
        "Duplicated data",
        "The same pairs again and again: they count for more than the others, and are learned by heart.",
        "The doctor's exact and near duplicates: a tenth of all pairs.",
        "`tiebreak clean FILE OUT` keeps one of each.",
        lessons.duplicated_data,
        ("memorising",),
    ),
    Cause(
        "memorising",
        "Memorising",
        "Training pairs are known by heart, and held-out pairs get worse.",
        "Held-out loss at the end is above its lowest probe by more than two standard errors, with 95 % of the pairs "
        "of the last pass won.",
        "`training.epochs` so that training ends near the best probe, or more prompts.",
        lessons.memorising,
        ("displacement", "collapse"),
    ),
    Cause(
        "beta_too_low",
        "Beta far too low",
        "Nothing holds the policy near its reference: the loss asks for ever larger gaps.",
        "beta below its range, and the policy beyond the gate's bounds (KL 0.5 nats a token, chosen 0.5 nats a token "
        "down), and a held-out margin (beta times the gap) below 1, where a pair keeps half of its first slope. A "
        "warning: ten times below it, at a margin below 0.1 (95 % of that slope) and gaps that the highest beta "
        "would settle.",
        "`loss.beta` within its range (0.01 to 0.5 for dpo).",
        strides.beta_too_low,
        (*_BROKEN, "learning_rate_too_high"),
    ),
    Cause(
        "beta_too_high",
        "Beta far too high",
        "A gap that no reader would notice settles a pair, right or wrong, and nothing more is learned of it.",
        "beta above its range; half of the held-out pairs at a margin over 4, where the slope is below 2 %, at gaps "
        "that the highest beta of the range would still learn from; at larger gaps a warning, ten times above "
        "it.",
        "`loss.beta: 0.1`.",
        strides.beta_too_high,
        ("learning_rate_too_low", "memorising"),
    ),
    Cause(
        "learning_rate_too_high",
        "Learning rate too high",
        "The steps are so long that the model is broken before the preference is learned; accuracy may look perfect.",
        "A loss or gradient that is no number; or the policy beyond the gate's bounds (KL, chosen) together with "
        "answers that repeat themselves or do not end (5 and 15 points, whole interval).",
        "A tenth of `training.learning_rate`, or the checkpoint of the step that is named.",
        strides.rate_too_high,
        (*_BROKEN, "shuffled_labels", "length_only", "cut_short"),
    ),
    Cause(
        "learning_rate_too_low",
        "Learning rate too low",
        "Hardly anything was learned: pairs are won by the sign of a margin that is rounding.",
        "The gap between chosen and rejected: its mean (whole interval) and the typical pair both below 0.1 nats, the "
        "gate's bound for having moved at all. Where every gradient was exactly 0 no rate is to blame, and it says so.",
        "Ten times `training.learning_rate`, at least its default; without a gradient, what the loss reads.",
        strides.rate_too_low,
    ),
    Cause(
        "length_only",
        "A preference for length alone",
        "Chosen differs from rejected by its length, and that is what is learned.",
        "The doctor's shortcut by length; at least 90 % of the held-out accuracy is found by length alone, and pairs "
        "where length misleads are not won more often than by chance (interval above one half).",
        "Balance the lengths, or `loss: {name: r_dpo, alpha: 0.05}`, or `loss.length_desensitised: 0.5`.",
        lessons.length_only,
    ),
    Cause(
        "shuffled_labels",
        "Shuffled labels",
        "Labels that follow nothing: training pairs can be learned by heart, and nothing holds for others.",
        "Pairs moved, yet held-out accuracy is one half within its interval, and the interval leaves out two thirds; "
        "nor was it above one half (two standard errors) at the probe of the lowest loss; nor does the doctor's "
        "surface model do better than chance.",
        "Read ten pairs and label them; check `data.columns`.",
        lessons.shuffled_labels,
        ("memorising", "displacement"),
    ),
    Cause(
        "displacement",
        "Likelihood displacement",
        "Chosen and rejected both become unlikely, rejected faster; what gains is neither of them.",
        "Chosen lost over 0.5 nats a token (the gate's bound, whole interval), in most pairs, and answers are not "
        "broken, or three quarters of the words are in both sides and held-out loss fell to the end.",
        "`loss: {name: dpop, penalty: 50}` or `{name: iterative_rpo, alpha: 1}`.",
        harms.displacement,
    ),
    Cause(
        "collapse",
        "Collapse of diversity",
        "The model has one answer left.",
        "The entropy of the next token fell below half of what it was, or drawn answers to one prompt came to have "
        "more in common than not (self-BLEU across 0.5); whole intervals.",
        "Chosen completions that differ, or fewer epochs.",
        harms.collapse,
    ),
    Cause(
        "cut_short",
        "The run did not come to its end",
        "It failed, was interrupted, or its process is gone.",
        "Status and error in run.json; a run that says it is at work and whose lock nobody holds is dead.",
        "The same command goes on from the last checkpoint.",
        harms.cut_short,
    ),
)


def diagnoses(signals: Signals) -> list[Diagnosis]:
    """Return what is wrong with a run, the cause before its effects; nothing where nothing is."""
    return diagnosed(CAUSES, signals)
