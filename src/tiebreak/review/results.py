"""What votes come to: how often one side wins, how surely, and whether the people can be relied upon.

Owns every number of a review. Pure: items and votes in, numbers out; the same ones again from the same logs.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from statistics import NormalDist, median
from unicodedata import normalize

from tiebreak.data.spacing import num_words
from tiebreak.doctor.labels.agreement import krippendorff, rating_table
from tiebreak.doctor.texts.wordhashes import key
from tiebreak.errors import ConfigError, nearest
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.paired import resampled, standard_error
from tiebreak.review.evidence import FAST, Person, Results, Share, Unhurried, with_doubts
from tiebreak.review.items import Item
from tiebreak.review.votes import Vote

WINS: Mapping[str, float] = {"b": 1.0, "a": 0.0, "tie": 0.5, "both_bad": 0.5}
"""How much of a win a verdict is for `b`."""
FAST_SECONDS, FAST_SECONDS_A_WORD = 1.5, 1 / 20
NARROW = 0.05


def results(
    items: Mapping[str, Item],
    votes: Mapping[str, Sequence[Vote]],
    showings: Mapping[str, int],
    *,
    sides: Mapping[str, str],
    exclude: Collection[str] = (),
    left_out: Mapping[str, int] | None = None,
    chosen_actively: bool = False,
    seed: int = 0,
) -> Results:
    """Return what votes come to; `votes` are those of each annotator, `showings` how many each has in all.

    `exclude` names annotators whose votes do not count, or `fast` for all votes that were too fast; they are told all
    the same. Raises ConfigError for a name that nobody has.
    """
    for name in exclude:
        if name not in votes and name != FAST:
            raise ConfigError(f"--exclude {name}: no annotator has this name.{nearest(name, [*votes, FAST])}")
    all_votes = [vote for name in votes for vote in votes[name]]
    kept = {name: [vote for vote in votes[name] if not _is_excluded(vote, items, exclude)] for name in votes}
    first = [vote for name in kept for vote in kept[name] if not vote.again and vote.verdict]
    values = values_of(items, first)
    win_rate = _win_rate(values, derive_seed(seed, "review"))
    alpha, lacks = alpha_of(items, first, derive_seed(seed, "review", "alpha"))
    bias, biased = _position_bias(kept)
    people = tuple(_person(name, votes[name], showings[name], items, exclude, seed) for name in votes)
    verdicts = Counter(vote.verdict for vote in first)
    found = Results(
        sides=dict(sides),
        num_items=len(items),
        num_judged_items=len(values),
        num_prompts=len({prompt for prompt, _ in values.values()}),
        num_votes=len(first),
        win_rate=win_rate,
        ties=Share.of(verdicts["tie"] + verdicts["both_bad"], len(first)),
        both_bad=Share.of(verdicts["both_bad"], len(first)),
        alpha=alpha,
        alpha_lacks=lacks,
        self_agreement=_self_agreement([vote for name in kept for vote in kept[name]]),
        position_bias=bias,
        biased=biased,
        num_fast=sum(is_fast(vote, items[vote.item]) for vote in all_votes),
        unhurried=_unhurried(items, first, derive_seed(seed, "review")),
        more_items=_more_items(values),
        people=people,
        excluded=tuple(dict.fromkeys(exclude)),
        num_excluded=len(all_votes) - sum(map(len, kept.values())),
        left_out=dict(left_out or {}),
        chosen_actively=chosen_actively,
        doubts=(),
        values=values,
    )
    return with_doubts(found)


def values_of(items: Mapping[str, Item], votes: Sequence[Vote]) -> dict[str, tuple[str, float]]:
    """Return prompt and mean win of `b` of each item that has a vote, in the order of the items."""
    said: defaultdict[str, list[float]] = defaultdict(list)
    for vote in votes:
        if vote.verdict:
            said[vote.item].append(WINS[vote.verdict])
    return {
        name: (item.prompt_id, math.fsum(said[name]) / len(said[name])) for name, item in items.items() if said[name]
    }


def is_fast(vote: Vote, item: Item) -> bool:
    """Whether a choice came in less time than reading takes: 1.5 seconds, or 1/20 of a second a word of both."""
    words = num_words(item.a) + num_words(item.b)
    return (
        vote.seconds is not None
        and vote.choice != "skip"
        and vote.seconds < max(FAST_SECONDS, words * FAST_SECONDS_A_WORD)
    )


def _unhurried(items: Mapping[str, Item], votes: Sequence[Vote], seed: int) -> Unhurried | None:
    """Return what votes come to without those that were too fast; None where none was."""
    rest = [vote for vote in votes if not is_fast(vote, items[vote.item])]
    values = values_of(items, rest)
    return Unhurried(len(votes) - len(rest), len(values), _win_rate(values, seed)) if len(rest) < len(votes) else None


def _is_excluded(vote: Vote, items: Mapping[str, Item], exclude: Collection[str]) -> bool:
    return vote.annotator in exclude or (FAST in exclude and is_fast(vote, items[vote.item]))


def _win_rate(values: Mapping[str, tuple[str, float]], seed: int) -> Share | None:
    """Return the mean over items with the interval that the gate would hold it to."""
    if not values:
        return None
    prompts, wins = zip(*values.values(), strict=True)
    found = resampled(wins, prompts, (0.0, 1.0), seed).interval()
    return Share(found.mean, found.low, found.high, found.num)


def alpha_of(items: Mapping[str, Item], votes: Sequence[Vote], seed: int = 0) -> tuple[Share | None, str]:
    """Return alpha with its interval over items, or None and what it lacks.

    Which of the two completions counts as the first is drawn from their texts, as the doctor does it: of answers that
    nobody knows by name, agreement by chance is that of a coin, however often one side wins.
    """
    cast = [vote for vote in votes if vote.verdict]
    names = sorted({vote.annotator for vote in cast})
    if len(names) < 2:
        return None, "needs two who voted"
    places, people = {name: place for place, name in enumerate(items)}, {name: code for code, name in enumerate(names)}
    table = rating_table(
        [places[vote.item] for vote in cast],
        [people[vote.annotator] for vote in cast],
        [_oriented(items[vote.item], WINS[vote.verdict or ""]) for vote in cast],
    )
    if len(table.items) == table.num_items:
        return None, "needs items that two voted on"
    if (found := krippendorff(table, seed=seed)) is None:
        return None, "nobody could disagree: all votes are the same"
    return Share(found.value, found.low, found.high, found.num_items), ""


def _oriented(item: Item, win: float) -> float:
    one, other = (key(normalize("NFC", text.strip()).encode("utf-8", "surrogatepass")) for text in (item.a, item.b))
    return 1 - win if one > other else win


def _self_agreement(votes: Sequence[Vote]) -> Share | None:
    """Return how often people said the same of what they saw a second time, both bad being a tie."""
    said: dict[tuple[str, str, bool], float] = {
        (vote.annotator, vote.item, vote.again): WINS[vote.verdict] for vote in votes if vote.verdict
    }
    both = [
        (win, said[name, item, False])
        for (name, item, again), win in said.items()
        if again and (name, item, False) in said
    ]
    return Share.of(sum(one == other for one, other in both), len(both))


def _lefts(votes: Sequence[Vote]) -> tuple[int, int]:
    """Return how often the left one was chosen, of how many choices of either, on first showings."""
    sided = [vote.choice for vote in votes if not vote.again and vote.choice in ("left", "right")]
    return sided.count("left"), len(sided)


def _position_bias(votes: Mapping[str, Sequence[Vote]]) -> tuple[Share | None, tuple[str, ...]]:
    """Return the share of left over everybody, and who is biased: an interval leaves one half out.

    Sides are balanced, so whoever looks at the answers alone comes to one half, however much one side wins. Of single
    people the intervals are wider, so that among many honest ones hardly any is called biased by chance (Bonferroni).
    """
    counts = {name: _lefts(own) for name, own in votes.items()}
    whole = Share.of(*map(sum, zip(*counts.values(), strict=True))) if counts else None
    asked = max(1, sum(bool(num) for _, num in counts.values()))
    found = ["everybody together"] if whole and whole.excludes_half else []
    own = {name: Share.of(left, num, 1 - 0.05 / asked) for name, (left, num) in counts.items()}
    return whole, (*found, *(name for name, share in own.items() if share and share.excludes_half))


def _person(
    name: str, votes: Sequence[Vote], showings: int, items: Mapping[str, Item], exclude: Collection[str], seed: int
) -> Person:
    counted = [vote for vote in votes if not (FAST in exclude and is_fast(vote, items[vote.item]))]
    first = [vote for vote in counted if not vote.again and vote.verdict]
    times = [vote.seconds for vote in votes if vote.seconds is not None]
    return Person(
        name,
        len(votes),
        showings,
        len(first),
        sum(vote.choice == "skip" for vote in votes),
        sum(is_fast(vote, items[vote.item]) for vote in votes),
        median(times) if times else None,
        _win_rate(values_of(items, first), derive_seed(seed, "review", name)),
        Share.of(*_lefts(counted)),
        _self_agreement(counted),
        name in exclude,
    )


def _more_items(values: Mapping[str, tuple[str, float]]) -> int | None:
    """Return how many more items narrow the interval to ±5 points: (z · spread / 0.05)² in all, were they like these.

    Where nobody disagrees there is no spread; of n alike the exact bound is (0.025)^(1/n), ten points wide at n = 36.
    """
    if len(values) < 2:
        return None
    prompts, wins = zip(*values.values(), strict=True)
    if not math.isfinite(error := standard_error(wins, prompts)):
        return None
    spread = error * math.sqrt(len(wins))
    least = math.log(0.025) / math.log(1 - 2 * NARROW)
    wanted = max((NormalDist().inv_cdf(0.975) * spread / NARROW) ** 2, least)
    return max(0, math.ceil(wanted) - len(wins))
