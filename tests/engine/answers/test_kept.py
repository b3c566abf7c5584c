"""Answers survive a crash, belong to who answers and to sampling, and a torn file costs only what it lost."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path

import pytest
import torch

from tiebreak.engine.answers.answerer import Answer, Chat, Sampling, nothing
from tiebreak.engine.answers.kept import Kept
from tiebreak.files import append_jsonl, appended_jsonl
from tiebreak.fingerprint import fingerprint
from tiebreak.records import Message
from tiny import load, settings

SAMPLING = Sampling(max_new_tokens=4)


def _chat(text):
    return Chat((Message("user", text),))


class Echo:
    """Answers each chat with its last message, backwards, two at a time, and remembers what it was asked."""

    def __init__(self, name="model"):
        self.name = self.identity = name
        self.asked = []

    def answer(self, chats, sampling, done=nothing):
        self.asked += chats
        answers = [Answer(chat.messages[-1].content[::-1], (5, len(self.name)), True) for chat in chats]
        made = list(enumerate(answers))
        for start in range(0, len(made), 2):
            done(made[start : start + 2])
        return answers


class Counted:
    """Another answerer, and what it was asked."""

    def __init__(self, answerer):
        self.answerer = answerer
        self.identity = answerer.identity
        self.asked = []

    def answer(self, chats, sampling, done=nothing):
        self.asked += chats
        return self.answerer.answer(chats, sampling, done)


def _asked_again(path, chat, sampling=SAMPLING, name="model"):
    """Whether an answerer of this name is asked, and does not find the answer in the file."""
    answerer = Echo(name)
    assert Kept(answerer, path).answer([chat], sampling) == Echo(name).answer([chat], sampling)
    return answerer.asked == [chat]


def test_an_answer_is_known_to_the_same_model_and_sampling_only(tmp_path):
    path, chat = tmp_path / "answers.jsonl", _chat("one")
    tools = ({"type": "function", "function": {"name": "look"}},)
    assert _asked_again(path, chat)
    assert not _asked_again(path, chat)
    assert _asked_again(path, _chat("two"))
    assert _asked_again(path, Chat((Message("system", "be brief"), *chat.messages)))
    assert _asked_again(path, dataclasses.replace(chat, tools=tools))
    assert _asked_again(path, chat, name="other")
    assert _asked_again(path, chat, dataclasses.replace(SAMPLING, max_new_tokens=5))
    assert _asked_again(path, chat, dataclasses.replace(SAMPLING, temperature=1.0))
    assert not _asked_again(path, chat)


@pytest.mark.parametrize("torn", [b"{", b'{"key": 1}\n', b"\xff\n", b"[]\n"])
def test_a_torn_line_costs_itself_alone(tmp_path, torn):
    path, chat = tmp_path / "answers.jsonl", _chat("one")
    Kept(Echo(), path).answer([chat], SAMPLING)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert not _asked_again(path, chat)
    assert _asked_again(path, _chat("two"))
    assert not _asked_again(path, _chat("two"))
    path.write_bytes(torn.rstrip() + b"\n" + whole)
    assert not _asked_again(path, chat)
    path.write_bytes(torn.rstrip() + whole)  # glued to it
    assert _asked_again(path, chat)


def test_only_what_is_missing_is_generated_and_the_result_is_the_same(tiny_model, tmp_path):
    policy, path = load(settings(tiny_model)).policy, tmp_path / "answers.jsonl"
    chats = [_chat(text) for text in ("the cat", "yes", "the dog ran to the park")]
    plain = policy.answer(chats, SAMPLING)
    assert len(set(plain)) == 3
    assert Kept(policy, path).answer(chats[1:2], SAMPLING) == plain[1:2]
    for missing in (chats[0::2], []):
        counted, told = Counted(policy), []
        assert Kept(counted, path).answer(chats, SAMPLING, told.extend) == plain
        assert counted.asked == missing
        assert sorted(told, key=lambda one: one[0]) == list(enumerate(plain))


def test_a_run_that_was_cut_off_between_batches_has_the_batches_before(tmp_path):
    path, chats = tmp_path / "answers.jsonl", [_chat(text) for text in "abcde"]

    def stop(made):
        if made[0][0] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Kept(Echo(), path).answer(chats, SAMPLING, stop)
    answerer = Echo()
    assert Kept(answerer, path).answer(chats, SAMPLING) == Echo().answer(chats, SAMPLING)
    assert answerer.asked == chats[4:]


def test_a_full_disk_costs_only_that_answers_are_made_again_and_a_missing_folder_is_told(tmp_path, monkeypatch):
    chats = [_chat(text) for text in "abc"]
    with pytest.raises(FileNotFoundError):
        Kept(Echo(), tmp_path / "none" / "answers.jsonl").answer(chats, SAMPLING)

    def full(*_):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(Path, "open", full)
    assert Kept(Echo(), tmp_path / "answers.jsonl").answer(chats, SAMPLING) == Echo().answer(chats, SAMPLING)


def test_who_answers_is_who_is_remembered(tmp_path):
    assert Kept(Echo("somebody"), tmp_path / "answers.jsonl").identity == "somebody"


def test_another_chat_template_is_another_answerer(tiny_model):
    one, two = (load(settings(tiny_model)).policy for _ in range(2))
    assert one.identity == two.identity
    two.tokenizer.chat_template = two.tokenizer.chat_template.replace("user", "you") + " "
    assert one.identity != two.identity
    assert one.digest() == two.digest()


def test_the_same_weights_in_another_dtype_are_another_answerer(tiny_model):
    policy = load(settings(tiny_model)).policy
    narrow = dataclasses.replace(policy, dtype=torch.bfloat16)
    assert (policy.digest(), policy.identity == narrow.identity) == (narrow.digest(), False)


DRAWN = Sampling(max_new_tokens=6, temperature=1.2, num=3, seed=5)


@pytest.mark.parametrize("num_known", [0, 1, 2, 3])
def test_several_answers_to_each_chat_are_equal_after_a_restart_and_none_is_asked_for_twice(
    tiny_model, tmp_path, num_known
):
    policy, path = load(settings(tiny_model)).policy, tmp_path / "answers.jsonl"
    chats = [_chat(text) for text in ("the cat", "yes", "the dog ran to the park")]
    plain = policy.answer(chats, DRAWN)
    assert len(set(plain)) == 9
    Kept(policy, path).answer(chats[:num_known], DRAWN)
    counted, told = Counted(policy), []
    assert Kept(counted, path).answer(chats[::-1], DRAWN, told.extend) == [*plain[6:], *plain[3:6], *plain[:3]]
    assert counted.asked == chats[:num_known:-1] + chats[num_known : num_known + 1]
    assert sorted(place for place, _ in told) == list(range(9))
    again = Counted(policy)
    assert Kept(again, path).answer(chats, DRAWN) == plain
    assert again.asked == []


def test_a_chat_that_lacks_an_answer_is_asked_for_all_of_them(tiny_model, tmp_path):
    policy, path = load(settings(tiny_model)).policy, tmp_path / "answers.jsonl"
    chats = [_chat("the cat"), _chat("yes")]
    plain = Kept(policy, path).answer(chats, DRAWN)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    counted = Counted(policy)
    assert Kept(counted, path).answer(chats, DRAWN) == plain
    assert len(counted.asked) == 1


def test_another_number_or_seed_of_answers_is_asked_anew(tmp_path):
    path, chat = tmp_path / "answers.jsonl", _chat("one")
    assert _asked_again(path, chat)
    assert _asked_again(path, chat, dataclasses.replace(SAMPLING, seed=1))


def test_a_file_from_before_there_were_several_answers_is_known(tmp_path):
    path, chat = tmp_path / "answers.jsonl", _chat("one")
    Kept(Echo(), path).answer([chat], SAMPLING)
    [row] = appended_jsonl(path)
    path.unlink()
    append_jsonl(path, [{key: value for key, value in row.items() if key != "number"}])
    assert not _asked_again(path, chat)


def test_answers_that_were_kept_before_there_was_a_nucleus_are_found_and_one_keeps_its_own(tmp_path):
    before = {"max_new_tokens": 4, "temperature": 0.5, "num": 1, "seed": 7}
    sampling = Sampling(**before)
    assert sampling.as_dict() == before
    key = fingerprint(["model", before, _chat("abc").as_dict()])
    append_jsonl(tmp_path / "kept", [{"key": key, "number": 0, "text": "said", "ids": [1], "finished": True}])
    answerer = Echo()
    assert Kept(answerer, tmp_path / "kept").answer([_chat("abc")], sampling)[0].text == "said"
    assert not answerer.asked
    assert _asked_again(tmp_path / "kept", _chat("abc"), dataclasses.replace(sampling, top_p=0.9))


@pytest.mark.parametrize("top_p", [0.0, -0.1, 1.01, float("nan")])
def test_a_nucleus_is_a_share(top_p):
    with pytest.raises(ValueError, match="top_p"):
        Sampling(4, 1.0, top_p=top_p)
