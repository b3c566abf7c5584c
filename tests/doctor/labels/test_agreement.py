"""The coefficients give the figures of the papers, and annotators who click at random are found."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bounds import hang_after, num_lines
from tiebreak.doctor.labels.agreement import Ratings, cohen, fleiss, krippendorff, rating_table
from tiebreak.doctor.labels.annotators import annotator_reliability

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C: four observers, twelve units.
KRIPPENDORFF_2011 = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""

# Fleiss 1971, table 1: 30 patients, six psychiatrists each, five diagnoses.
FLEISS_1971 = """
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""

# The worked example of the Wikipedia article "Fleiss' kappa": ten subjects, fourteen raters, five categories.
FOURTEEN_RATERS = [
    (0, 0, 0, 0, 14),
    (0, 2, 6, 4, 2),
    (0, 0, 3, 5, 6),
    (0, 3, 9, 2, 0),
    (2, 2, 8, 1, 1),
    (7, 7, 0, 0, 0),
    (3, 2, 6, 3, 0),
    (2, 5, 3, 2, 2),
    (6, 5, 2, 1, 0),
    (0, 2, 2, 3, 7),
]


def _grid(text: str) -> Ratings:
    rows = [line.split() for line in text.split("\n") if line.strip()]
    cells = [(item, who, float(cell)) for who, row in enumerate(rows) for item, cell in enumerate(row) if cell != "."]
    return rating_table(*np.array(cells).T)


def _counted(counts) -> Ratings:
    cells = [
        (item, category) for item, row in enumerate(counts) for category, num in enumerate(row) for _ in range(num)
    ]
    items, values = np.array(cells).T
    return rating_table(items, np.full(len(items), -1), values)


def _coincidences(table: np.ndarray, difference) -> float:
    """Alpha by the coincidence matrix, as the paper computes it; `table` is [annotators, items] with NaN."""
    levels = np.unique(table[~np.isnan(table)])
    matrix = np.zeros((len(levels), len(levels)))
    for unit in table.T:
        seen = np.searchsorted(levels, unit[~np.isnan(unit)])
        for i, one in enumerate(seen):
            for j, other in enumerate(seen):
                if i != j:
                    matrix[one, other] += 1 / (len(seen) - 1)
    totals = matrix.sum(0)
    squares = np.array([[difference(levels, totals, c, k) for k in range(len(levels))] for c in range(len(levels))])
    return 1 - (totals.sum() - 1) * (matrix * squares).sum() / (np.outer(totals, totals) * squares).sum()


DIFFERENCES = {
    "nominal": lambda levels, totals, c, k: float(c != k),
    "interval": lambda levels, totals, c, k: (levels[c] - levels[k]) ** 2,
    "ordinal": lambda levels, totals, c, k: (
        (totals[min(c, k) : max(c, k) + 1].sum() - (totals[c] + totals[k]) / 2) ** 2
    ),
}


@pytest.mark.parametrize(("level", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_krippendorff_2011(level, value):
    found = krippendorff(_grid(KRIPPENDORFF_2011), level)
    assert found.value == pytest.approx(value, abs=5e-4)
    assert (found.num_items, found.num_ratings) == (11, 40)
    assert found.low < found.value < found.high <= 1


@pytest.mark.parametrize("level", sorted(DIFFERENCES))
def test_alpha_equals_the_coincidence_matrix_on_tables_with_holes(level):
    rng = np.random.default_rng(4)
    for _ in range(5):
        table = rng.integers(0, 5, size=(5, 30)).astype(float) * 1.5
        table[rng.random(table.shape) < 0.4] = np.nan
        who, item = np.nonzero(~np.isnan(table))
        found = krippendorff(rating_table(item, who, table[who, item]), level)
        several = table[:, (~np.isnan(table)).sum(0) >= 2]
        assert found.value == pytest.approx(_coincidences(several, DIFFERENCES[level]), abs=1e-12)


def test_fleiss_kappa_is_that_of_his_paper():
    counts = [[int(digit) for digit in row] for row in FLEISS_1971.split()]
    assert np.sum(counts, axis=0).tolist() == [26, 26, 30, 55, 43]
    assert fleiss(_counted(counts)) == pytest.approx(0.430, abs=5e-4)


def test_fleiss_kappa_of_fourteen_raters_is_0_210():
    assert fleiss(_counted(FOURTEEN_RATERS)) == pytest.approx(0.210, abs=5e-4)


def test_fleiss_needs_the_same_number_of_ratings_everywhere():
    assert fleiss(_grid(KRIPPENDORFF_2011)) is None


def test_cohens_kappa_is_that_of_his_example():
    # Cohen 1960, table 2, as counts of 200: observed .70, chance .41, kappa .492.
    counts = np.array([[88, 14, 18], [10, 40, 10], [2, 6, 12]])
    first = np.repeat(np.repeat(np.arange(3), 3), counts.ravel())
    second = np.repeat(np.tile(np.arange(3), 3), counts.ravel())
    items = np.arange(200)
    ratings = rating_table(np.r_[items, items], np.r_[np.full(200, 7), np.full(200, 4)], np.r_[first, second])
    found = cohen(ratings)
    assert (found.first.tolist(), found.second.tolist(), found.num_shared.tolist()) == ([4], [7], [200])
    assert found.observed[0] == pytest.approx(0.70)
    assert found.kappa[0] == pytest.approx((0.70 - 0.41) / (1 - 0.41))


def test_cohen_compares_only_couples_who_share_enough_items():
    ratings = _grid(KRIPPENDORFF_2011)
    assert cohen(ratings, min_shared=10).num_shared.tolist() == [10, 10]
    every = cohen(ratings, min_shared=2)
    assert len(every.kappa) == 6
    rows = json.loads(json.dumps(every.as_rows("ABCDEFG", limit=2)))
    assert [row["num_items"] for row in rows] == [10, 10]


def test_a_repeated_rating_of_one_annotator_counts_once_and_the_unnamed_are_all_different():
    items, values = np.array([0, 0, 0]), np.array([1, 2, 2])
    assert rating_table(items, np.array([5, 5, 6]), values).rows.tolist() == [0, 2]
    assert rating_table(items, np.array([-1, -1, -1]), values).rows.tolist() == [0, 1, 2]


def test_ratings_that_never_vary_have_no_coefficient():
    same = rating_table([0, 0, 1, 1], [0, 1, 0, 1], [3, 3, 3, 3])
    assert krippendorff(same) is None
    assert fleiss(same) is None
    assert np.isnan(cohen(same, min_shared=2).kappa).all()


@pytest.mark.parametrize("values", [[], [1.0], [np.nan, np.nan]])
def test_tables_without_two_ratings_of_an_item_say_nothing(values):
    empty = rating_table(np.arange(len(values)), np.arange(len(values)), np.array(values))
    assert krippendorff(empty) is None
    assert fleiss(empty) is None
    assert len(cohen(empty).kappa) == 0
    assert not annotator_reliability(empty).unreliable.any()


def test_tables_are_refused_that_do_not_fit_or_are_no_ratings():
    with pytest.raises(ValueError, match="one length"):
        rating_table([0, 1], [0], [1, 2])
    with pytest.raises(ValueError, match="different values"):
        rating_table(np.arange(500), np.zeros(500), np.arange(500))


def test_the_interval_covers_the_alpha_of_the_process():
    # Two of three equal categories are confused at random: many items give alpha, few must cover it.
    def sample(num, seed):
        rng = np.random.default_rng(seed)
        truth = np.repeat(rng.integers(0, 3, num), 3)
        values = np.where(rng.random(3 * num) < 0.3, rng.integers(0, 3, 3 * num), truth)
        return rating_table(np.repeat(np.arange(num), 3), np.tile(np.arange(3), num), values)

    truth = krippendorff(sample(100_000, 0)).value
    intervals = [krippendorff(sample(150, seed)) for seed in range(1, 61)]
    covered = np.mean([found.low <= truth <= found.high for found in intervals])
    assert covered >= 0.86  # 95 % less three standard errors of 60 trials
    assert np.mean([found.high - found.low for found in intervals]) < 0.2


def _votes(num_items, errors, seed=0):
    rng = np.random.default_rng(seed)
    items, people = np.repeat(np.arange(num_items), len(errors)), np.tile(np.arange(len(errors)), num_items)
    truth = rng.integers(0, 2, num_items)[items]
    return items, people, np.where(rng.random(len(items)) < np.array(errors)[people], 1 - truth, truth)


def test_the_annotator_who_clicks_at_random_is_the_unreliable_one():
    found = annotator_reliability(rating_table(*_votes(300, [0.1, 0.1, 0.5, 0.1, 0.15])))
    assert found.unreliable.tolist() == [False, False, True, False, False]
    assert found.num_votes.tolist() == [300] * 5
    assert found.agreement[2] == pytest.approx(0.5, abs=0.1)
    assert found.low[2] < 0.5 < found.agreement[0] < found.high[0]
    (row,) = json.loads(json.dumps(found.as_rows("abcde", limit=1)))
    assert (row["name"], row["num_votes"], row["unreliable"]) == ("c", 300, True)


def test_equally_good_annotators_are_hardly_ever_called_unreliable():
    flagged = [annotator_reliability(rating_table(*_votes(60, [0.2] * 8, seed))).unreliable.any() for seed in range(60)]
    assert np.mean(flagged) <= 0.1


def test_of_two_annotators_nobody_can_say_who_is_wrong():
    assert not annotator_reliability(rating_table(*_votes(300, [0.1, 0.5]))).unreliable.any()


def test_a_vote_is_compared_with_the_majority_of_the_others_only():
    # Others of each: 0 -> {1, 1} agrees not; 1 -> {0, 1} split; 2 -> {0, 1} split.
    found = annotator_reliability(rating_table([0, 0, 0], [0, 1, 2], [0, 1, 1]))
    assert found.num_compared.tolist() == [1, 0, 0]
    assert found.agreement[0] == 0
    assert np.isnan(found.agreement[1])
    assert [row["agreement"] for row in json.loads(json.dumps(found.as_rows("abc")))] == [0.0, None, None]


def test_leave_one_out_majorities_equal_a_plain_count():
    rng = np.random.default_rng(5)
    ratings = rating_table(rng.integers(0, 40, 300), rng.integers(0, 9, 300), rng.integers(0, 5, 300))
    found = annotator_reliability(ratings)
    for who in range(9):
        hits = []
        for row in np.flatnonzero(ratings.annotators == who):
            others = ratings.categories[(ratings.items == ratings.items[row]) & (ratings.annotators != who)]
            counts = np.bincount(others, minlength=5)
            if counts.max() > 0 and (counts == counts.max()).sum() == 1:
                hits.append(counts.argmax() == ratings.categories[row])
        assert found.num_compared[who] == len(hits)
        assert found.agreement[who] == pytest.approx(np.mean(hits))


def test_a_million_votes_take_seconds():
    rng, num = np.random.default_rng(0), 1_000_000

    def reckon():
        ratings = rating_table(rng.integers(0, num // 3, num), rng.integers(0, 500, num), rng.integers(0, 3, num))
        assert krippendorff(ratings).value == pytest.approx(0, abs=0.01)
        assert np.nanmean(cohen(ratings).kappa) == pytest.approx(0, abs=0.05)
        assert annotator_reliability(ratings).num_votes.sum() == len(ratings.items)

    with hang_after():
        assert num_lines(reckon) < num / 100  # all at once, no vote by itself
