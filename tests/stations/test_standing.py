"""A win rate of a round is known where its judge answered for nearly all prompts."""

from __future__ import annotations

import pytest

from tiebreak.engine.answers.answerer import Answer, Chat
from tiebreak.evaluation.judges.judge import Preference
from tiebreak.progress import Noting, Silent
from tiebreak.records import Message
from tiebreak.stations.rows import Answered
from tiebreak.stations.standing import against


class _LeavesLongOut:
    def prefer(self, questions, done=lambda made: None):
        found = [Preference(None, says="too_long") if "long" in one.first else Preference(1.0) for one in questions]
        done(list(enumerate(found)))
        return found


def _answered(texts):
    return [
        Answered(Chat((Message("user", f"question {place}"),)), (Answer(text, (1, 2), finished=True),))
        for place, text in enumerate(texts)
    ]


@pytest.mark.parametrize(("num_long", "known"), [(0, True), (20, True), (21, False), (100, False)])
def test_no_rate_is_known_where_a_judge_leaves_more_than_a_fifth_out(num_long, known):
    now = _answered([f"a long answer {place}" for place in range(num_long)] + ["short"] * (100 - num_long))
    told = Noting(Silent())
    found = against(_LeavesLongOut(), now, _answered(["before"] * 100), 0, told)
    assert (found.rate is not None, found.ties is not None) == (known, known)
    assert sum(win is None for win in found.wins) == num_long
    warned = [f"{num_long} of 100 held-out answers that differ have no verdict" in text for text in told.warnings]
    assert warned == ([] if known else [True])
    assert found.as_dict()["not_judged"] == ({"too_long": num_long} if num_long else {})


@pytest.mark.parametrize(("num_long", "known"), [(0, True), (2, True), (3, False), (10, False)])
def test_equal_answers_which_nobody_judged_do_not_make_a_rate_known(num_long, known):
    texts = ["before"] * 90 + [f"a long answer {place}" for place in range(num_long)] + ["short"] * (10 - num_long)
    told = Noting(Silent())
    found = against(_LeavesLongOut(), _answered(texts), _answered(["before"] * 100), 0, told)
    assert (found.rate is not None) == known
    assert any(f"{num_long} of 10 held-out answers that differ" in text for text in told.warnings) != known
