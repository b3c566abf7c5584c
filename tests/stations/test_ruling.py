"""The station of judges: what is kept, what is never asked twice, what it costs, and when a judge is not heard."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from judge_endpoints import Reply, endpoint, longer, part
from judge_models import saved
from tiebreak.config.judges import PeopleJudge, RewardModelJudge, RuleJudge, ServerJudge
from tiebreak.engine.answers.answerer import Answer, Chat
from tiebreak.errors import CapReached, ConfigError, JudgeError, ModelError, RunError, Waiting
from tiebreak.evaluation.judges.capped import Spent
from tiebreak.evaluation.judges.given import Given
from tiebreak.files import appended_jsonl, read_jsonl
from tiebreak.progress import Silent
from tiebreak.records import Message
from tiebreak.stations.journal import Journal
from tiebreak.stations.rows import Answered, Verdict
from tiebreak.stations.ruling import Limits, foreseen, rule

LENGTH = "def f(completions, **kwargs):\n    return [float(len(c[0]['content'])) for c in completions]\n"


def answered(num: int, *texts: str, **columns) -> list[Answered]:
    """So many prompts, each with these answers and its number behind them."""
    return [
        Answered(
            Chat((Message("user", f"prompt {number}"),), columns=columns),
            tuple(Answer(f"{text} {number}", (1, 2, number), finished=True) for text in texts),
        )
        for number in range(num)
    ]


ROWS = answered(4, "a", "a long one", "a longer one still")


class Told(Silent):
    """Remembers what is said."""

    def __init__(self):
        self.lines: list[str] = []

    def say(self, text):
        self.lines.append(text)

    warn = say


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k-secret-0123456789")


@pytest.fixture
def ruled(tmp_path):
    """Lets a server judge rows in this folder."""

    def judged(url, rows=ROWS, limits=None, progress=None, kept="kept.sqlite", name="verdicts.jsonl", **settings):
        asked = ServerJudge(base_url=url, **({"model": "m", "num_retries": 1, "num_at_once": 1} | settings))
        given = Given(progress or Silent(), tmp_path / kept)
        return rule(rows, asked, tmp_path / name, given, limits)

    return judged


@pytest.fixture
def by_rule(tmp_path):
    """Lets a function judge rows in this folder."""

    def judged(body, rows=ROWS, limits=None):
        (tmp_path / "rewards.py").write_text(body, encoding="utf-8")
        asked = RuleJudge(reward=f"{tmp_path / 'rewards.py'}:f")
        return rule(rows, asked, tmp_path / "verdicts.jsonl", Given(), limits)

    return judged


# --------------------------------------------------------------------------------------------------------- in and out


def test_each_prompt_has_a_verdict_in_the_order_of_the_prompts_and_the_file_reads_back(by_rule, tmp_path):
    found = by_rule(LENGTH)
    assert [one.prompt_id for one in found.verdicts] == [one.prompt_id for one in ROWS]
    assert found.verdicts[0].scores == (3.0, 12.0, 20.0)
    assert [Verdict.from_dict(row) for row in read_jsonl(tmp_path / "verdicts.jsonl")] == found.verdicts
    assert (found.num_asked, found.unjudged, found.flip_rate, found.spent) == (12, {}, None, None)


def test_where_the_file_is_there_nobody_is_asked_and_the_same_is_told(ruled, tmp_path):
    with endpoint(longer) as server:
        first = ruled(server.url, price_in=1.0, price_out=1.0)
        num = len(server.requests)
        again = ruled(server.url, price_in=1.0, price_out=1.0)
    assert len(server.requests) == num == 4 * 3 * 2
    assert again == first
    assert first.spent.num_calls == 24
    assert first.cost == pytest.approx(24 * 110 / 1e6)
    assert first.verdicts[0].rates == (0.0, 0.5, 1.0)
    assert (first.num_asked, first.num_compared, first.flip_rate) == (12, 12, 0.0)


def test_a_second_file_of_the_same_answers_makes_no_call(ruled, tmp_path):
    with endpoint(longer) as server:
        first = ruled(server.url)
        again = ruled(server.url, name="again.jsonl")
    assert len(server.requests) == 24
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "verdicts.jsonl").read_bytes()
    assert (first.spent.num_calls, again.spent.num_calls, again.spent.num_kept) == (24, 0, 24)


def test_a_file_of_other_answers_or_of_something_else_is_refused(by_rule, tmp_path):
    by_rule(LENGTH)
    with pytest.raises(RunError, match=r"verdicts\.jsonl: its verdicts are of other answers"):
        by_rule(LENGTH, ROWS[::-1])
    (tmp_path / "verdicts.jsonl").write_text('{"prompt_id": 3}\n')
    with pytest.raises(RunError, match=r"verdicts\.jsonl: holds no verdicts"):
        by_rule(LENGTH)


def test_another_judge_than_it_has_to_be_is_refused_before_it_is_asked_and_nothing_is_lost(ruled, tmp_path):
    with endpoint(longer) as server:
        wanted = Limits(judge=ruled(server.url, name="first.jsonl").judge)
        num = len(server.requests)
        with pytest.raises(RunError, match="the judge is another one than the loop began with"):
            ruled(server.url, limits=wanted, model="another")
        with pytest.raises(RunError, match="the judge is another one than the loop began with"):
            ruled(server.url.replace("127.0.0.1", "localhost"), limits=wanted)
        assert (len(server.requests), (tmp_path / "verdicts.jsonl").exists()) == (num, False)
        assert ruled(server.url, limits=wanted).judge == wanted.judge
        before = (tmp_path / "verdicts.jsonl").read_bytes()
        with pytest.raises(RunError, match="the judge is another one than the loop began with"):
            ruled(server.url, limits=Limits(judge="of somebody else"))
    assert (tmp_path / "verdicts.jsonl").read_bytes() == before


def test_columns_of_the_prompts_reach_a_function(by_rule, tmp_path):
    body = "def f(completions, solution, **kwargs):\n    return [float(s == '4') * len(c[0]['content'])\n" \
           "            for c, s in zip(completions, solution)]\n"  # fmt: skip
    assert by_rule(body, answered(2, "a", "bb", solution="4")).verdicts[0].scores == (3.0, 4.0)
    (tmp_path / "verdicts.jsonl").unlink()
    with pytest.raises(ConfigError, match="wants the column 'solution', which no row of the prompts has"):
        by_rule(body, answered(3, "a", "bb"))


# ------------------------------------------------------------------------------------------------- cut off, and again


def test_a_function_that_fails_half_way_is_not_asked_again_for_what_it_said(by_rule, tmp_path):
    rows = answered(40, "a", "bb")
    counting = (
        "from pathlib import Path\nSEEN = Path(__file__).with_name('seen')\n"
        "def f(completions, prompts, **kwargs):\n    with SEEN.open('a') as file:\n"
        "        file.writelines(p[0]['content'] + '\\n' for p in prompts)\n"
        "    if 'prompt 20' in SEEN.read_text() and not SEEN.with_name('mended').exists():\n"
        "        raise ValueError('no disk')\n"
        "    return [float(len(c[0]['content'])) for c in completions]\n"
    )
    with pytest.raises(
        JudgeError, match=rf"prompt {rows[20].prompt_id[:12]}: it raised ValueError: no disk|16 prompts|raised"
    ):
        by_rule(counting, rows)
    assert not (tmp_path / "verdicts.jsonl").exists()
    (tmp_path / "mended").touch()
    (tmp_path / "seen").write_text("")
    by_rule(counting, rows)
    seen = (tmp_path / "seen").read_text().split("\n")
    assert "prompt 15" not in seen  # the first sixteen were kept
    assert {f"prompt {number}" for number in range(16, 40)} <= set(seen)


def test_a_kill_at_any_batch_gives_the_same_bytes(tmp_path):
    rows, folder = answered(70, "a", "bb", "ccc"), tmp_path
    (folder / "rows.jsonl").write_text("".join(json.dumps(one.as_dict()) + "\n" for one in rows))
    (folder / "rewards.py").write_text(LENGTH.replace("float(len", "0.1 + float(len"))
    code = (
        "import sys\nfrom pathlib import Path\nfrom tiebreak import faults\nfrom tiebreak.config import RuleJudge\n"
        "from tiebreak.evaluation.judges.given import Given\nfrom tiebreak.files import read_jsonl\n"
        "from tiebreak.stations.rows import Answered\nfrom tiebreak.stations.ruling import rule\n"
        "folder, file = Path(sys.argv[1]), Path(sys.argv[2])\nfaults.arm(sys.argv[3])\n"
        "rows = [Answered.from_dict(row) for row in read_jsonl(folder / 'rows.jsonl')]\n"
        "rule(rows, RuleJudge(reward=f'{folder / \"rewards.py\"}:f'), file, Given())\n"
    )

    asked = RuleJudge(reward=f"{folder / 'rewards.py'}:f")
    rule(rows, asked, folder / "whole.jsonl", Given())
    for visit in (1, 4):
        file = folder / f"killed{visit}.jsonl"
        fault = f"kill@rounds:verdicts:{visit}"
        done = subprocess.run([sys.executable, "-c", code, folder, file, fault], check=False)
        assert done.returncode == -signal.SIGKILL
        assert not file.exists()
        assert len(list(read_journal(file))) == 16 * (visit - 1)
        rule(rows, asked, file, Given())
        assert file.read_bytes() == (folder / "whole.jsonl").read_bytes()


def read_journal(file):
    from tiebreak.files import appended_jsonl

    return (row for row in appended_jsonl(file.with_name(f"{file.stem}.journal.jsonl")) if "verdict" in row)


@pytest.mark.parametrize("cut", [1, 7, 12])
def test_what_was_paid_for_before_a_cut_is_counted_and_not_paid_again(ruled, tmp_path, cut):
    """A judge that is stopped after so many calls: the second go pays the rest, and the sum is that of one go."""
    priced = {"price_in": 1.0, "price_out": 1.0}
    with endpoint(longer) as server:
        with pytest.raises(CapReached, match=f"max_calls {cut} is reached; {cut} of 24 answers are kept"):
            ruled(server.url, max_calls=cut, **priced)
        assert len(server.requests) == cut
        found = ruled(server.url, **priced)
        assert len(server.requests) == 24
        whole = ruled(server.url, kept="other.sqlite", name="whole.jsonl", **priced)
    assert (found.spent.num_calls, found.cost) == (24, pytest.approx(whole.cost))
    assert (tmp_path / "verdicts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_what_was_spent_is_known_even_where_the_judge_was_never_closed(ruled, tmp_path):
    """Every answer is paid for in the journal as it comes: a kill loses nothing of the sum."""
    seen = []

    def counting(question, number):
        file = tmp_path / "verdicts.journal.jsonl"
        seen.append(sum(b"spent" in line for line in file.read_bytes().split(b"\n")))
        return longer(question)

    with endpoint(counting) as server:
        ruled(server.url)
    assert seen == list(range(24))


def test_a_judge_s_own_caps_are_of_all_goes_at_a_file_and_not_of_each(ruled, tmp_path):
    """Three goes with a cap of 8 calls send 8 requests, and not 24; so with a cost."""
    priced = {"price_in": 1000.0, "price_out": 1000.0, "max_tokens": 20}  # 110 tokens a call: 0.11
    with endpoint(longer) as server:
        for _ in range(3):
            with pytest.raises(CapReached, match=r"max_calls 8 is reached"):
                ruled(server.url, max_calls=8)
        assert len(server.requests) == 8
        for _ in range(3):
            with pytest.raises(CapReached, match=r"max_cost 1.1 is reached"):
                ruled(server.url, name="cost.jsonl", kept="cost.sqlite", max_cost=1.1, **priced)
        assert (len(server.requests) - 8) * 0.11 <= 1.1
        found = ruled(server.url, name="cost.jsonl", kept="cost.sqlite", max_cost=110.0, **priced)
    assert found.cost == pytest.approx(24 * 0.11)


def test_what_was_paid_while_no_price_was_known_is_counted_at_the_price_that_is(ruled):
    with endpoint(longer) as server:
        with pytest.raises(CapReached):
            ruled(server.url, max_calls=8, max_tokens=20)
        with pytest.raises(CapReached, match=r"max_cost 0.9 is reached: 0.88 is spent"):
            ruled(server.url, max_cost=0.9, price_in=1000.0, price_out=1000.0, max_tokens=20)
        assert len(server.requests) == 8


@pytest.mark.parametrize("visit", [1, 5])
def test_a_kill_between_paying_and_keeping_counts_every_request_that_was_answered(ruled, tmp_path, visit):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one.as_dict()) + "\n" for one in ROWS))
    code = (
        "import sys\nfrom pathlib import Path\nfrom tiebreak import faults\nfrom tiebreak.config import ServerJudge\n"
        "from tiebreak.evaluation.judges.given import Given\nfrom tiebreak.files import read_jsonl\n"
        "from tiebreak.stations.rows import Answered\nfrom tiebreak.stations.ruling import rule\n"
        "folder, url = Path(sys.argv[1]), sys.argv[2]\nfaults.arm(sys.argv[3])\n"
        "rows = [Answered.from_dict(row) for row in read_jsonl(folder / 'rows.jsonl')]\n"
        "asked = ServerJudge(base_url=url, model='m', num_retries=1, num_at_once=1, price_in=1.0, price_out=1.0)\n"
        "rule(rows, asked, folder / 'verdicts.jsonl', Given(kept=folder / 'kept.sqlite'))\n"
    )
    with endpoint(longer) as server:
        fault = f"kill@judge:keep:{visit}"
        done = subprocess.run([sys.executable, "-c", code, tmp_path, server.url, fault], check=False)
        assert done.returncode == -signal.SIGKILL
        assert len(server.requests) == visit
        found = ruled(server.url, price_in=1.0, price_out=1.0)
        assert len(server.requests) == 24 + 1  # the one that was not kept is asked, and paid for, again
    assert (found.spent.num_calls, found.cost) == (25, pytest.approx(25 * 110 / 1e6))


def test_a_request_without_an_answer_is_told_before_the_next_one(ruled, tmp_path):
    told = []

    def failing(question, number):
        rows = list(appended_jsonl(tmp_path / "verdicts.journal.jsonl"))
        told.append([row["spent"]["num_calls"] for row in rows if "spent" in row][-1:])
        return Reply(body="<html>") if number == 0 else longer(question)

    with endpoint(failing) as server:
        ruled(server.url, limits=Limits(max_unjudged=1.0), num_retries=0)
    assert told == [[], *([number] for number in range(1, 24))]


def test_what_is_told_late_of_what_was_spent_takes_nothing_back(tmp_path):
    journal = Journal(tmp_path / "verdicts.jsonl")
    journal.open("judge", "key")
    early, late = (Spent(num, 0, 100 * num, 10 * num, 0.1 * num, False) for num in (3, 4))
    for one in (late, early):
        journal.pay(one)
    assert journal.spent == Journal(tmp_path / "verdicts.jsonl").spent == late


def test_ratings_of_a_model_that_was_cut_off_within_a_batch_are_the_same_to_the_last_bit(tmp_path, tokenizer):
    asked = RewardModelJudge(model=str(saved(tmp_path / "reward", tokenizer, max_position_embeddings=128)))
    rows = answered(36, "the cat", "the dog ran", "no")
    whole, file = tmp_path / "whole.jsonl", tmp_path / "again.jsonl"
    first = rule(rows, asked, whole, Given())
    lines = (tmp_path / "whole.journal.jsonl").read_bytes().split(b"\n")
    (tmp_path / "again.journal.jsonl").write_bytes(b"\n".join(lines[:21]) + b"\n" + lines[21][:40])
    assert rule(rows, asked, file, Given()).verdicts == first.verdicts
    assert file.read_bytes() == whole.read_bytes()
    assert len({score for one in first.verdicts for score in one.scores}) > 100


def test_people_are_waited_for_and_heard(tmp_path):
    rows, file = answered(2, "a", "bb"), tmp_path / "verdicts.jsonl"
    with pytest.raises(Waiting, match="2 votes are missing on 2 of 2 couples"):
        rule(rows, PeopleJudge(), file, Given())
    queued = read_jsonl(tmp_path / "queue.jsonl")
    votes = [{"item": row["item"], "annotator": "ann", "choice": "b"} for row in queued]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(vote) + "\n" for vote in votes))
    assert [one.rates for one in rule(rows, PeopleJudge(), file, Given()).verdicts] == [(0.0, 1.0)] * 2


# ---------------------------------------------------------------------------------------------------- servers' faults


def test_429_and_500_that_pass_are_waited_out(ruled):
    faults = {0: Reply(status=429, body="{}", headers={"retry-after": "0.01"}), 3: Reply(status=500, body="{}")}

    with endpoint(lambda question, number: faults.get(number) or longer(question)) as server:
        found = ruled(server.url, num_retries=2)
    assert (found.unjudged, found.spent.num_calls) == ({}, 26)


def test_silence_is_no_verdict_and_counted_by_its_reason(ruled):
    def silent(question, number):
        return (
            Reply(seconds=1.0) if "prompt 2" in part(question, "conversation") and number % 3 == 0 else longer(question)
        )

    with endpoint(silent) as server:
        found = ruled(server.url, limits=Limits(max_unjudged=1.0), timeout_seconds=0.2, num_retries=0)
    assert list(found.unjudged) == ["no answer"]
    assert 0 < found.num_unjudged <= 3
    assert "nothing within 0.2 s" in found.verdicts[2].reasons[0]


def _is_of_the_longest(question: str) -> bool:
    """Four requests in a row, of two couples: a judge that fails five times in a row is left."""
    return any(part(question, f"answer {letter}") == "a longer one still 1" for letter in "AB")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(body="<html>busy</html>"), "no answer: in no form of a chat completion"),
        (Reply("C"), "no clear verdict: C"),
    ],
)
def test_html_and_a_letter_that_is_neither_are_no_verdict(ruled, reply, reason):
    def often(question, number):
        return reply if _is_of_the_longest(question) else longer(question)

    with endpoint(often) as server, pytest.raises(JudgeError) as told:
        ruled(server.url, num_retries=0)
    assert str(told.value) == (
        f"judge server:m: 2 of 12 have no verdict (2 {reason.partition(':')[0]}), and at most 10% may be without; mend "
        "that and run the same command again, or allow more with rounds.stop.unjudged"
    )
    with endpoint(often) as server:
        found = ruled(server.url, limits=Limits(max_unjudged=0.25), num_retries=0, kept="other.sqlite")
    assert found.verdicts[1].scores == (0.0, 1.0, None)
    assert [one.startswith(reason) for one in found.verdicts[1].reasons] == [True, True]


def test_a_server_that_was_down_for_some_is_asked_only_for_these_when_it_is_back(ruled, tmp_path):
    state = {"down": True}

    def back(question, number):
        return Reply(body="<html>") if state["down"] and _is_of_the_longest(question) else longer(question)

    with endpoint(back) as server:
        with pytest.raises(JudgeError, match="2 of 12 have no verdict"):
            ruled(server.url, num_retries=0, kept="back.sqlite", name="back.jsonl")
        state["down"] = False
        before = len(server.requests)
        found = ruled(server.url, num_retries=0, kept="back.sqlite", name="back.jsonl")
        assert len(server.requests) - before == 4
        whole = ruled(server.url, kept="whole.sqlite", name="whole.jsonl")
    assert found.verdicts == whole.verdicts
    assert found.spent.num_calls == 24 + 4


def test_a_server_that_always_says_a_goes_by_the_place_and_the_station_fails_by_name(ruled, tmp_path):
    with endpoint(lambda question, number: "Verdict: A") as server, pytest.raises(JudgeError) as told:
        ruled(server.url)
    assert str(told.value) == (
        "judge server:m: in all 12 comparisons it changed its word with the order of the answers: it goes by their "
        "place, not by what they say; take another judge"
    )
    assert not (tmp_path / "verdicts.jsonl").exists()


def test_a_cap_on_what_is_left_of_a_budget_stops_before_the_call_that_would_exceed_it(ruled):
    priced = {"price_in": 1000.0, "price_out": 1000.0, "max_tokens": 20}  # 110 tokens a call: 0.11
    with endpoint(longer) as server:
        for budget in (0.7, 1.5):
            with pytest.raises(CapReached, match=r"max_cost .* is reached"):
                ruled(server.url, limits=Limits(max_cost=budget), **priced)
            assert len(server.requests) * 0.11 <= budget
            assert len(server.requests) >= 1
        found = ruled(server.url, limits=Limits(max_cost=100.0), **priced)
        assert len(server.requests) == 24
    assert found.cost == pytest.approx(24 * 0.11)
    with endpoint(longer) as server:
        with pytest.raises(CapReached, match="max_cost 0 is reached"):
            ruled(server.url, limits=Limits(max_cost=0.0), name="none.jsonl", **priced)
        assert server.requests == []


def test_a_budget_without_prices_is_refused_and_means_nothing_to_a_rule(ruled, tmp_path):
    with pytest.raises(ConfigError, match=r"a cap on the cost needs judge\.price_in and judge\.price_out"):
        ruled("http://127.0.0.1:9/v1", limits=Limits(max_cost=1.0))
    asked = RuleJudge(reward="length_band", arguments={"least": 100, "unit": "characters"})
    assert rule(ROWS, asked, tmp_path / "v.jsonl", Given(), Limits(max_cost=0.0)).cost == 0.0


# ------------------------------------------------------------------------------------------------ not to be heard


def test_a_judge_that_tells_no_answers_apart_is_named_with_three_examples(by_rule, tmp_path):
    same = "def f(completions):\n    return [0.5] * len(completions)\n"
    with pytest.raises(JudgeError, match=r"py:f: the judge does not tell the answers apart: 12 of 12 prompts") as told:
        by_rule(same, answered(12, "a", "bb"))
    said = str(told.value)
    assert said.count("prompt ") == 3
    assert "all 0.5, 'a 0' and 'bb 0'" in said
    assert "\n" not in said
    assert not (tmp_path / "verdicts.jsonl").exists()


@pytest.mark.parametrize(("num_apart", "is_heard"), [(3, True), (2, True), (1, False), (0, False)])
def test_four_of_five_prompts_may_be_level(by_rule, num_apart, is_heard):
    body = (
        "def f(completions, prompts):\n    some = [int(p[0]['content'].split()[1]) for p in prompts]\n"
        f"    return [float(n < {num_apart} and 'bb' in c[0]['content']) for n, c in zip(some, completions)]\n"
    )
    if is_heard:
        assert len(by_rule(body, answered(10, "a", "bb")).level) == 10 - num_apart
        return
    with pytest.raises(JudgeError, match="does not tell the answers apart"):
        by_rule(body, answered(10, "a", "bb"))


def test_few_prompts_that_are_level_say_something_only_where_all_are(by_rule):
    body = "def f(completions, prompts):\n    return [float(' 0' in c[0]['content'] and 'bb' in c[0]['content'])\n" \
           "            for c in completions]\n"  # fmt: skip
    assert len(by_rule(body, answered(8, "a", "bb")).level) == 7


def test_prompts_whose_answers_are_one_text_say_nothing_of_a_judge(by_rule):
    rows = [Answered(one.chat, one.answers[:1] * 3) for one in answered(12, "a")]
    found = by_rule(LENGTH, rows)
    assert (found.num_apart, len(found.level), found.num_asked) == (0, 0, 12)
    assert found.verdicts[0].scores == (3.0, 3.0, 3.0)


@pytest.mark.parametrize("says", ["Verdict: A", "Verdict: tie", "C"])
def test_a_judge_whose_word_is_only_compared_with_another_is_never_refused(ruled, tmp_path, says):
    """One that goes by the place, one that tells nothing apart, one without a verdict: all drift, and are written."""
    with endpoint(lambda question, number: says) as server:
        with pytest.raises(JudgeError):
            ruled(server.url, name="heard.jsonl")
        found = ruled(server.url, limits=Limits(refuses=False))
    assert len(found.verdicts) == len(ROWS)
    assert (tmp_path / "verdicts.jsonl").exists()


def test_a_level_judge_may_be_allowed(by_rule):
    same = "def f(completions):\n    return [0.5] * len(completions)\n"
    assert len(by_rule(same, answered(12, "a", "bb"), Limits(max_level=1.0)).level) == 12


def test_a_function_that_has_nothing_to_say_of_too_many_is_not_heard(by_rule):
    body = "def f(completions):\n    return [None if ' 1' in c[0]['content'] else float(len(c[0]['content']))\n" \
           "            for c in completions]\n"  # fmt: skip
    with pytest.raises(JudgeError, match=r"3 of 12 have no verdict \(3 not rated\), and at most 10% may be without"):
        by_rule(body)
    found = by_rule(body, limits=Limits(max_unjudged=0.3))
    assert found.verdicts[1].scores == (None, None, None)
    assert found.as_dict()["unjudged"] == {"not rated": 3}


@pytest.mark.parametrize("fault", ["labels", "code", "template"])
def test_a_reward_model_that_is_none_is_refused_by_name(tmp_path, tokenizer, fault):
    folder = saved(tmp_path / "reward", tokenizer, num_labels=2 if fault == "labels" else 1)
    if fault == "template":
        (folder / "chat_template.jinja").unlink()
    if fault == "code":
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {"AutoModelForSequenceClassification": "modeling.Mine"}
        (folder / "config.json").write_text(json.dumps(config))
    words = {"labels": "has 2 labels", "code": "code of a model is never run", "template": "has no chat template"}[
        fault
    ]
    with pytest.raises(ModelError, match=words) as told:
        rule(ROWS, RewardModelJudge(model=str(folder)), tmp_path / "verdicts.jsonl", Given())
    assert str(folder) in str(told.value)
    assert "\n" not in str(told.value)


# --------------------------------------------------------------------------------------------------------- beforehand


def test_a_dry_run_foresees_at_least_what_is_asked_and_asks_nothing(ruled, tmp_path):
    chats = [one.chat for one in ROWS]
    with endpoint(longer) as server:
        asked = ServerJudge(base_url=server.url, model="m", price_in=1.0, price_out=2.0)
        told = foreseen(asked, chats, 3, 16, Given(kept=tmp_path / "kept.sqlite"))
        assert server.requests == []
        ruled(server.url)
        assert (told.num_comparisons, told.num_ratings, told.estimate.num_calls) == (12, 0, len(server.requests))
    sent = sum(len(message["content"]) for request in server.requests for message in request["messages"])
    assert told.estimate.tokens_in > sent / 3
    assert told.estimate.most_tokens_out == 24 * 512
    assert told.estimate.most_cost == pytest.approx((told.estimate.tokens_in + 2 * told.estimate.most_tokens_out) / 1e6)


def test_one_answer_to_a_prompt_is_rated_and_compared_with_nothing():
    chats = [one.chat for one in ROWS]
    told = foreseen(RuleJudge(reward="repetition"), chats, 1, 16, Given())
    assert (told.num_ratings, told.num_comparisons, told.estimate.num_calls) == (4, 0, 0)
    for asked in (PeopleJudge(couples="chain"), ServerJudge(base_url="http://127.0.0.1:9/v1", model="m")):
        told = foreseen(asked, chats, 1, 16, Given())
        assert (told.num_ratings, told.num_comparisons, told.estimate.num_calls) == (0, 0, 0)


def test_a_rule_rates_and_people_compare_a_chain_or_all():
    chats = [one.chat for one in ROWS]
    told = foreseen(RuleJudge(reward="repetition"), chats, 5, 16, Given())
    assert (told.num_ratings, told.num_comparisons, told.estimate.num_calls) == (20, 0, 0)
    for couples, num in (("all", 10), ("chain", 4)):
        assert foreseen(PeopleJudge(couples=couples), chats, 5, 16, Given()).num_comparisons == 4 * num
