"""Make the bundled pairs: both sides are samples of the bundled model, told apart by the rule of the quickstart.

    python scripts/quickstart_pairs.py samples.jsonl                 # draws what is not in samples.jsonl yet, pairs all
    python scripts/quickstart_pairs.py samples.jsonl --out my.jsonl --pattern REGEX    # by another rule

For each line of quickstart_prompts.txt the model answers four times. An answer that the rule matches may be chosen, one
that it does not match may be rejected, and a prompt with both becomes one pair. So that nothing else tells the sides
apart, each is cut behind a whole sentence, such that both have about the same number of letters, and of cuts that come
as close the chosen side is the longer one and the shorter one in turns. Answers that go round in circles or draw
pictures are on neither side. Where only one side opens with "I", with assent or with a refusal, the opening tells
alone: such pairs are kept to a stated share.

Owns how the pairs are drawn. The rule stands in quickstart.yaml. What is drawn hangs on the machine and on torch's
version, the pairing on the samples alone.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiebreak
from tiebreak import files
from tiebreak.config import BUNDLED_MODEL
from tiebreak.doctor.texts.phrases import agrees, first_person, refuses
from tiebreak.engine.bundled import bundled_folder
from tiebreak.evaluation.repetition import looping
from tiebreak.fingerprint import derive_seed

PROMPTS = Path(__file__).with_name("quickstart_prompts.txt")
NUM, TEMPERATURE, MOST_TOKENS = 4, 0.6, 48
CHATS_A_BATCH = 24
FEWEST_WORDS = 12
"""Of a side: less says nothing."""
MOST_REPEATED = 0.1
OPENINGS = 0.35
"""Most pairs, as a share of all, whose opening tells the sides apart by what the doctor calls a shortcut."""

# "1." opens an item and ends nothing.
_SENTENCE_END = re.compile(r"(?<!\d)[.!?][\"'”)*]*(?=\s|$)")
_PICTURES = re.compile("[\u2190-\uffff\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Sampled:
    """A prompt with what the model said."""

    prompt: str
    texts: tuple[str, ...]
    ended: tuple[bool, ...]
    """Whether each text ended by itself."""


@dataclass(frozen=True)
class Side:
    """The beginning of an answer, up to the end of a sentence."""

    text: str
    opening: tuple[bool, bool, bool]
    """As the doctor sees it: refuses, opens in the first person, opens with assent."""
    ends: bool = False
    """Whether the model itself ended here."""


def draw(prompts: Sequence[str], path: Path) -> list[Sampled]:
    """Return the samples of all prompts; those that the file lacks are drawn and added, batch by batch."""
    kept = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    found = {row["prompt"]: Sampled(row["prompt"], tuple(row["texts"]), tuple(row["ended"])) for row in kept}
    missing = [prompt for prompt in prompts if prompt not in found]
    if missing:
        for sampled in _drawn(missing):
            found[sampled.prompt] = sampled
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(sampled)) + "\n")
            print(f"\r{len(found)} of {len(prompts)} prompts", end="", flush=True)
    return [found[prompt] for prompt in prompts]


def _drawn(prompts: Sequence[str]) -> Iterator[Sampled]:
    folder = bundled_folder(BUNDLED_MODEL, print)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    # bfloat16 is twice as fast; the samples are as good.
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    for start in range(0, len(prompts), CHATS_A_BATCH):
        some = prompts[start : start + CHATS_A_BATCH]
        torch.manual_seed(derive_seed(0, *some))
        chats = [[{"role": "user", "content": prompt}] for prompt in some]
        taken = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            rows = network.generate(
                **taken,
                max_new_tokens=MOST_TOKENS,
                do_sample=True,
                temperature=TEMPERATURE,
                top_k=0,
                num_return_sequences=NUM,
            )
        new = rows[:, taken["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        ended = (new == tokenizer.eos_token_id).any(1).tolist()
        for place, prompt in enumerate(some):
            mine = slice(NUM * place, NUM * (place + 1))
            yield Sampled(prompt, tuple(texts[mine]), tuple(ended[mine]))


def beginnings(text: str, ended: bool, fewest: int = FEWEST_WORDS) -> list[Side]:
    """Return what an answer is when it is cut behind each of its sentences, the shortest first."""
    cuts = [text[: end.end()].strip() for end in _SENTENCE_END.finditer(text)]
    return [
        Side(cut, (refuses(cut), first_person(cut), agrees(cut)), ended and cut == text.strip())
        for cut in cuts
        if len(cut.split()) >= fewest
    ]


def closest(chosen: Sequence[Side], rejected: Sequence[Side], want_longer: bool) -> tuple[Side, Side] | None:
    """Return the two sides whose lengths differ least; None where a side has none.

    The wrong side being longer counts as 60 letters more. Longer sides are better than short ones by an eighth of their
    length, and a chosen answer that ended by itself than another by 40 letters.
    """

    def price(two: tuple[Side, Side]) -> float:
        one, other = len(two[0].text), len(two[1].text)
        return abs(one - other) + 60 * ((one > other) != want_longer) - (one + other) / 8 - 40 * two[0].ends

    return min(((one, other) for one in chosen for other in rejected), key=price, default=None)


def pairs_of(samples: Sequence[Sampled], rule: re.Pattern[str]) -> list[tuple[str, Side, Side]]:
    """Return (prompt, chosen, rejected), at most one a prompt."""
    found = []
    for sampled in samples:
        sound = [
            (text, beginnings(text, ended))
            for text, ended in zip(sampled.texts, sampled.ended, strict=True)
            if looping(text) <= MOST_REPEATED and not _PICTURES.search(text)
        ]
        # All of a chosen answer keeps the rule, not only its beginning; of a rejected one what is left of it breaks it.
        chosen = [side for text, sides in sound if rule.search(text) for side in sides]
        # What ended by itself is not rejected whole: to end would be unlearned.
        rejected = [side for _, sides in sound for side in sides if not side.ends and not rule.search(side.text)]
        same = {side.opening for side in chosen} & {side.opening for side in rejected}
        if same:  # where a pair can be had whose openings are of one kind, it is taken
            chosen = [side for side in chosen if side.opening in same]
            rejected = [side for side in rejected if side.opening in same]
        if two := closest(chosen, rejected, want_longer=len(found) % 2 == 0):
            found.append((sampled.prompt, *two))
    return found


def balanced(pairs: Sequence[tuple[str, Side, Side]]) -> list[tuple[str, Side, Side]]:
    """Return the pairs without those by which the share of telling openings would be more than is allowed."""
    telling = [chosen.opening != rejected.opening for _, chosen, rejected in pairs]
    left = int(OPENINGS / (1 - OPENINGS) * telling.count(False))
    kept = []
    for pair, tells in zip(pairs, telling, strict=True):
        left -= tells
        if not tells or left >= 0:
            kept.append(pair)
    return kept


def _row(prompt: str, chosen: Side, rejected: Side) -> dict[str, Any]:
    def said(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    asked = {"messages": [{"role": "user", "content": prompt}]}
    return {"input": asked, "preferred_output": said(chosen.text), "non_preferred_output": said(rejected.text)}


def main() -> None:
    """Draw, pair, write, and say what the doctor sees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path, help="JSONL that keeps what was drawn")
    parser.add_argument("--prompts", type=Path, default=PROMPTS)
    parser.add_argument("--out", type=Path, default=tiebreak.QUICKSTART.with_name("pairs.jsonl"))
    parser.add_argument("--pattern", help="another rule: a regular expression that chosen answers match")
    asked = parser.parse_args()
    prompts = [line.strip() for line in asked.prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    rule = tiebreak.load_config(tiebreak.QUICKSTART).evaluation.rule
    pattern = asked.pattern or (rule.pattern if rule else "")
    found = pairs_of(draw(prompts, asked.samples), re.compile(pattern))
    kept = balanced(found)
    files.write_jsonl(asked.out, (_row(*pair) for pair in kept))
    seen = tiebreak.check(str(asked.out)).as_dict()
    print(f"\n{len(prompts)} prompts, {len(found)} with both kinds of answer, {len(kept)} pairs kept: {asked.out}")
    print(f"chosen is longer in {seen['chosen_longer_share']:.0%}")
    for what in ("length", "features"):
        print(f"{what}: {seen['shortcut'].get(what)}")
    for finding in seen["findings"]:
        print(f"{finding['severity']}: {finding['title']}: {finding['detail']}")


if __name__ == "__main__":
    main()
