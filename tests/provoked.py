"""Failures on purpose: each is planted in a real run of a tiny model, and healthy runs beside them.

    python tests/provoked.py        # trains all of them and writes the table into docs/diagnoses.md (half an hour)

The model is stories260k, taught to end its answers; pairs are answers that it drew itself, labelled by a rule that is
known. Owns what is planted, and what a healthy run is.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

import tiebreak
from tiebreak.config import load_config
from tiebreak.doctor.examination import audit
from tiebreak.doctor.triage import heed
from tiebreak.engine.answers.answerer import Chat, Sampling
from tiebreak.engine.reference.shard import Shard
from tiebreak.files import write_json
from tiebreak.progress import Noting, Silent
from tiebreak.records import Message
from tiebreak.training.attempt import attempt
from tiebreak.training.company import Company
from tiebreak.training.preemption import Stop
from tiebreak.training.settled import check_settings
from tiebreak.training.trained import load

Row = dict[str, Any]
NAMES = ("Tom", "Lily", "Ben", "Anna", "Max", "Sue", "Tim", "Mia", "Sam", "Lucy", "Jack", "Amy")
ANIMALS = ("cat", "dog", "bird", "bear", "fish", "mouse", "rabbit", "frog", "duck", "fox", "pig", "cow")
OPENINGS = (
    "Once upon a time, there was a {animal} named {name}.",
    "One day, {name} went to the park with a {animal}.",
    "{name} had a little {animal}.",
    "{name} saw a big {animal} in the garden.",
)
CHEERFUL = r"\b(happy|smiled|laughed|fun|loved|good|nice|friends?)\b"
RULES = {
    "cheerful": CHEERFUL,
    "he or she": r"\b([Hh]e|[Ss]he)\b",
    "speech": r"\"|\bsaid\b|\basked\b",
}
MOST_TOKENS = 40
LORA_RATE, FULL_RATE = 1e-3, 1e-4
"""At which this model learns a rule; what does so much larger models is far too little for it."""


def prompts(seed: int, num: int) -> list[str]:
    """Return different beginnings of stories."""
    every = [o.format(name=n, animal=a) for o, n, a in itertools.product(OPENINGS, NAMES, ANIMALS)]
    return random.Random(seed).sample(every, num)


def sentences(text: str, num: int) -> str | None:
    """Return the first sentences of a text; None where it has fewer."""
    found = re.match(rf"(?:[^.!?]+[.!?]+\"?){{{num}}}", text)
    return found[0] if found else None


@dataclass
class World:
    """A tiny model that ends its answers, and what it answers: made once, in a folder."""

    folder: Path
    stories: Path
    """The model as it came: it has never been taught to end an answer."""

    @property
    def model(self) -> Path:
        """The model that was taught to answer with two sentences, or one."""
        place = self.folder / "taught"
        if not place.exists():
            rows = [
                {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": cut}]}
                for prompt, texts in answers(self.stories, prompts(10_000, 400), 4, 10_000, ended=False).items()
                for at, text in enumerate(texts)
                if (cut := sentences(text, 1 + at % 2))
            ]
            settings = {
                "model.name": str(self.stories), "adapter": "none", "loss": "sft_unpaired",
                "training.learning_rate": 2e-3, "training.epochs": 3, "training.pairs_per_step": 16,
                "evaluation.num_samples": 0, "evaluation.num_draws": 0, "evaluation.neutral_probe": False,
            }  # fmt: skip
            made = self.trained(self.folder / "teaching", rows, settings)
            shutil.copytree(made.policy_folder, place)
        return place

    def answers(self, seed: int, num: int = 200) -> dict[str, list[str]]:
        """Return eight answers of the taught model to each of some prompts."""
        place = self.folder / f"answers-{seed}.json"
        if not place.exists():
            write_json(place, answers(self.model, prompts(seed, num), 8, seed))
        found: dict[str, list[str]] = json.loads(place.read_text(encoding="utf-8"))
        return found

    def trained(self, out: Path, rows: Sequence[Row], settings: Mapping[str, Any]) -> tiebreak.Run:
        """Train on rows, by the settings that all share but for those given; a run that fails is returned as it is."""
        file = out.with_suffix(".jsonl")
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        shared = {
            "data.train": str(file), "data.heldout_share": 0.4, "reference.store": "off",
            "adapter.rank": 8, "training.epochs": 1, "evaluation.max_new_tokens": 24,
            "evaluation.num_samples": 20, "evaluation.drawn_prompts": 8, "evaluation.num_draws": 3,
            "training.pairs_per_step": 16, "signals.looks": 0,
            "evaluation.neutral_probe": False, "evaluation.probes": 3, "evaluation.probe_pairs": 1000,
            "output.dir": str(out), "output.trackers": [],
        }  # fmt: skip
        if "model.name" not in settings:
            shared["model.name"] = str(self.model)
        if settings.get("adapter") == "none":
            del shared["adapter.rank"]
        config = load_config(None, shared | {"training.learning_rate": LORA_RATE} | dict(settings))
        run, progress = tiebreak.Run(out), Noting(Silent())
        with contextlib.suppress(tiebreak.TiebreakError):  # what `tiebreak.train` does, but for the page
            check_settings(config, progress)
            examined = audit(config.data).report
            heed(examined, config.data, progress)
            attempt(
                run,
                config,
                examined,
                Stop(),
                progress,
                time.perf_counter(),
                resume="auto",
                accept=(),
                company=Company(),
            )
        return run


def answers(model: Path, asked: Sequence[str], num: int, seed: int, *, ended: bool = True) -> dict[str, list[str]]:
    """Return so many drawn answers of a model to each prompt, those that end."""
    policy = load(load_config(None, {"model.name": str(model), "reference.store": "off"})).policy
    chats = [Chat((Message("user", prompt),)) for prompt in asked]
    drawn = policy.answer(chats, Sampling(MOST_TOKENS, 1.0, num, seed))
    # A story goes on with a space, which its model knows as part of the next word.
    kept = [one.text.strip() if one.finished or not ended else "" for one in drawn]
    return {prompt: [f" {text}" for text in kept[num * at : num * (at + 1)] if text] for at, prompt in enumerate(asked)}


def pairs(world: World, seed: int, rule: str = "cheerful", most: int = 2) -> list[Row]:
    """Return pairs of answers to the same prompt, those that follow a rule being preferred."""
    found = []
    for prompt, texts in world.answers(seed).items():
        good, bad = (
            [text for text in dict.fromkeys(texts) if bool(re.search(RULES[rule], text)) is wanted]
            for wanted in (True, False)
        )
        found += [{"prompt": prompt, "chosen": a, "rejected": b} for a, b in zip(good[:most], bad[:most], strict=False)]
    return found


def turned(row: Row) -> Row:
    """Return a pair the other way round."""
    return row | {"chosen": row["rejected"], "rejected": row["chosen"]}


Plant = Callable[[World, int, Path], tiebreak.Run]
Change = Callable[[list[Row], random.Random], list[Row]]


def _of(settings: Mapping[str, Any], rule: str = "cheerful", change: Change | None = None) -> Plant:
    """Return what trains on pairs of a rule, changed, by some settings."""

    def planted(world: World, seed: int, out: Path) -> tiebreak.Run:
        rows = pairs(world, seed, rule)
        if change:
            rows = change(rows, random.Random(seed))
        own = {"evaluation.rule": {"name": rule, "pattern": RULES[rule]}}
        return world.trained(out, rows, own | {"training.seed": seed} | dict(settings))

    return planted


def _shuffled(rows: list[Row], draw: random.Random) -> list[Row]:
    return [turned(row) if draw.random() < 0.5 else row for row in rows]


def _contradictory(rows: list[Row], draw: random.Random) -> list[Row]:
    return [one for row in rows for one in ([row, turned(row)] if draw.random() < 0.4 else [row])]


def _by_length(rows: list[Row], draw: random.Random) -> list[Row]:
    """The longer one is preferred, whatever it says."""
    longer = {at: len(row["chosen"].split()) - len(row["rejected"].split()) for at, row in enumerate(rows)}
    return [row if longer[at] > 0 else turned(row) for at, row in enumerate(rows) if longer[at]]


def _repeated(rows: list[Row], draw: random.Random) -> list[Row]:
    few = rows[: len(rows) // 6]
    return rows + few * 5


def _few_and_noisy(rows: list[Row], draw: random.Random) -> list[Row]:
    """Few pairs, a quarter of which are labelled wrongly: what can be learned of them is soon learned."""
    return [turned(row) if draw.random() < 0.25 else row for row in rows[:180]]


def _same_answer(rows: list[Row], draw: random.Random) -> list[Row]:
    return [row | {"chosen": " They were very happy and they played all day."} for row in rows]


def _alike(rows: list[Row], draw: random.Random) -> list[Row]:
    """A word of an answer is changed."""
    made = []
    for row in rows:
        words = row["chosen"].split(" ")
        at = draw.randrange(1, len(words))
        other = [*words[:at], draw.choice(("big", "happy", "red", "the", "little", "and")), *words[at + 1 :]]
        if words != other:
            made.append(row | {"rejected": " ".join(other)})
    return made


def _cut_off(world: World, seed: int, out: Path) -> tiebreak.Run:
    """Whoever drew the answers stopped at ten tokens, and took what they had for answers."""
    tokenizer = AutoTokenizer.from_pretrained(world.model)

    def cut(text: str) -> str:
        return str(tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)[:10]))

    rows = [row | {side: cut(row[side]) for side in ("chosen", "rejected")} for row in pairs(world, seed)]
    return world.trained(out, rows, {"training.seed": seed})


def _wrong_reference(world: World, seed: int, out: Path) -> tiebreak.Run:
    """What another model said of these pairs is stored as the reference's, and nobody compares."""
    rows, store = pairs(world, seed), out.with_name(f"{out.name}-store")
    settings = {"training.seed": seed, "reference.store": str(store), "reference.spot_checks": 0}
    world.trained(
        out.with_name(f"{out.name}-before"), rows, settings | {"evaluation.num_samples": 0, "evaluation.num_draws": 0}
    )
    draw = torch.Generator().manual_seed(seed)
    for path in store.rglob("*.safetensors"):
        said = Shard.read(path.read_bytes(), path.stem).rows()
        path.unlink()
        Shard.of({key: row + 0.3 * torch.randn(row.shape, generator=draw) for key, row in said.items()}).write(
            path.parent
        )
    return world.trained(out, rows, settings)


HEALTHY: dict[str, Plant] = {
    "dpo, LoRA": _of({}),
    "dpo, all weights": _of({"adapter": "none", "training.learning_rate": FULL_RATE}),
    "dpo, beta 0.5": _of({"loss.beta": 0.5}),
    "dpo, beta 0.03": _of({"loss.beta": 0.03}),
    "ipo": _of({"loss": "ipo"}),
    "simpo": _of({"loss": "simpo", "training.learning_rate": LORA_RATE / 2}),
    "orpo": _of({"loss": "orpo"}),
    "kto": _of({"loss": "kto"}),
    "hinge": _of({"loss": "hinge"}),
    "robust": _of({"loss": "robust"}),
    "dpo, he or she": _of({}, "he or she"),
    "dpo, speech": _of({}, "speech"),
    "dpo, a third of the rate": _of({"training.learning_rate": LORA_RATE / 3}),
}
PLANTED: dict[str, Plant] = {
    "learning_rate_too_high": _of({"training.learning_rate": 100 * LORA_RATE}),
    "learning_rate_too_low": _of({"training.learning_rate": LORA_RATE / 1000}),
    "beta_too_high": _of({"loss.beta": 50.0}),
    "beta_too_low": _of({"loss.beta": 1e-4, "training.epochs": 6}),
    "swapped_labels": _of({}, change=lambda rows, _: [turned(row) for row in rows]),
    "shuffled_labels": _of({}, change=_shuffled),
    "contradictory_labels": _of({"data.allow": ["contradiction"]}, change=_contradictory),
    "length_only": _of({}, change=_by_length),
    "duplicated_data": _of({}, change=_repeated),
    "memorising": _of(
        {"training.epochs": 16, "evaluation.probes": 8, "loss.beta": 0.3, "data.heldout_share": 0.6},
        "he or she",
        _few_and_noisy,
    ),
    "collapse": _of({"loss": "iterative_rpo", "training.epochs": 2}, change=_same_answer),
    "displacement": _of({"training.epochs": 7}, change=_alike),
    "eos_or_masks": _cut_off,
    "wrong_reference": _wrong_reference,
    "never_tuned": lambda world, seed, out: _of({"model.name": str(world.stories)})(world, seed, out),
}
SEEDS = tuple(range(5))
MENDED = ("length_only", "collapse", "displacement")
"""Causes whose rules were mended after the runs of all of these seeds had been read; three more were drawn for them."""
LOOKED_AT = 2
"""Rules were written with the runs of so many seeds in sight, those that were mended with all five."""
PAGE = Path(__file__).parents[1] / "docs" / "diagnoses.md"
MARKED = r"(<!-- made: provoked -->\n).*?(\n<!-- end: provoked -->)"


def named(run: tiebreak.Run) -> list[str]:
    """Return the causes that are named of a run, the first one first."""
    return [one.cause for one in tiebreak.why(run).diagnoses]


def place_of(world: World, name: str, seed: int) -> Path:
    """Return where a run is kept."""
    return world.folder / str(seed) / re.sub(r"\W+", "-", name)


def provoke(world: World, name: str, seed: int) -> tiebreak.Run:
    """Return the run that a failure is planted in, or a healthy one; what is there is not trained again."""
    out = place_of(world, name, seed)
    out.parent.mkdir(exist_ok=True)
    if out.exists():
        return tiebreak.Run(out)
    return (PLANTED | HEALTHY)[name](world, seed, out)


def table(found: Mapping[tuple[str, int], list[str]]) -> str:
    """Return planted × named: of how many seeds the first cause is which, those looked at and the others apart."""
    lines = [
        "| planted | seeds | named first | of these, seeds nobody had looked at | named besides |",
        "|---|---|---|---|---|",
    ]
    for name in (*PLANTED, *HEALTHY):
        of = {seed: causes for (one, seed), causes in found.items() if one == name}
        if not of:
            continue
        wanted = name if name in PLANTED else "nothing"
        first = {seed: causes[0] if causes else "nothing" for seed, causes in of.items()}
        counts = Counter(first.values()).most_common()
        seen = len(SEEDS) if name in MENDED else LOOKED_AT
        others = [cause == wanted for seed, cause in first.items() if seed >= seen]
        besides = Counter(cause for causes in of.values() for cause in causes[1:]).most_common()
        cells = [
            name if name in PLANTED else f"healthy: {name}",
            str(len(of)),
            ", ".join(f"{cause} {num}" for cause, num in counts),
            f"{sum(others)} of {len(others)}",
            ", ".join(f"{cause} {num}" for cause, num in besides) or "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is planted, name it, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the runs are kept: what is there is not trained again")
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[2] / "shared" / "models" / "stories260k")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(len(SEEDS) + 3))
    parser.add_argument("--names", nargs="+", default=[*PLANTED, *HEALTHY])
    parser.add_argument("--there", action="store_true", help="train nothing: name again what is there")
    parser.add_argument(
        "--page", action="store_true", help="write the table of all that is there into docs/diagnoses.md"
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    world, found = World(options.folder, options.model), {}
    for seed, name in itertools.product(options.seeds, options.names):
        more = seed not in SEEDS and name not in MENDED
        if more or (options.there and not place_of(world, name, seed).exists()):
            continue
        found[name, seed] = named(provoke(world, name, seed))
        print(seed, name, "→", ", ".join(found[name, seed]) or "nothing", flush=True)
    made = table(found)
    print(made)
    if options.page:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(re.sub(MARKED, lambda part: part[1] + made + part[2], text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
