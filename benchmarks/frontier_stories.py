"""Story beginnings, answers to them and a reward that is known: the task of `frontier.py`.

Owns what a prompt, an answer and the truth are. A prompt is an opening of two sentences that the model drew itself; an
answer is what it writes next, to the end of its second sentence or of the story, 64 tokens at most, the token that ends
it included. Where an answer ends hangs on its tokens alone, so log-probabilities of answers are those of a
distribution, and KL divergences between models are what they are called.

The reward is the number of *different* happy words. Repeating one gains nothing, so that it can be moved a long way by
sentences that are still sentences.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from tiebreak.engine.answers.answerer import Sampling
from tiebreak.engine.answers.local import generate
from tiebreak.engine.model import Model
from tiebreak.records import Example, Ids, TokenizedPair, TokenizedThumb

HAPPY = frozenset(
    word
    for line in (
        "beautiful best cheerful enjoy enjoyed excited friend friends fun giggled glad good great happily happy hug",
        "hugged joy joyful kind laugh laughed love loved loves nice play played playing proud smile smiled smiling",
        "wonderful",
    )
    for word in line.split()
)
SENTENCES, MOST_TOKENS = 2, 64
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Stories:
    """What the model wrote before it was trained, as ids: openings, and so many answers to each."""

    train: list[Ids]
    train_answers: list[list[Ids]]
    heldout: list[Ids]
    heldout_answers: list[list[Ids]]

    @staticmethod
    def from_json(row: dict[str, Any]) -> Stories:
        """Return what `as_json` was."""
        openings = {key: [tuple(ids) for ids in row[key]] for key in ("train", "heldout")}
        answers = {
            key: [[tuple(ids) for ids in own] for own in row[key]] for key in ("train_answers", "heldout_answers")
        }
        return Stories(**openings, **answers)

    def as_json(self) -> dict[str, Any]:
        """Return the ids for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Answers:
    """Several answers to a prompt, to be scored."""

    example_id: str
    prompt_ids: Ids
    completions: tuple[Ids, ...]
    weight: float = 1.0

    @property
    def prompt_id(self) -> str:
        """Each prompt is asked once."""
        return self.example_id


class Teller:
    """Draws and reads answers of one model; the model's weights may change between calls."""

    def __init__(self, model: Model) -> None:
        self._model = model
        texts = [model.tokenizer.decode([token]) for token in range(len(model.tokenizer))]
        self._sentence_ends = {token for token, text in enumerate(texts) if re.search(r"[.!?]", text)}

    def text(self, ids: Sequence[int]) -> str:
        """Return ids as text, without control tokens."""
        return str(self._model.tokenizer.decode(list(ids), skip_special_tokens=True))

    def reward(self, answer: Sequence[int]) -> int:
        """Return how many different happy words an answer has."""
        return len(HAPPY.intersection(words(self.text(answer))))

    def drawn(self, prompts: Sequence[Ids], num: int, seed: int) -> list[list[Ids]]:
        """Return `num` answers to each prompt, drawn at temperature 1."""
        self._model.network.eval()
        # What ends an answer is cut here and not left out, since it has a probability like any other token.
        made = generate(self._model.network, prompts, Sampling(MOST_TOKENS, 1.0, num, seed), (), self._model.pad_id)
        cut = iter(self.cut(ids) for ids, _ in made)
        return [list(islice(cut, num)) for _ in prompts]

    def cut(self, ids: Sequence[int]) -> Ids:
        """Return the ids of an answer to its end."""
        ended = 0
        for place, token in enumerate(ids):
            ended += token in self._sentence_ends
            if ended == SENTENCES or token in self._model.eos_ids:
                return tuple(ids[: place + 1])
        return tuple(ids)

    def stories(self, opening: str, num_train: int, num_heldout: int, num_answers: tuple[int, int]) -> Stories:
        """Draw different openings that begin alike, and answers to those to train on and to those held out."""
        start, found = tuple(self._model.tokenizer.encode(opening)), dict[Ids, None]()
        wanted = num_train + num_heldout
        for seed in range(20):
            for ids in self.drawn([start], wanted, seed)[0]:
                whole = sum(token in self._sentence_ends for token in ids) == SENTENCES
                found |= {(*start, *ids): None} if whole else {}
            if len(found) >= wanted:
                break
        else:
            raise SystemExit(f"error: {wanted} different openings were not found in {20 * wanted} draws; take fewer")
        openings = list(found)[:wanted]
        train, heldout = openings[:num_train], openings[num_train:]
        drawn = [self.drawn(side, num, 1000) for side, num in zip((train, heldout), num_answers, strict=True)]
        return Stories(train, drawn[0], heldout, drawn[1])

    def pairs(self, prompts: Sequence[Ids], answers: Sequence[Sequence[Ids]]) -> list[TokenizedPair]:
        """Return a pair for each prompt that allows one: its first answer and the first one of another reward."""
        found = []
        for place, (prompt, (first, *others)) in enumerate(zip(prompts, answers, strict=True)):
            other = next((one for one in others if self.reward(one) != self.reward(first)), None)
            if other is not None:
                chosen, rejected = sorted((first, other), key=self.reward, reverse=True)
                found.append(TokenizedPair(f"pair{place}", f"prompt{place}", prompt, chosen, rejected))
        return found


def labelled(pairs: Sequence[TokenizedPair], num: int, flips: float, seed: int) -> list[TokenizedPair]:
    """Return so many of the pairs, this share of them turned round; a seed has the same pairs whatever the share."""
    draw = random.Random(seed)
    taken = draw.sample(list(pairs), num)
    turned = set(draw.sample(range(num), round(flips * num)))
    return [
        TokenizedPair(f"{one.example_id}-turned", one.prompt_id, one.prompt_ids, one.rejected_ids, one.chosen_ids)
        if place in turned
        else one
        for place, one in enumerate(taken)
    ]


def apart(pairs: Sequence[TokenizedPair]) -> list[Example]:
    """Return both sides of each pair as completions on their own, one good and one bad."""
    return [
        TokenizedThumb(f"{pair.example_id}-{liked}", pair.prompt_id, pair.prompt_ids, ids, liked)
        for pair in pairs
        for liked, ids in zip((True, False), pair.completions, strict=True)
    ]


def words(text: str) -> list[str]:
    """Return the words of a text in small letters."""
    return _WORD.findall(text.lower())


def win_rate(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
    """Return how often our answer to a prompt has the higher reward than theirs, a tie counting one half.

    All of ours meet all of theirs to the same prompt; prompts count alike.
    """
    each = [
        sum((one > other) + 0.5 * (one == other) for one in own for other in others) / (len(own) * len(others))
        for own, others in zip(ours, theirs, strict=True)
    ]
    return sum(each) / len(each)


def best_possible(rewards: Sequence[Sequence[float]], strength: float) -> tuple[float, float]:
    """Return (KL, win rate) of the reference tilted by exp(strength · win rate of an answer): none wins more often.

    That holds among policies of the same KL (Rafailov et al. 2023, eq. 4, with an answer's win rate as its reward).
    `rewards` are of the reference's own answers to each prompt, and stand for all that it could answer: a guess, which
    flatters where KL nears the logarithm of their number.
    """
    kls, wins = [], []
    for own in rewards:
        chances = [win_rate([[one]], [own]) for one in own]
        weights = [math.exp(strength * chance) for chance in chances]
        shares = [weight / sum(weights) for weight in weights]
        kls.append(sum(share * math.log(share * len(own)) for share in shares))
        wins.append(sum(share * chance for share, chance in zip(shares, chances, strict=True)))
    return sum(kls) / len(kls), sum(wins) / len(wins)
