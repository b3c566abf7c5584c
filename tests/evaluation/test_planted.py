"""How often the gate errs, on planted evidence."""

from __future__ import annotations

import pytest
import scipy.stats

from bounds import LONG
from planted import NUM_RESAMPLES, NUM_SEEDS, PLANTED, decisions, line, on_the_page, table

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
    # Planned by the normal distribution; the exact bound of so many wins and losses is a few points stricter.
    num, share = planted.num_prompts, planted.policy.preferred
    least = next(wins for wins in range(num) if scipy.stats.binomtest(wins, num, 0.5).proportion_ci().low > 0.5)
    exact = scipy.stats.binom.sf(least - 1, num, share)
    assert planted.power - 0.05 < exact <= planted.power
    assert (
        scipy.stats.binom.ppf(0.001, SEEDS, exact - 0.02) <= passed <= scipy.stats.binom.ppf(0.999, SEEDS, exact + 0.02)
    )
    assert not any(decision.verdict == "fail" for decision in found)


def test_the_page_shows_every_planted_policy_and_no_error_rate_above_what_is_promised():
    rows = [row.strip("| ").split(" | ") for row in on_the_page().splitlines()[2:]]
    assert [row[0] for row in rows] == list(PLANTED)
    for name, num, _, passed, *_ in rows:
        assert int(num) == PLANTED[name].num_prompts
        if name in BAD:
            assert float(passed.split()[0]) <= 5


def test_a_series_is_drawn_the_same_way_each_time():
    one, two = (line(BAD[0], decisions.__wrapped__(BAD[0], 3, 200)) for _ in range(2))
    assert one == two


@pytest.mark.skipif(not LONG, reason="draws 200 series of each; TIEBREAK_LONG=1")
def test_the_page_shows_what_is_drawn():
    assert on_the_page() == table()
