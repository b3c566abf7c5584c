"""The verb init: a commented configuration to start from, out of what the doctor saw or out of another trainer's.

Owns the choice of starting values and the reasons that stand beside them. It reads only the report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiebreak.config import (
    BUNDLED_MODEL,
    Config,
    DataConfig,
    ModelConfig,
    build_config,
    command,
    in_quotes,
)
from tiebreak.config.data import MOST_TOKENS
from tiebreak.config.losses.gaps import Dpo, DpoNorm
from tiebreak.config.losses.thumbs import Kto
from tiebreak.config.yaml_text import parse_yaml, write_yaml
from tiebreak.data.writer import require_new, writing
from tiebreak.doctor.findings import NOISY
from tiebreak.doctor.rules import READING_RULES, TOKEN_RULES
from tiebreak.doctor.sentences import reading_of
from tiebreak.errors import DataError, require_name
from tiebreak.files import write_text

# Tokens of a word, for a first guess where no tokenizer is named: English prose takes 1.3, code and lists more.
TOKENS_PER_WORD = 1.5
LENGTH_STEP = 64
MAX_FILES = 8
"""Files whose reading is told."""
USUAL = Config()
"""Where nothing in the data speaks for another value, a setting keeps its default."""
WANTED_HELDOUT = 400
"""Prompts that give a held-out accuracy an interval of about five points either way: 0.98 / sqrt(400)."""


@dataclass(frozen=True)
class _Scale:
    """What goes with a number of training pairs: larger sets take larger steps, and need no high rate."""

    up_to: float
    pairs_per_step: int
    learning_rate: float
    epochs: int


_SCALES = (
    _Scale(1_000, 4, 5e-5, 2),
    _Scale(10_000, 8, 2e-5, 1),
    _Scale(100_000, 32, 1e-5, 1),
    _Scale(math.inf, 64, 5e-6, 1),
)


_PLACED = {"train", "heldout", "format", "max_length", "truncation", "heldout_share"}
"""Settings of data that are written with a reason; of the others, those that the user said."""


def of_any_length(data: DataConfig) -> DataConfig:
    """Return data read whole: the length is what is asked for, so what another one would drop or cut is no matter."""
    return data.model_copy(update={"max_length": MOST_TOKENS, "truncation": "prompt_start"})


def init(report: Mapping[str, Any], data: DataConfig, model: ModelConfig | None, out: str | Path | None = None) -> str:
    """Return the configuration, proven to load, and write it to `out` where that is given.

    Raises DataError where the report is of data without a pair, or a completion.
    """
    if not _rows(report):
        see = in_quotes(command("check", report["read"]))
        raise DataError(
            f"{data.train_paths}: no {report['unit'][:-1]} can be read, and there is nothing to start from; see {see}"
        )
    text = starting_config(report, data, model)
    build_config(parse_yaml(text, "init"), where="init")
    write(text, out)
    return text


def best_read(data: DataConfig, examine: Callable[[DataConfig], dict[str, Any]]) -> tuple[DataConfig, dict[str, Any]]:
    """Return how data are best read, and what `examine` finds in them so, whatever their length."""
    found = examine(of_any_length(data))
    if (better := as_judged(found, data)) != data:
        again = examine(of_any_length(better))
        return (better, again) if again["num_completions"] else (data, found)
    return data, found


def as_judged(report: Mapping[str, Any], data: DataConfig) -> DataConfig:
    """Return how data may be read better: each completion on its own where most have no partner, and as demonstrations
    where there is no pair at all; unless it is said.
    """
    lone = any(finding["code"] == "lone_thumbs" for finding in report["findings"])
    better = "none" if lone else "good" if not _rows(report) else None
    stated = better is None or "pairing" in data.model_fields_set
    return data if stated else data.model_copy(update={"pairing": better})


def _rows(report: Mapping[str, Any]) -> int:
    """Return the number of pairs, or of completions on their own."""
    return int(report[f"num_{report['unit']}"])


def _loss(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the objective that the data ask for, with the reason; dpo where nothing speaks for another one."""
    yield from {"pairs": _loss_of_pairs, "completions": _loss_of_thumbs}[report["unit"]](report)


def _loss_of_thumbs(report: Mapping[str, Any]) -> Iterator[str]:
    labels = report["labels"]
    if report["read"].get("pairing") == "good":
        yield _set("name", "sft_unpaired", "demonstrations: answers to be imitated; preferences are a stage after it")
        return
    yield _set("name", "kto", "completions were judged one at a time, good or bad: each is learned from on its own")
    yield _set("beta", Kto().beta, "the usual start; smaller moves further from the reference")
    for name, weight in labels["weights"].items():
        if weight != 1:
            both = f"{labels['num_liked']} liked to {labels['num_disliked']} disliked"
            yield _set(name, weight, f"{both}: so that what they weigh is 1 … 4/3 (KTO, Eq. 8)")


def _loss_of_pairs(report: Mapping[str, Any]) -> Iterator[str]:
    by_length = any(finding["code"] == "shortcut_length" for finding in report["findings"])
    soft = report["stated"]["soft_label"]["num_lacking"] == 0
    if by_length and not soft:
        yield _set("name", "dpo_norm", "length alone tells what is preferred: log-ratios are divided by tokens")
        yield _set("beta", DpoNorm().beta, "the usual start for log-ratios per token")
    else:
        yield _set("name", "dpo")
        yield _set("beta", Dpo().beta, "the usual start; smaller moves further from the reference")
    if soft:
        yield _set("soft_labels", True, "every pair says how sure its label is (soft_label, or votes)")
    noise = report.get("label_noise")
    if not soft and noise and noise["low"] > NOISY:
        share, interval = round(min(noise["estimate"], 0.4), 2), f"{noise['low']:.0%} … {noise['high']:.0%}"
        yield _set("label_smoothing", share, f"about {noise['estimate']:.0%} of labels look flipped ({interval})")


def write(text: str, out: str | Path | None) -> None:
    """Write a configuration to a new file, where one is named."""
    if out is not None:
        require_name(out, "the file to write")
        target = Path(out)
        require_new(target)
        with writing(target):
            write_text(target, text, new=True)


def starting_config(report: Mapping[str, Any], data: DataConfig, model: ModelConfig | None) -> str:
    """Return a YAML configuration with its reasons as comments, ready for `tiebreak train`."""
    forms = ", ".join(dict.fromkeys(file["format"] for file in report["files"]))
    counted = f"{_rows(report)} {report['unit']} on {report['num_prompts']} prompts ({forms})"
    lines = [_comment(f"Written by 'tiebreak init': {counted}.")]
    for file in report["files"][:MAX_FILES]:
        lines += [_comment(f"{file['path']} · {one.name}: {one.text}") for one in reading_of(file)]
    errors = [finding for finding in report["findings"] if finding["severity"] == "error"]
    lost = [one for one in report["findings"] if one["code"] in TOKEN_RULES & READING_RULES]
    by_model = {*TOKEN_RULES, *(["unusable"] if lost else [])}  # `clean` knows no model
    if refused := [finding for finding in errors if finding["code"] not in by_model]:
        lines.append(_comment("train refuses these until they are allowed (data.allow) or cleaned:"))
        lines.append(_comment(command("clean", report["read"], "OUT")))
        lines += [_comment(f"{one['code']}: {one['count']} {one['of']}, {one['title']}") for one in refused]
    if lost:
        lines.append(_comment(f"this model and its template cannot take all {report['unit']}; train leaves these out:"))
        lines += [_comment(f"{one['code']}: {one['count']} {one['of']}, {_told(one)}") for one in lost]
    lines.append("model:")
    lines.append(_set("name", *([model.name] if model else [BUNDLED_MODEL, "the bundled 135M model; name your own"])))
    more = model.model_dump(mode="json", include=model.model_fields_set - {"name"}) if model else {}
    lines += [_set(name, value) for name, value in more.items()]
    lines += ["data:", *_data(report, data)]
    lines.append("adapter:")
    lines.append(_set("kind", "lora", "trains a small update beside the frozen weights; none: all weights"))
    lines.append(_set("rank", USUAL.adapter.rank))
    lines += ["loss:", *_loss(report)]
    lines += ["training:", *_training(report)]
    lines.append("stopping:")
    lines.append(
        _set(
            "artefact",
            USUAL.stopping.artefact,
            "an earlier checkpoint where it is surely better; patience: docs/recorder.md",
        )
    )
    lines.append("evaluation:")
    lines.append(
        _set("num_samples", USUAL.evaluation.num_samples, "held-out prompts answered before and after: they decide")
    )
    return "\n".join(lines) + "\n"


def _data(report: Mapping[str, Any], data: DataConfig) -> Iterator[str]:
    if isinstance(data.train, str):
        yield _set("train", data.train)
    else:
        yield _set("train", [source.model_dump(exclude_defaults=True) for source in data.train])
    if data.heldout:
        yield _set("heldout", data.heldout, "measured on and never trained on")
    forms = {file["format"] for file in report["files"]}
    detected = isinstance(data.train, str) and len(forms) == 1 and forms != {"columns"}
    yield _set("format", forms.pop() if detected else data.format)
    chosen = data.model_dump(include=data.model_fields_set - _PLACED, mode="json")
    for name, value in chosen.items():
        yield _set(name, value)
    said = {name: (getattr(data, name), "as you say") for name in _PLACED & data.model_fields_set}
    yield _set("max_length", *said.get("max_length", _max_length(report)))
    context = (report.get("tokens") or {}).get("context") or {}
    if "truncation" in said:
        yield _set("truncation", *said["truncation"])
    elif (beyond := context.get("num_beyond", 0)) > USUAL.data.max_dropped_share * _rows(report):
        reason = f"cuts the oldest prompt tokens of these {beyond} {report['unit']}; drop leaves them out"
        yield _set("truncation", "prompt_start", reason)
    else:
        reason = f"a longer {report['unit'][:-1]} is left out; prompt_start cuts the oldest prompt tokens instead"
        yield _set("truncation", data.truncation, reason)
    if "heldout_share" in said:
        yield _set("heldout_share", *said["heldout_share"])
    elif report["split"]["heldout_share"] is not None:
        prompts = max(report.get("num_groups") or report["num_prompts"], 1)
        share = round(min(0.25, max(0.02, WANTED_HELDOUT / prompts)), 3)
        kept = round(share * prompts)
        points = 98 / math.sqrt(max(kept, 1))
        yield _set("heldout_share", share, f"about {kept} prompts: an accuracy is known to about ±{points:.0f} points")


def _max_length(report: Mapping[str, Any]) -> tuple[int, str]:
    tokens, unit = report.get("tokens"), report["unit"]
    if tokens and "row" in tokens:
        longest, made_for = tokens["row"]["p99"], tokens["context"]["made_for"]
        if made_for is not None and _rounded(longest) > made_for:
            beyond = tokens["context"]["num_beyond"]
            return made_for, f"all that the model was made for; {beyond} of {_rows(report)} {unit} are longer"
        return _rounded(longest), f"99 % of {unit} have at most {longest:.0f} tokens with this tokenizer"
    words = report["words"]
    completions = [spread["p99"] for name, spread in words.items() if name != "prompt"]
    longest = TOKENS_PER_WORD * (words["prompt"]["p99"] + max(completions))
    reason = f"no {unit[:-1]} has tokens with this model" if tokens else "with --model M, init counts tokens"
    return _rounded(longest), f"guessed from words; {reason}"


def _rounded(tokens: float) -> int:
    """Round up to a multiple of LENGTH_STEP, with room for the template."""
    return max(2, math.ceil((tokens + 16) / LENGTH_STEP)) * LENGTH_STEP


def _training(report: Mapping[str, Any]) -> Iterator[str]:
    split, unit = report["split"], report["unit"]
    rows = split[f"num_train_{unit}"] if split["heldout_share"] is None else _rows(report)
    in_a_pair = 2 if unit == "completions" else 1
    scale = next(scale for scale in _SCALES if rows <= in_a_pair * scale.up_to)
    per_step = in_a_pair * scale.pairs_per_step
    steps = math.ceil(rows * scale.epochs / per_step)
    yield _set("learning_rate", scale.learning_rate, "within 1e-6..1e-4, the range that works for DPO with LoRA")
    yield _set("pairs_per_step", per_step, f"{unit}; about {steps} steps in all".removeprefix("pairs; "))
    yield _set("epochs", scale.epochs)


def _told(finding: Mapping[str, Any]) -> str:
    first = next((example["excerpt"] for example in finding["examples"]), finding["title"])
    return str(first if finding["code"] != "too_long" else finding["title"])


def _set(name: str, value: Any, reason: str = "") -> str:
    line = f"  {name}: {write_yaml(value, inline=True)}"
    return f"{line}  # {_plain(reason)}" if reason else line


def _comment(text: str) -> str:
    return f"# {_plain(text)}"


def _plain(text: str) -> str:
    """Keep a comment on its line, whatever a path or a title holds."""
    return " ".join(text.split())
