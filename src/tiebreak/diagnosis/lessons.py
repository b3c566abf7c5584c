"""What the data taught: what they were compared with, their labels, what they repeat, what tells the sides apart."""

from __future__ import annotations

import re
from statistics import fmean, median

from tiebreak.diagnosis.cause import Finding
from tiebreak.diagnosis.signals import Mean, Measure, Signals
from tiebreak.diagnosis.strides import MOVED, best_probe, garbled, gone_far
from tiebreak.maths.intervals import Share, wilson

CONTRADICTED = 0.1
"""Of a pair and its reverse one is wrong: a share of 0.1 is labels of which 0.05 are, which the doctor calls noisy."""
REPEATED = 0.1
"""One pair in ten that was there before: a step of the default eight then holds nearly one that teaches nothing new."""
AS_GOOD_AS = 0.9
"""Of what the policy knows of held-out pairs, the share that length alone knows."""
DIFFER = "policy and reference differ"
NOT_AS_SAID = "is not what it is said to be"
"""What the start check says of a policy or a reference that is another model than it should be."""
ODDS = 2 / 3
"""Labels of which a third are flipped still give a perfect learner so much: an interval below it holds nearly none."""


def wrong_reference(signals: Signals) -> Finding | None:
    """Policy and reference differ before the first step."""
    do = (
        "name in model.name the very model or adapter that training is to start from (and in reference.model, where it "
        "is set, the one to compare with), and let the run ask it anew: "
        "reference.store: off, reference.spot_checks: 4"
    )
    if signals.error and DIFFER in signals.error:
        return Finding("before the first step policy and reference did not agree", (signals.error,), do, 0)
    if signals.error and NOT_AS_SAID in signals.error:
        return Finding(
            "before the first step policy or reference was another model than named", (signals.error,), do, 0
        )
    settings = signals.settings
    if settings and not settings.starts_at_reference:
        return None  # they are two models, and the first step sees how far they are apart
    unit = settings.beta.value if settings and settings.beta else 1.0
    evidence = []
    # Where both are one model every reward is zero and every pair a tie; rounding is far below a tenth of a nat.
    told = settings and settings.beta and not settings.drops_out
    if told and signals.steps and signals.steps[0]["step"] == 1:
        for side in ("chosen", "rejected"):
            reward = signals.of_steps(f"rewards/{side}", signals.steps[:1])
            if reward and abs(reward[0]) / unit > MOVED:
                evidence.append(f"step 1: {side} completions are {reward[0] / unit:+.2f} nats off their reference")
    for row in signals.probes[:1]:
        margin = float(row.get("heldout/rewards/margins", 0.0))
        if row["step"] == 0 and abs(margin) / unit > MOVED:
            evidence.append(f"before step 1 the margin of held-out pairs is {margin:+.3f} instead of 0")
    if not evidence:
        return None
    return Finding("before the first step policy and reference did not agree", tuple(evidence), do, 0)


def swapped_labels(signals: Signals) -> Finding | None:
    """What is known otherwise to be better is labelled as worse."""
    do = (
        "turn the sides round: data.columns with chosen and rejected exchanged (docs/data.md), and look at five pairs "
        "first"
    )
    told = signals.found.get("inverted_score")
    if told and told.share > 0.5:
        says = f"{told.count} pairs ({told.share:.0%}) prefer the completion with the worse score or fewer votes"
        return Finding(says, (told.detail or "counted by the doctor",), do)
    found = _against_rule(signals)
    accuracy = signals.measures.get("accuracy")
    share = accuracy.share if accuracy else None
    # Three standard errors: a rule that these pairs are not about is below zero by two in one run of forty.
    if found and found.value + 3 * found.error < 0:
        name = signals.settings.rule[0] if signals.settings and signals.settings.rule else "rule"
        evidence = [f"over {len(signals.texts)} held-out pairs, chosen less rejected"]
        rule = signals.measures.get("answers/rule")
        if rule and rule.at_start and rule.at_end:
            evidence.append(f"answers that match it: {rule.at_start.value:.0%} before, {rule.at_end.value:.0%} after")
        if share:
            evidence.append(f"and the policy learned it so: {share.value:.0%} of held-out pairs")
        return Finding(f"rejected completions match the rule '{name}' more often: {found:+.0%}", tuple(evidence), do)
    trained = signals.of_steps("rewards/accuracies", signals.epoch(-1))
    won = accuracy.at_end if accuracy else None
    if share and share.high < 0.5 and won and won.value + 3 * won.error < 0.5 and trained and fmean(trained) > 0.5:
        return Finding(
            f"held-out pairs are won in {share.value:.0%} (… {share.high:.0%}), which is less than by chance, and "
            f"training pairs in {fmean(trained):.0%}",
            ("labels of the one are the other way round than those of the other",),
            do,
        )
    return None


def contradictory_labels(signals: Signals) -> Finding | None:
    """The doctor counted pairs that say the opposite of each other."""
    some = [signals.found[code] for code in ("contradiction", "cycle") if code in signals.found]
    share = sum(one.share for one in some)
    if share < CONTRADICTED:
        return None
    count = sum(one.count for one in some)
    evidence = [one.detail for one in some if one.detail]
    evidence.append(f"whoever learns all of it is right in {1 - share / 2:.0%} at most")
    return Finding(
        f"{count} pairs ({share:.0%}) contradict another one, or close a circle of preferences",
        tuple(evidence),
        "'tiebreak clean FILE OUT' sets them aside; train on what it keeps, without data.allow: [contradiction, cycle]",
    )


def shuffled_labels(signals: Signals) -> Finding | None:
    """The weights moved, and nothing that was learned holds for pairs that were not trained on."""
    gaps, accuracy = signals.measures.get("logratio_gap"), signals.measures.get("accuracy")
    if gaps is None or accuracy is None or accuracy.share is None or (gone_far(signals) and garbled(signals)):
        return None
    share, typical = accuracy.share, median(map(abs, gaps.after))
    surface = signals.by_surface
    if (
        _had_learned(signals, accuracy)
        or typical < MOVED
        or not (share.low <= 0.5 and share.high < ODDS)
        or (surface and surface.low > 0.5)
    ):
        return None
    evidence = [f"pairs moved: half of them by more than {typical:.2g} nats"]
    trained = signals.of_steps("rewards/accuracies", signals.epoch(-1))
    if trained:
        evidence.append(f"training pairs are won in {fmean(trained):.0%} of the last pass")
    if surface:
        evidence.append(
            f"nor does the surface of the texts tell the label: {surface.value:.0%} ({surface.low:.0%} … "
            f"{surface.high:.0%}) on pairs it was not fitted on"
        )
    return Finding(
        f"held-out pairs are won in {share.value:.0%} ({share.low:.0%} … {share.high:.0%}), no more than by chance",
        tuple(evidence),
        "read ten pairs and label them yourself: where you cannot tell, nobody can; check the columns that "
        "data.columns names, and how 'tiebreak check' reads the first record",
    )


def maybe_shuffled(signals: Signals) -> Share | None:
    """Return how many held-out pairs were won where that leaves open both chance and what labels with errors give."""
    gaps, accuracy = signals.measures.get("logratio_gap"), signals.measures.get("accuracy")
    share = accuracy.share if accuracy else None
    if gaps is None or accuracy is None or share is None or not (share.low <= 0.5 and share.high >= ODDS):
        return None
    told = signals.by_surface and signals.by_surface.low > 0.5
    # Two pairs that were both won have no spread, and show nothing.
    learned = bool(accuracy.at_end and accuracy.at_end.error) and _had_learned(signals, accuracy)
    return None if told or learned or median(map(abs, gaps.after)) < MOVED else share


def _had_learned(signals: Signals, accuracy: Measure) -> bool:
    """Whether held-out pairs were won more often than by chance where their loss was lowest, whatever came later.

    Two standard errors, those of the end; the probe is chosen by loss, so that its accuracy is not the luckiest one.
    """
    won = signals.of_steps("heldout/rewards/accuracies", [signals.lowest_probe or {}])
    return bool(won and accuracy.at_end and won[0] - 2 * accuracy.at_end.error > 0.5)


def duplicated_data(signals: Signals) -> Finding | None:
    """The doctor counted pairs that were there before."""
    some = {code: signals.found[code] for code in ("duplicate", "near_duplicate") if code in signals.found}
    share = sum(one.share for one in some.values())
    if share < REPEATED:
        return None
    count = sum(one.count for one in some.values())
    epochs = signals.settings.epochs if signals.settings else 1
    return Finding(
        f"{count} pairs ({share:.0%}) are the same as another one, or nearly",
        (
            *(f"{one.count} {code.replace('_', '-')}s" for code, one in some.items()),
            f"what is repeated is seen more often than the {epochs} epochs that were asked for, and counts for more",
        ),
        "'tiebreak clean FILE OUT' keeps one of each; train on what it keeps",
    )


def length_only(signals: Signals) -> Finding | None:
    """Length tells chosen from rejected as well as the policy does, and where it misleads, it misleads the policy."""
    rows, by_length, accuracy = signals.evidence, signals.by_length, signals.measures.get("accuracy")
    if by_length is None or "shortcut_length" not in signals.found or not rows or accuracy is None:
        return None
    longer = by_length_of(signals)
    apart = [float(row["chosen_num_tokens"]) - float(row["rejected_num_tokens"]) for row in rows]
    known = max(by_length.value, 1 - by_length.value)
    won = fmean(accuracy.after)
    against = [won for won, far in zip(accuracy.after, apart, strict=False) if far * longer < 0]
    # Knowing more has to show where length misleads: a few such pairs that were won are luck.
    knows_more = bool(against) and float(wilson(fmean(against), len(against))[0]) > 0.5
    if known < AS_GOOD_AS * won or knows_more:
        return None
    which = "longer" if longer > 0 else "shorter"
    evidence = [f"the policy wins {won:.0%} of held-out pairs; '{which} wins' alone finds {known:.0%}"]
    if against:
        evidence.append(f"of the {len(against)} held-out pairs where that is wrong it wins {fmean(against):.0%}")
    evidence += _answers_moved(signals, longer)
    return Finding(
        f"what was learned of pairs is that the {which} completion wins: {known:.0%} of all pairs are so",
        tuple(evidence),
        "balance the lengths in the data (as many pairs whose longer side lost), or set loss: {name: r_dpo, alpha: "
        "0.05} or loss.length_desensitised: 0.5",
    )


def _answers_moved(signals: Signals, longer: int) -> list[str]:
    """Return whether its own answers went the way that pairs taught, in words."""
    length = signals.measures.get("answers/length")
    if length is None or length.at_start is None or length.at_end is None or length.change is None:
        return []
    went = f"from {length.at_start.value:.3g} to {length.at_end.value:.3g} tokens"
    low, high = sorted((longer * length.change.low, longer * length.change.high))
    if low > 0:
        return [f"its answers went the same way, {went}"]
    if high < 0:
        return [f"it shows on pairs and not in its answers: these went the other way, {went}"]
    return [f"it shows on pairs and not in its answers: these went {went}, which may be luck"]


def by_length_of(signals: Signals) -> int:
    """Return 1 where the longer completion is preferred, -1 where the shorter one is, by the held-out pairs."""
    longer = sum(
        (row["chosen_num_tokens"] > row["rejected_num_tokens"])
        - (row["chosen_num_tokens"] < row["rejected_num_tokens"])
        for row in signals.evidence
    )
    return 1 if longer >= 0 else -1


def memorising(signals: Signals) -> Finding | None:
    """Training pairs are all but known by heart while held-out pairs get worse than they were."""
    by_loss = signals.settings is None or signals.settings.keeps_scale
    losses = signals.measures.get("loss" if by_loss else "accuracy")
    best, scores = best_probe(signals), signals.probed_scores
    trained = signals.of_steps("rewards/accuracies", signals.epoch(-1))
    if best is None or not trained or losses is None or losses.at_end is None:
        return None
    least = min(score for score, row in zip(scores, signals.probes, strict=True) if row["step"] > 0)
    rise, error = scores[-1] - least, losses.at_end.error
    fresh = signals.of_steps("loss", signals.epoch(-1))
    # Twice its standard error: one time in forty by luck, and of several probes the luckiest is the lowest.
    if rise <= 2 * error or fmean(trained) < 0.95:
        return None
    return Finding(
        f"{'held-out loss' if by_loss else 'the share of held-out pairs that are lost'} was lowest at step {best} "
        f"({least:.3f}) and is {least + rise:.3f} at the end, {rise:.3f} ± "
        f"{error:.3f} above it, while training pairs are won in {fmean(trained):.0%}",
        (f"training loss in the last pass: {fmean(fresh):.3f}",),
        f"set training.epochs so that training ends near step {best} (of {signals.last_step}), or bring more prompts; "
        f"the checkpoint of step {best} is the better model where it was kept (training.keep_checkpoints)",
        best,
    )


def _against_rule(signals: Signals) -> Mean | None:
    """Return by how much more often chosen matches the rule than rejected, over held-out pairs."""
    rule = signals.settings.rule if signals.settings else None
    if rule is None or not signals.texts:
        return None
    pattern = re.compile(rule[1])
    apart = [
        float(bool(pattern.search(chosen))) - float(bool(pattern.search(rejected)))
        for _, chosen, rejected in signals.texts
    ]
    return Mean.of(apart, [prompt for prompt, _, _ in signals.texts])
