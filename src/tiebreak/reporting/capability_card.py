"""The capability card: what each measure was before training, on the way, and after, and what it is held against.

Owns its content; the page draws it, the model card of an export tabulates it, and capability.json keeps it. It is made
of what a run measured and decided: no number is computed here, so none can differ from that of the verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiebreak.config.gate import MEASURES, ON_PAIRS, TASKS
from tiebreak.runs import Run

GROUPS = {
    "answers": "Answers of its own to held-out prompts",
    "abilities": "Abilities that have nothing to do with the preference",
    "pairs": "Held-out pairs",
    "other": "Other measures",
}
"""In the order of their weight: what a model writes decides, what it prefers is necessary alone."""
_ABILITIES = ("capability", "neutral_logps")
_PROBED = {
    "accuracy": "heldout/rewards/accuracies",
    "margin": "heldout/rewards/margins",
    "loss": "heldout/loss",
}
"""How the recorder spells what it sees of a measure while training goes on; any other is heldout/KEY."""
_OF_CHECKS = (
    *("name", "kind", "verdict", "says", "threshold", "observed", "low", "high", "num", "num_prompts", "p"),
    *("minimum_detectable", "prompts_to_decide", "override"),
)


def capability_card(run: Run) -> dict[str, Any]:
    """Return the card as JSON takes it.

    `measures` are in groups (GROUPS). Of each: `before` and `after` (mean, low, high; None where a value is no number),
    `during` (step and mean of the first `num_probed_pairs` held-out pairs; a probe has no interval), `num` items on
    `num_prompts` prompts, whether it is `weak` evidence, and the `rules` that it is held against, each with its
    verdict, whether it `holds`, its minimum detectable effect, and the reason where it is overridden. `unmeasured` are
    rules that insist on what nothing measured, `not_asked` those that do not insist, `loosened` default rules that were
    taken away or ask less, and how.
    """
    evaluation, manifest = run.evaluation, run.manifest
    stored = {str(row["key"]): row for row in run.rows(run.measures_file)}
    table = {str(row.get("key", row["name"])): row for row in evaluation["table"]}
    checks = [_rule(check) for check in evaluation.get("checks", ())]
    probes = [row for row in run.metrics if any(str(key).startswith("heldout/") for key in row)]
    measures = []
    for key in dict.fromkeys([*table, *stored]):
        known = stored.get(key, {})
        shown = table.get(key, known)
        found: dict[str, Any] = {
            "key": key,
            "group": group_of(key),
            "name": str(shown["name"]),
            "unit": str(shown["unit"]),
            "better": str(known.get("better") or (MEASURES[key].better if key in MEASURES else "neither")),
            **{side: dict(table[key][side]) if key in table else None for side in ("before", "after")},
            "during": _during(key, probes),
            "num": int(table[key]["after"]["num"]) if key in table else len(known["prompts"]),
            "num_prompts": int(table[key]["after"]["num_clusters"]) if key in table else len({*known["prompts"]}),
            "weak": bool(known.get("weak")),
            "note": str(known.get("note", "")),
            "rules": [rule for rule in checks if rule["measure"] == key],
        }
        measures.append(found)
    shown_keys = {one["key"] for one in measures}
    config = run.config
    return {
        "schema": 1,
        "run": run.path.resolve().name,
        "model": str(manifest.get("model")),
        "reference": str(manifest.get("reference")),
        "method": str(manifest.get("method")),
        "data_fingerprint": str(manifest.get("data_fingerprint")),
        "config_fingerprint": str(manifest.get("config_fingerprint")),
        "verdict": str(evaluation["verdict"]),
        "first_line": str(evaluation["reason"]),
        "confidence": evaluation.get("confidence"),
        "overridden": _texts(evaluation, "overridden"),
        "loosened": _texts(evaluation, "loosened"),
        "num_probed_pairs": min(config.evaluation.probe_pairs, int(evaluation["num_heldout_pairs"])) if probes else 0,
        "measures": sorted(measures, key=lambda one: list(GROUPS).index(one["group"])),
        "unmeasured": [rule for rule in checks if rule["measure"] not in shown_keys],
        "not_asked": [str(name) for name in evaluation.get("unmeasured", ())],
    }


def by_group(card: Mapping[str, Any]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Return the measures of a card under the headings of their groups; no group is empty."""
    groups = [(title, [one for one in card["measures"] if one["group"] == group]) for group, title in GROUPS.items()]
    return [(title, some) for title, some in groups if some]


def _texts(evaluation: Mapping[str, Any], key: str) -> dict[str, str]:
    return {str(rule): str(why) for rule, why in evaluation.get(key, {}).items()}


def group_of(key: str) -> str:
    """Return the group (GROUPS) of a measure."""
    if key in _ABILITIES or key.startswith(TASKS):
        return "abilities"
    if key.startswith(("answers/", "kl", "human_")):  # both KL are of answers that were drawn
        return "answers"
    return "pairs" if key in ON_PAIRS else "other"


def _rule(check: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a card says of a check: a rule holds where it passed; an override does not make it hold."""
    return {
        "measure": str(check.get("measure")),
        **{key: check.get(key) for key in _OF_CHECKS},
        "holds": check.get("verdict") == "pass",
    }


def _during(key: str, probes: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    column = _PROBED.get(key, f"heldout/{key}")
    return [{"step": int(row["step"]), "mean": float(row[column])} for row in probes if column in row]
