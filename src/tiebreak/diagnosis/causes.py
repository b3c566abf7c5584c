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
        "The policy is compared with a model that it did not start from, so that the first step already sees a gain or "
        "a loss that nobody made.",
        "The start check's error; rewards of step 1 over beta, and the margin of the probe before it: more than 0.1 "
        "nats off zero, where rounding moves a mean by 0.03.",
        lessons.wrong_reference,
        (*_BROKEN, "swapped_labels", "shuffled_labels", "learning_rate_too_high", "learning_rate_too_low"),
    ),
    Cause(
        "never_tuned",
        "A base model that was never tuned to answer",
        "The model does not know that an answer ends. A preference between answers is not what it has to learn first.",
        "The start check: where completions end, EOS is less likely than a token drawn blindly (1 over the vocabulary).",
        harms.never_tuned,
        (*_BROKEN, "learning_rate_too_high"),
    ),
    Cause(
        "contradictory_labels",
        "Contradictory labels",
        "The data prefer A to B and B to A, and nothing can satisfy both.",
        "The doctor's counts of contradictions and circles: a tenth of all pairs, which are labels of which one in "
        "twenty is wrong, what the doctor calls noisy.",
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
        lessons.swapped_labels,
        ("shuffled_labels",),
    ),
    Cause(
        "eos_or_masks",
        "Ends or masks are wrong",
        "Completions that were cut off by a limit get an end behind the cut, and the model learns to stop in the middle "
        "of a sentence; or it learns no end at all.",
        "A tenth of all held-out completions of one length, the largest (lengths of whole texts thin out); prompts of "
        "which nothing is left; answers that no longer end (the gate's 15 points, whole interval) and do not loop.",
        harms.eos_or_masks,
        ("displacement",),
    ),
    Cause(
        "duplicated_data",
        "Duplicated data",
        "The same pairs again and again: they count for more than the others, and are learned by heart.",
        "The doctor's exact and near duplicates: a tenth of all pairs.",
        lessons.duplicated_data,
        ("memorising",),
    ),
    Cause(
        "beta_too_low",
        "Beta far too low",
        "Nothing holds the policy near its reference: the loss asks for gaps of hundreds of nats.",
        "beta below its range, and the policy beyond the gate's bounds (KL 0.5 nats a token, chosen 0.5 nats a token "
        "down), and a held-out margin (beta times the gap) below 1, where a pair keeps half of its first slope.",
        strides.beta_too_low,
        (*_BROKEN, "learning_rate_too_high"),
    ),
    Cause(
        "beta_too_high",
        "Beta far too high",
        "A gap that no reader would notice settles a pair, right or wrong, and nothing more is learned of it.",
        "beta above its range; half of the held-out pairs at a margin over 4, where the slope is below 2 %, at gaps "
        "that the highest beta of the range would still learn from.",
        strides.beta_too_high,
        ("learning_rate_too_low", "memorising"),
    ),
    Cause(
        "learning_rate_too_high",
        "Learning rate too high",
        "The steps are so long that the model is broken before the preference is learned; accuracy may look perfect.",
        "A loss or gradient that is no number; or the policy beyond the gate's bounds (KL, chosen) together with "
        "answers that repeat themselves or do not end (5 and 15 points, whole interval).",
        strides.rate_too_high,
        (*_BROKEN, "shuffled_labels", "length_only", "cut_short"),
    ),
    Cause(
        "learning_rate_too_low",
        "Learning rate too low",
        "Hardly anything was learned: pairs are won by the sign of a margin that is rounding.",
        "The gap between chosen and rejected: its mean (whole interval) and the typical pair both below 0.1 nats, the "
        "gate's bound for having moved at all.",
        strides.rate_too_low,
    ),
    Cause(
        "length_only",
        "A preference for length alone",
        "Chosen differs from rejected by its length, and that is what is learned.",
        "The doctor's shortcut by length; at least 90 % of the held-out accuracy is found by length alone, and pairs "
        "where length misleads are not won.",
        lessons.length_only,
    ),
    Cause(
        "shuffled_labels",
        "Shuffled labels",
        "Labels that follow nothing: training pairs can be learned by heart, and nothing holds for others.",
        "Pairs moved, yet held-out accuracy is one half within its interval, and the interval leaves out two thirds; "
        "nor does the doctor's surface model do better than chance.",
        lessons.shuffled_labels,
        ("memorising",),
    ),
    Cause(
        "displacement",
        "Likelihood displacement",
        "Chosen and rejected both become unlikely, rejected faster; what gains is neither of them.",
        "Chosen lost over 0.5 nats a token (the gate's bound, whole interval), in most pairs, and answers are not "
        "broken as by too high a rate.",
        harms.displacement,
    ),
    Cause(
        "collapse",
        "Collapse of diversity",
        "The model has one answer left.",
        "The entropy of the next token fell below half of what it was (whole interval).",
        harms.collapse,
    ),
    Cause(
        "memorising",
        "Memorising",
        "Training pairs are known by heart, and held-out pairs get worse.",
        "Held-out loss at the end is above its lowest probe by more than two standard errors, with 95 % of the training "
        "pairs of the last pass won.",
        lessons.memorising,
    ),
    Cause(
        "cut_short",
        "The run did not come to its end",
        "It failed, was interrupted, or its process is gone.",
        "Status and error in run.json; a run that says it is at work and whose lock nobody holds is dead.",
        harms.cut_short,
    ),
)


def diagnoses(signals: Signals) -> list[Diagnosis]:
    """Return what is wrong with a run, the cause before its effects; nothing where nothing is."""
    return diagnosed(CAUSES, signals)
