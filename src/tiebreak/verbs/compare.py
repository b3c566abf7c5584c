"""The verb compare: runs side by side, also across months: what differs, what scored better, what became of the data.

Owns which files of a run say what, when two runs measured a thing alike, and which advice follows. A part that a run
lacks, or whose file is not what was written, is said and left out; the others are compared.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tiebreak.config.losses import SECTIONS
from tiebreak.doctor.drift import Drift, drift, judged
from tiebreak.engine.since import changed_since
from tiebreak.engine.sources import contents
from tiebreak.errors import ConfigError, one_line
from tiebreak.evaluation.against import same_reference
from tiebreak.evaluation.contrast import Contrast, adjusted, contrast, on_their_own
from tiebreak.evaluation.recorded import FACTS, Difference, Recorded, differences, num_equal
from tiebreak.maths.two_samples import of_intervals
from tiebreak.runs import as_a_run_writes

MOST_RUNS = 26
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SEED = 0


@dataclass(frozen=True)
class Compared:
    """One run against the first: scores, and what became of its data."""

    letter: str
    same_reference: bool | None = None
    """Whether both were measured against one model; None: not known."""
    scores: Sequence[Contrast] = ()
    apart: Mapping[str, str] = field(default_factory=dict)
    """Measures that cannot be compared, and why."""
    drift: Sequence[Drift] = ()
    prompts: Mapping[str, int] | None = None
    """Training prompts of both, of the first alone, of this one alone."""


@dataclass(frozen=True)
class Comparison:
    """Runs side by side; the first is what the others are held against."""

    runs: Sequence[Mapping[str, Any]]
    differences: Sequence[Difference]
    num_equal: Mapping[str, int]
    others: Sequence[Compared]
    advice: Sequence[str]
    unknown: Sequence[str]
    """Which part of which run is not known, and why."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        others = [
            {
                "letter": one.letter,
                "same_reference": one.same_reference,
                "scores": [score.as_dict() for score in one.scores],
                "apart": dict(one.apart),
                "drift": [row.as_dict() for row in one.drift],
                "prompts": one.prompts and dict(one.prompts),
            }
            for one in self.others
        ]
        return {
            "schema": 1,
            "runs": [dict(one) for one in self.runs],
            "differences": [asdict(one) for one in self.differences],
            "num_equal": dict(self.num_equal),
            "others": others,
            "advice": list(self.advice),
            "unknown": list(self.unknown),
        }


def compare(*paths: str | Path) -> Comparison:
    """Set runs side by side; nothing is written, and no model is loaded.

    Raises ConfigError for fewer than two runs or one that is named twice, RunError for a folder that is no run.
    """
    if not 2 <= len(paths) <= MOST_RUNS:
        raise ConfigError(f"compare: wanted 2 to {MOST_RUNS} run folders, found {len(paths)}")
    seen: dict[Path, str | Path] = {}
    sides = []
    for letter, path in zip(LETTERS, paths, strict=False):
        side = Recorded(letter, path)
        if (place := side.run.path.resolve()) in seen:
            raise ConfigError(f"compare: {seen[place]} and {path} are the same run; name another one")
        seen[place] = path
        sides.append(side)
    first = sides[0]
    parts = {part: [side.known(part, told) for side in sides] for part, told in FACTS.items()}
    others = [_against(first, side) for side in sides[1:]]
    scores = iter(adjusted([score for one in others for score in one.scores]))
    others = [replace(one, scores=[next(scores) for _ in one.scores]) for one in others]
    stale = [said for side, one in zip(sides[1:], others, strict=True) for said in _stale(first, side, one)]
    return Comparison(
        [side.head() for side in sides],
        [one for part, told in parts.items() for one in differences(part, told)],
        {part: num_equal(told) for part, told in parts.items()},
        others,
        [*stale, *_aged(sides)],
        [f"{side.letter}: {why}" for side in sides for why in side.unknown],
    )


def _against(first: Recorded, other: Recorded) -> Compared:
    """Hold one run against the first, in what both measured alike and in what both know of their data."""
    scores, apart, same = [], {}, _same_reference(first, other)
    for key in dict.fromkeys([*first.items, *other.items]):
        obstacle = _obstacle(key, first, other) or (None if same else _another_reference(key, first, other, same))
        found = None if obstacle else contrast(first.items[key], other.items[key], _SEED)
        if found:
            scores.append(found)
        else:
            apart[key] = obstacle or "no item in common"
    same_data = first.manifest.get("data_fingerprint") == other.manifest.get("data_fingerprint")
    told = [] if same_data else other.part("drift of the data", functools.partial(_drift, first, other))
    prompts = None
    if first.prompts is not None and other.prompts is not None:
        common = len(first.prompts & other.prompts)
        alone = {side.letter: len(side.prompts or ()) - common for side in (first, other)}
        prompts = {"common": common, **alone}
    return Compared(other.letter, same, scores, apart, told or [], prompts)


_ALIKE: Mapping[str, Sequence[str]] = {
    "margin": ("loss.",),
    "loss": ("loss.",),
    "calibration": ("loss.",),
    "answers/": ("evaluation.max_new_tokens",),
    "answers/rule": ("evaluation.rule",),
    "answers/preferred": ("evaluation.judge", "evaluation.rule"),
    "answers/length_controlled": ("evaluation.judge", "evaluation.rule"),
    "human_win_rate": ("evaluation.max_new_tokens",),
    "answers/entropy": ("evaluation.draw_temperature",),
    "answers/self_bleu": ("evaluation.draw_temperature", "evaluation.num_draws"),
    "kl": ("evaluation.max_new_tokens", "evaluation.draw_temperature"),
}
"""Settings that have to be equal for a measure, or those whose keys begin so, to be the same measure."""
_BY_JUDGE = ("answers/preferred", "answers/length_controlled")
"""What a judge says: behind equal settings it is another one where its weights, code or training pairs are others."""
_BY_TOKEN = ("chosen_logps", "rejected_logps", "chosen_likelier", "neutral_logps", "kl_token", "answers/length")
"""What is counted in tokens, which are others with another model."""
_BY_REFERENCE = (
    *("accuracy", "margin", "logratio_gap", "calibration", "displaced", "loss", "kl", "kl_token"),
    *("answers/preferred", "answers/length_controlled", "answers/unchanged", "human_win_rate"),
)
"""What says how far a policy went from its reference, or how much better it is."""


def _obstacle(key: str, first: Recorded, other: Recorded) -> str | None:
    """Return why a measure of two runs cannot be compared; None where it can."""
    lacking = [side.letter for side in (first, other) if key not in side.items]
    if lacking:
        return f"not measured in {' and '.join(lacking)}"
    rows = [side.items[key].row for side in (first, other)]
    if rows[0].name != rows[1].name:
        return f"measures something else: {rows[0].name}; {rows[1].name}"
    if doubts := [f"{side.letter}: {row.doubt}" for side, row in zip((first, other), rows, strict=True) if row.doubt]:
        return f"nothing is decided on it ({'; '.join(doubts)})"
    return _other_settings(key, first, other) or _behind_settings(key, first, other)


def _other_settings(key: str, first: Recorded, other: Recorded) -> str | None:
    """Return which settings a measure hangs on are not equal, or not known."""
    wanted = {one for name, some in _ALIKE.items() if name == key or _is_of(key, name) for one in some}
    sides = [{k: v for k, v in side.settings.items() if k.startswith(tuple(wanted))} for side in (first, other)]
    if wanted and not all(side.settings for side in (first, other)):
        return f"only with the same {', '.join(sorted(wanted))}, which is not known"
    others = [one for one in _keys_of(sides) if sides[0].get(one) != sides[1].get(one)]
    return f"another {', '.join(others)}" if others else None


def _behind_settings(key: str, first: Recorded, other: Recorded) -> str | None:
    """Return what makes two measures of equal settings: the tokens of a model, a judge, or what a loss remembers."""
    bases = [contents(str(side.manifest.get("base_identity"))) for side in (first, other)]
    if key in _BY_TOKEN and bases[0] != bases[1]:
        return "another base model, and it is counted in tokens"
    if key in _BY_JUDGE:
        return _another_judge(first, other)
    return _own_scale(first, other) if key == "loss" else None


def _another_judge(first: Recorded, other: Recorded) -> str | None:
    """Return why what judges say cannot be compared: they are two, or it is not known that they are one."""
    sides = (first, other)
    identities = [(side.evaluation.get("judge") or {}).get("identity") for side in sides]
    if unknown := [side.letter for side, known in zip(sides, identities, strict=True) if not known]:
        told = f"which one judged {' and '.join(unknown)} is not known (to evaluate it again writes it down)"
        return f"only with the same judge, and {told}"
    return None if identities[0] == identities[1] else "another judge (its model, its code or what it was fitted on)"


def _same_reference(first: Recorded, other: Recorded) -> bool | None:
    return same_reference(first.against, other.against) if first.against and other.against else None


def _another_reference(key: str, first: Recorded, other: Recorded, same: bool | None) -> str | None:
    """Return why a measure over the reference cannot be compared, of runs that are not known to have one reference."""
    if key not in _BY_REFERENCE or (key == "loss" and not any(map(_loss_asks_reference, (first, other)))):
        return None
    if same is None:
        return "only with the same reference, and whether it is the same is not known"
    told = [f"{side.letter}: {one_line(side.manifest.get('reference'), 120)}" for side in (first, other)]
    return f"another reference ({'; '.join(told)})"


def _loss_asks_reference(side: Recorded) -> bool:
    from tiebreak.maths.objectives.table import OBJECTIVES  # noqa: PLC0415  torch takes seconds to load

    return any(OBJECTIVES[one["name"]].asks_reference for one in _objectives(side) if one["name"] in OBJECTIVES)


def _objectives(side: Recorded) -> list[dict[str, Any]]:
    """Return the objectives of a loss with their settings: one, or its terms."""
    told = {k.removeprefix("loss."): value for k, value in side.settings.items() if k.startswith("loss.")}
    return [dict(term["loss"]) for term in told["terms"]] if told["name"] == "terms" else [told]


def _own_scale(first: Recorded, other: Recorded) -> str | None:
    """Return why losses by the same settings are of two scales: of what was remembered, or of other company."""
    parts = _objectives(first)
    if unknown := [one["name"] for one in parts if one["name"] not in SECTIONS]:
        return f"its objective {unknown[0]} is not known to this version"
    if remembering := [one["name"] for one in parts if SECTIONS[one["name"]].remembers]:
        return f"{remembering[0]} measures it by what it remembers of its own steps"
    if {*first.items["loss"].ids} == {*other.items["loss"].ids}:
        return None
    from tiebreak.maths.objectives.table import OBJECTIVES  # noqa: PLC0415  torch takes seconds to load

    for one in parts:
        defaults = {name: known.default for name, known in SECTIONS[one["name"]].model_fields.items()}
        if OBJECTIVES[one["name"]].is_coupled(defaults | one):
            return f"{one['name']} gives a pair a loss that depends on the others, and the held-out pairs are others"
    return None


def _is_of(key: str, name: str) -> bool:
    return (name.endswith("/") and key.startswith(name)) or (name == "kl" and key == "kl_token")


def _keys_of(sides: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({key for side in sides for key in side})


def _drift(first: Recorded, other: Recorded) -> list[Drift]:
    """Return what became of the data, and of scores on each run's own held-out pairs where these are others."""
    found = drift(first.audit, other.audit) if first.audit.get("unit") == other.audit.get("unit") is not None else []
    own = []
    for key, name, side in _OWN if _same_reference(first, other) else ():  # else the model moved, and not the data
        pair = [one.items.get(key) for one in (first, other)]
        if pair[0] and pair[1] and {*pair[0].ids} != {*pair[1].ids}:
            told = [on_their_own(one, side, _SEED) for one in pair if one]
            apart = of_intervals(*((one.mean, one.low, one.high) for one in told))
            own.append(Drift(f"own/{key}", name, "share", told[0].mean, told[1].mean, apart.size, apart.p, moved=False))
    return [*found, *judged([(one, 0.0) for one in own])]


_OWN: Sequence[tuple[str, str, Literal["before", "after"]]] = (
    ("accuracy", "accuracy, each on its own held-out pairs", "after"),
    ("chosen_likelier", "the reference finds chosen likelier, on its own pairs", "before"),
)
_SCALES = (
    "words/chosen",
    "words/rejected",
    "margin",
    "shortcut/length",
    "shortcut/features",
    "agreement",
    "label_noise",
)
"""What a pull to the reference is set for: how long the sums of log-ratios are, and how sure the labels."""


def _stale(first: Recorded, other: Recorded, compared: Compared) -> Iterator[str]:
    """Say which strengths the later of two runs took over although its data moved."""
    moved = [row for row in compared.drift if row.moved and row.key in _SCALES]
    kept = [
        f"{key} {value:g}"
        for key, value in first.settings.items()
        if key.startswith("loss.") and isinstance(value, int | float) and not isinstance(value, bool) and value
        if other.settings.get(key) == value and other.settings.get("loss.name") == first.settings.get("loss.name")
    ]
    if moved and kept:
        later, earlier = (other, first) if other.began >= first.began else (first, other)
        what = ", ".join(row.name for row in moved)
        yield (
            f"{later.letter} has {' and '.join(kept)} as {earlier.letter} has, and its data are others ({what}): sweep "
            "it again on them"
        )


def _aged(sides: Sequence[Recorded]) -> Iterator[str]:
    """Say whose reference is older than the base model that it came from, and of whom that cannot be known."""
    for side in sides:
        manifest = side.manifest
        with as_a_run_writes(side.run.path):
            own = side.settings.get("model.revision")
            places = [(manifest.get("base_model"), manifest.get("base_identity"), "base model", own)]
            if manifest.get("model_folder") != manifest.get("base_model"):
                places.append((manifest.get("model_folder"), manifest.get("model"), "model", own))
            if named := manifest.get("reference_model"):
                other = side.settings.get("reference.revision") or own
                places.append((named["folder"] or named["name"], named["identity"], "named model", other))
            for place, identity, what, revision in places:
                if isinstance(place, str) and isinstance(identity, str):
                    changed, why = changed_since(place, identity, revision, manifest.get("started"))
                    if changed:
                        yield (
                            f"{side.letter}'s reference is older than its {what}: {place} is another one by now "
                            f"({why}); a run that starts from it has another reference"
                        )
                    elif changed is None:
                        side.unknown.append(f"whether its {what} {place} is what it was: {why}")
