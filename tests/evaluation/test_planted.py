"""How often the gate errs, on planted evidence."""

from __future__ import annotations

import pytest
import scipy.stats

from bounds import LONG
from planted import NUM_RESAMPLES, NUM_SEEDS, PLANTED, decisions, line, on_the_page, table
from tiebreak.maths.power import pairs_for_win_rate

BAD = [name for name, planted in PLANTED.items() if planted.power is None]
GOOD = [name for name, planted in PLANTED.items() if planted.power is not None]
SEEDS, RESAMPLES = (NUM_SEEDS, NUM_RESAMPLES) if LONG else (24, 400)


@pytest.mark.parametrize("name", BAD)
def test_what_must_not_pass_passes_in_at_most_one_of_twenty_series(name):
    passed = sum(decision.verdict == "pass" for decision in decisions(name, SEEDS, RESAMPLES))
    # More would be seen in fewer than one of a thousand times, were it one in twenty.
    assert passed <= scipy.stats.binom.ppf(0.999, SEEDS, 0.05)


@pytest.mark.parametrize("name", GOOD)
def test_what_is_better_passes_as_often_as_planned(name):
    planted = PLANTED[name]
    found = decisions(name, SEEDS, RESAMPLES)
    passed = sum(decision.verdict == "pass" for decision in found)
    assert planted.num_prompts == pairs_for_win_rate(planted.policy.preferred - 0.5, planted.power, twice=True)
    # Nothing is taken off for the guards, each of which may be unlucky, too.
    low, high = scipy.stats.binom.ppf([0.0005, 0.9995], SEEDS, planted.power)
    assert low <= passed <= high
    assert not any(decision.verdict == "fail" for decision in found)


def test_the_page_shows_every_planted_policy_and_no_error_rate_above_what_is_promised():
    rows = [row.strip("| ").split(" | ") for row in on_the_page().splitlines()[2:]]
    assert [row[0] for row in rows] == list(PLANTED)
    for name, num, _, passed, *_ in rows:
        assert int(num) == PLANTED[name].num_prompts
        share, planned = float(passed.split()[0]) / 100, PLANTED[name].power
        if planned is None:
            assert share <= 0.05
        else:
            low, high = scipy.stats.binom.ppf([0.025, 0.975], NUM_SEEDS, planned) / NUM_SEEDS
            assert low <= share <= high


def test_a_series_is_drawn_the_same_way_each_time():
    one, two = (line(BAD[0], decisions.__wrapped__(BAD[0], 3, 200)) for _ in range(2))
    assert one == two


@pytest.mark.skipif(not LONG, reason="draws 200 series of each; TIEBREAK_LONG=1")
def test_the_page_shows_what_is_drawn():
    assert on_the_page() == table()
