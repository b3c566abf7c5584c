"""The verdict: pass, fail or inconclusive. Unknown is not a pass.

Owns how evidence is held against rules, and the words of it. Pure: rows and rules in, a decision out. What the rules
are stands in the configuration, how a row was measured is known to `measures`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tiebreak.config import GateConfig, GateRule
from tiebreak.config.gate import ALL_TASKS, MEASURES, NO_CLAIM, TASKS, told_loosened
from tiebreak.errors import one_line
from tiebreak.evaluation.rows import RATE, SHARE, TOKENS, Row
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.paired import NUM_RESAMPLES, Resampled, holm, resampled, sign_test
from tiebreak.maths.power import clusters_to_decide, minimum_detectable
from tiebreak.reporting.numbers import shown

Verdict = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Check:
    """One rule held against one row. Numbers are None where there was nothing to compute them from."""

    name: str
    measure: str
    verdict: Verdict
    says: str
    """One sentence: what was found, what was wanted."""
    kind: str
    threshold: float
    observed: float | None = None
    """The mean after, or of the changes where the rule is about before."""
    low: float | None = None
    high: float | None = None
    unit: str = ""
    num: int = 0
    num_prompts: int = 0
    p: float | None = None
    """Two-sided, of the mean lying on the threshold; after Holm where the rule is one of superiority."""
    p_signs: float | None = None
    """Exact sign test over prompts beside it: as many better as worse. No verdict stands on it."""
    minimum_detectable: float | None = None
    """The least distance from the threshold that this many prompts would show in 80 of 100 runs."""
    prompts_to_decide: int | None = None
    """How many prompts would decide, were the mean what it is here; None where it is decided or no number would."""
    override: str | None = None
    """Why the verdict does not count, where the configuration says so."""
    reached_before: bool = False
    """Whether what it asks was so before training: then it may guard, and claims nothing."""


@dataclass(frozen=True)
class Decision:
    """A verdict with everything that it stands on."""

    verdict: Verdict
    reason: str
    """One line."""
    checks: Sequence[Check]
    overridden: Mapping[str, str]
    """Rules that did not hold and were overridden, with the reason."""
    loosened: Mapping[str, str]
    """Default rules that are taken away or ask less, and how: `GateConfig.loosened`."""
    unmeasured: Sequence[str]
    """Rules that were not held against anything, because nothing measured it and they do not insist."""
    confidence: float
    told: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self)


@dataclass(frozen=True)
class _Question:
    """A rule and the row that it is about."""

    name: str
    rule: GateRule
    row: Row

    @property
    def of_change(self) -> bool:
        return self.rule.margin is not None

    @property
    def above(self) -> bool:
        """Whether the mean has to lie above the threshold, and not below it."""
        if self.rule.kind == "superior":
            return self.row.better != "lower"
        return self.rule.kind in ("at_least", "not_below_base")

    @property
    def threshold(self) -> float:
        if self.rule.margin is None:
            return self.rule.value or 0.0
        # What has to be better lies beyond the margin, what must not be worse within it.
        return self.rule.margin if self.above == (self.rule.kind == "superior") else -self.rule.margin

    @property
    def reached_before(self) -> bool:
        """Whether the mean lay beyond a value of superiority before training."""
        if self.rule.kind != "superior" or self.of_change:
            return False
        before = math.fsum(self.row.before) / len(self.row.before)
        return before > self.threshold if self.above else before < self.threshold

    @property
    def values(self) -> Sequence[float]:
        return self.row.changes if self.of_change else self.row.after

    @property
    def ends(self) -> tuple[float, float] | None:
        """The least and greatest possible value."""
        if self.row.unit != SHARE:
            return None
        return (-1.0, 1.0) if self.of_change else (0.0, 1.0)


def decide(
    rows: Mapping[str, Row],
    gate: GateConfig,
    told: Sequence[str] = (),
    *,
    unheard: str | None = None,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> Decision:
    """Hold rows, by their keys, against the rules.

    pass: every rule holds. fail: one certainly does not, or a row holds a number that is none. inconclusive: anything
    else, as where nothing was measured, or too little, or a row is in doubt. `told` are facts that belong into the
    verdict's first line, `unheard` is one of them where a judge was asked and decides nothing (`not_heard`).

    A rule holds where the whole interval lies on the right side of its threshold, on `gate.min_prompts` prompts or
    more; it fails where the whole interval lies on the wrong side. Rules of superiority are claims, each of which will
    be quoted alone, so their p-values go through Holm. All others are guards that must hold together: to pass a run
    that breaks one of them, that one must err, so each is tested at its own level (Berger 1982, the intersection-union
    test) and the chance of a false pass is at most that of one guard, however many there are.
    """
    asked = list(_questions(rows, gate))
    found = [_resampled(question, seed, num_resamples) for question in asked]
    claims = [index for index, question in enumerate(asked) if question.rule.kind == "superior" and found[index]]
    held = [one.p_value(question.threshold) if one else None for one, question in zip(found, asked, strict=True)]
    for index, p in zip(claims, holm([held[index] or 0.0 for index in claims]), strict=True):
        held[index] = p
    checks = [_check(*each, gate) for each in zip(asked, found, held, strict=True)]
    held_to = {check.measure for check in checks}
    broken = [row for row in rows.values() if row.num_not_finite and row.key not in held_to]
    checks += [Check(row.key, row.key, "fail", _not_finite(row), "finite", 0.0, unit=row.unit) for row in broken]
    missing = [(name, rule) for name, rule in _rules(gate) if not _rows_of(rule, rows)]
    checks += [_unmeasured(name, rule, gate, unheard) for name, rule in missing if rule.required]
    unmeasured = [name for name, rule in missing if not rule.required]
    verdict, counted = _verdict(checks)
    told = [one_line(fact) for fact in told]
    overridden = {check.name: check.override for check in checks if check.override and check.verdict != "pass"}
    spoken = [
        *(f"{name} is overridden ({reason})" for name, reason in overridden.items()),
        *told_loosened(gate.loosened),
    ]
    reason = _reason(verdict, counted, [*spoken, *told])
    return Decision(verdict, reason, checks, overridden, gate.loosened, unmeasured, gate.confidence, told)


def _rules(gate: GateConfig) -> Iterator[tuple[str, GateRule]]:
    yield from ((name, rule) for name, rule in gate.rules.items() if rule is not None)


def _rows_of(rule: GateRule, rows: Mapping[str, Row]) -> list[Row]:
    if rule.measure == ALL_TASKS:
        return [row for key, row in rows.items() if key.startswith(TASKS)]
    return [rows[rule.measure]] if rule.measure in rows else []


def _questions(rows: Mapping[str, Row], gate: GateConfig) -> Iterator[_Question]:
    for name, rule in _rules(gate):
        yield from (_Question(name, rule, row) for row in _rows_of(rule, rows))


def _resampled(question: _Question, seed: int, num_resamples: int) -> Resampled | None:
    """Return what the values say; None where one of them is no number."""
    if question.row.num_not_finite:
        return None
    stream = derive_seed(seed, "gate", question.row.key)
    return resampled(question.values, question.row.prompts, question.ends, stream, num_resamples)


def _check(question: _Question, found: Resampled | None, p: float | None, gate: GateConfig) -> Check:
    """Hold one row against one rule."""
    rule, row, threshold = question.rule, question.row, question.threshold
    named = (question.name, row.key)
    if found is None or p is None:
        return Check(*named, "fail", _not_finite(row), rule.kind, threshold, unit=row.unit)
    bounds = found.interval(gate.confidence)
    near, far = (bounds.low, bounds.high) if question.above else (-bounds.high, -bounds.low)
    limit, claim = threshold if question.above else -threshold, rule.kind == "superior"
    # A claim has to lie beyond its threshold, a guard may stand on it.
    holds = near > limit and p <= 1 - gate.confidence if claim else near >= limit
    verdict: Verdict = "pass" if holds else "inconclusive"
    if far < limit or (claim and far <= limit):
        verdict = "fail"
    if row.doubt or (verdict == "pass" and found.num_clusters < gate.min_prompts):
        verdict = "inconclusive"
    spread = found.standard_error * math.sqrt(found.num_clusters)
    end = found.mean if question.ends is None else question.ends[0 if question.above else 1]
    distance, reach = abs(found.mean - threshold), abs(found.mean - end)
    needed = None if row.doubt else clusters_to_decide(distance, spread, reach, level=1 - gate.confidence)
    # Where all are alike there is no standard error, and the interval has the width that their number allows.
    error = found.standard_error or (bounds.high - bounds.low) / 4
    check = Check(
        *named,
        verdict,
        "",
        rule.kind,
        threshold,
        observed=found.mean,
        low=bounds.low,
        high=bounds.high,
        unit=row.unit,
        num=found.num,
        num_prompts=found.num_clusters,
        p=p,
        p_signs=sign_test(question.values, row.prompts, 0.0 if question.of_change else threshold),
        minimum_detectable=minimum_detectable(error, level=1 - gate.confidence),
        prompts_to_decide=max(needed, gate.min_prompts) if needed and verdict == "inconclusive" else None,
        override=gate.overrides.get(question.name),
        reached_before=question.reached_before,
    )
    return replace(check, says=_sentence(check, question, gate))


def not_heard(judge: Mapping[str, Any] | None) -> str | None:
    """Return that what evaluation.json calls `judge` decides nothing, and why; None where it does, or there is none."""
    return f"{judge['by']} is not heard: {judge['refusal']}" if judge and judge.get("refusal") else None


def _unmeasured(name: str, rule: GateRule, gate: GateConfig, unheard: str | None) -> Check:
    known = MEASURES.get(rule.measure)
    says = known.remedy if known else f"nothing measured {rule.measure}"
    if known and known.is_judged and unheard:
        says = one_line(unheard)
    if rule.measure != "answers/preferred":
        says = f"{name}: nothing measured {rule.measure}" + (f"; {says}" if known else "")
    threshold = next(number for number in (rule.value, rule.margin) if number is not None)
    return Check(name, rule.measure, "inconclusive", says, rule.kind, threshold, override=gate.overrides.get(name))


def _verdict(checks: Sequence[Check]) -> tuple[Verdict, list[Check]]:
    """Return the verdict over all checks, and those that are the reason for it."""
    counted = [check for check in checks if not check.override]
    for verdict in ("fail", "inconclusive"):
        if worst := [check for check in counted if check.verdict == verdict]:
            return verdict, worst
    # A value that is reached may have been reached before: only what is better than before, or than chance, is a claim.
    if not any(check.measure not in NO_CLAIM and _claims(check) for check in checks):
        return "inconclusive", [check for check in counted if check.reached_before]
    return "pass", counted


def _claims(check: Check) -> bool:
    return check.kind == "superior" and not check.reached_before


def _reason(verdict: Verdict, counted: Sequence[Check], told: Sequence[str]) -> str:
    """Return the verdict's first line."""
    claims = [check for check in counted if _claims(check)]
    guards = [check for check in counted if not _claims(check)]
    if verdict == "pass":
        parts = [check.says for check in claims] + [f"{len(guards)} guards hold"] * bool(guards)
        if all(check.measure in NO_CLAIM for check in claims):
            parts += ["nothing shows better answers, and what should is overridden"]
    elif all(check.verdict == "pass" for check in counted):
        parts = ["no rule claims that what the model answers got better, and held-out pairs alone pass nothing"]
        parts += [f"{check.name} asks what was so before training" for check in guards]
    else:
        parts = [check.says for check in (*claims, *guards)[:3]]
        if more := (*claims, *guards)[3:]:
            parts.append(f"and {len(more)} more: {', '.join(check.name for check in more)}")
    return one_line("; ".join([*parts, *(fact for fact in told if not any(fact in part for part in parts))]))


# ---------------------------------------------------------------------------------------------------------------- words


def _not_finite(row: Row) -> str:
    return f"{row.name}: {row.num_not_finite} of {len(row.before)} values are not finite"


def _sentence(check: Check, question: _Question, gate: GateConfig) -> str:
    """Return what was found, what was wanted, and what follows, in one sentence."""
    row, rule = question.row, question.rule
    numbers = {"mean": check.observed, "low": check.low, "high": check.high}
    found = _changed(numbers, row.unit) if question.of_change else shown(numbers, row.unit)
    notes = ": ".join(["weak evidence"] * row.weak + [row.note] * bool(row.note))
    said = f"{row.name} {found} over {check.num_prompts} prompts" + (f"; {notes}" if notes else "")
    limit = {"mean": check.threshold, "low": check.threshold, "high": check.threshold}
    line = _changed(limit, row.unit) if question.of_change else shown(limit, row.unit)
    side = ("above" if question.above else "below") if rule.kind == "superior" else None
    wanted = f"{side or ('at least' if question.above else 'at most')} {line}"
    if check.verdict == "pass":
        return f"{said}, {wanted}"
    if check.verdict == "fail":
        return f"{said}, wanted {wanted}" + (f": {rule.says}" if rule.says else "")
    if row.doubt:
        return f"{said}, wanted {wanted}: {row.doubt}"
    if check.num_prompts < gate.min_prompts:
        return f"{said}, wanted {wanted}: at least {gate.min_prompts} prompts are needed to pass"
    needed = check.prompts_to_decide
    return f"{said}, wanted {wanted}: " + (
        f"about {needed} prompts would decide" if needed else "no number would decide"
    )


def _changed(numbers: Mapping[str, Any], unit: str) -> str:
    """Return a change with its interval: in points, as a factor, or in its unit."""
    mean, low, high = (numbers[key] for key in ("mean", "low", "high"))
    if unit == TOKENS:
        text, least, most = (f"{math.exp(value):.2f}" for value in (mean, low, high))
        text = f"× {text}"
    else:
        factor, digits = (100, 1) if unit in (SHARE, RATE) else (1, 3)
        text, least, most = (f"{factor * value:+.{digits}f}".replace("-", "−") for value in (mean, low, high))
        text = f"{text} {'points' if unit in (SHARE, RATE) else unit}"
    return text if low == high else f"{text} ({least} … {most})"
