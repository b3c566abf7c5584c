"""Chats are answered as the model answers everywhere else, token by token, and the process holds to its lines."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tiebreak.engine.answers.answerer import Chat, Sampling
from tiebreak.errors import RenderError, RunError
from tiebreak.records import Message
from tiebreak.runs import Run
from tiebreak.service.completions import ChatRequest
from tiebreak.service.stops import UpToStop
from tiebreak.service.talk import Cancelled, Talk, answer, held, prompt_of
from tiebreak.training.parts import Weights
from tiebreak.training.trained import load_trained
from tiebreak.verbs.chat import Conversation
from tiebreak.verbs.train import train
from tiny import drawn_pairs, settings

USER = {"role": "user", "content": "the cat sat"}
CHAT = Chat((Message("user", "the cat sat"),))


def _base(folder, **more):
    return {"kind": "base", "settings": {"name": str(folder), "device": "cpu", **more}}


@pytest.fixture(scope="module")
def by(tiny_model):
    return held(_base(tiny_model))


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return train(
        settings(
            tiny_model, data__train=drawn_pairs(folder), data__heldout_share=0.3, training__token_budget=None,
            training__checkpoint_steps=2, training__keep_checkpoints=5, evaluation__num_samples=1,
            training__learning_rate=2e-2, output__dir=str(folder / "run"), output__trackers=[],
        )
    )  # fmt: skip


def _asked(**more):
    return ChatRequest.model_validate({"model": "m", "messages": [USER], "max_tokens": 12, "seed": 7} | more).asked


def _said(by, **more):
    """The lines of a request: its choices, and what was streamed of each."""
    lines = []
    answer(by, _asked(**more), lambda **line: lines.append(line))
    json.dumps(lines, allow_nan=False)
    assert "begun" in lines[0]
    assert lines[-1] == {"done": True}
    choices = {line["index"]: line for line in lines if "text" in line}
    pieces = {index: "".join(line["piece"] for line in lines if line.get("index") == index and "piece" in line)
              for index in choices}  # fmt: skip
    return [choices[index] for index in sorted(choices)], [pieces[index] for index in sorted(choices)]


def test_an_answer_is_the_one_that_the_model_gives_elsewhere(by):
    for temperature, top_p in ((0, 1), (1.3, 1), (1.3, 0.6)):
        wanted = by.model.answer([CHAT], Sampling(12, temperature, 3, 7, top_p))
        choices, pieces = _said(by, temperature=temperature, top_p=top_p, n=3)
        assert [choice["text"] for choice in choices] == [one.text for one in wanted]
        assert [choice["num_tokens"] for choice in choices] == [len(one.ids) for one in wanted]
        assert [choice["finish_reason"] for choice in choices] == [
            "stop" if one.finished else "length" for one in wanted
        ]
        assert pieces == ["", "", ""]
        assert len({choice["text"] for choice in choices}) == (3 if temperature else 1)


def test_a_first_answer_does_not_hang_on_how_many_are_asked_for_or_on_streaming(by):
    [alone], _ = _said(by)
    several, pieces = _said(by, n=4, stream=True)
    assert several[0] == alone | {"index": 0}
    assert pieces == [choice["text"] for choice in several]
    greedy, pieces = _said(by, n=2, stream=True, temperature=0)
    assert pieces == [choice["text"] for choice in greedy]
    assert greedy[0]["text"] == greedy[1]["text"]


def test_a_run_answers_as_it_does_in_chat_and_a_checkpoint_as_it_was(run, by, tmp_path):
    trained = held({"kind": "run", "folder": str(run.path), "checkpoint": None})
    loaded = load_trained(run)
    [choice], _ = _said(trained, temperature=0)
    assert choice["text"] == Conversation(loaded, max_new_tokens=12).ask("the cat sat")
    assert choice["text"] != _said(by, temperature=0)[0][0]["text"]
    steps = sorted(int(path.name.removeprefix("step-")) for path in run.checkpoints_folder.glob("step-*"))
    said = {}
    for step in steps:
        then = held({"kind": "run", "folder": str(run.path), "checkpoint": step})
        Weights(loaded.policy).restore(load_file(run.checkpoints_folder / f"step-{step:08}" / "policy.safetensors"))
        assert then.model.digest() == loaded.policy.digest()
        said[step] = _said(then, logprobs=True)[0][0]
    assert len(steps) > 1
    assert said[steps[0]] != said[steps[-1]]
    assert said[steps[-1]] == _said(trained, logprobs=True)[0][0]
    # The same of a run that has not come to its end.
    under_way = Run(shutil.copytree(run.path, tmp_path / "under way"))
    shutil.rmtree(under_way.policy_folder)
    under_way.update_manifest(status="running")
    then = held({"kind": "run", "folder": str(under_way.path), "checkpoint": steps[0]})
    assert _said(then, logprobs=True)[0][0] == said[steps[0]]
    with pytest.raises(RunError, match="holds no trained policy"):
        held({"kind": "run", "folder": str(under_way.path), "checkpoint": None})
    with pytest.raises(RunError, match="step 999 is not there any more"):
        held({"kind": "run", "folder": str(run.path), "checkpoint": 999})


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_sequence_ends_an_answer_and_is_not_in_it(by, stream):
    [free], _ = _said(by, max_tokens=40)
    text = free["text"]
    for start in range(1, len(text) - 3, 3):
        stop = text[start : start + 3]
        [choice], [pieces] = _said(by, max_tokens=40, stop=[stop, "never said"], stream=stream, logprobs=True)
        assert choice["text"] == text[: text.index(stop)]
        assert choice["finish_reason"] == "stop"
        assert choice["num_tokens"] <= free["num_tokens"]
        assert pieces == (choice["text"] if stream else "")
        spelled = b"".join(bytes(token["bytes"]) for token in choice["logprobs"]).decode(errors="replace")
        assert spelled.startswith(choice["text"])
    early, _ = _said(by, max_tokens=40, stop=text[3:6])
    assert early[0]["num_tokens"] < free["num_tokens"]


def test_a_stop_sequence_of_one_answer_ends_no_other_one(by):
    free, _ = _said(by, n=4, max_tokens=30)
    stop = next(word for word in free[1]["text"].split() if len(word) > 2)
    found, pieces = _said(by, n=4, max_tokens=30, stop=stop, stream=True)
    assert [choice["text"] for choice in found] == [choice["text"].partition(stop)[0] for choice in free]
    assert pieces == [choice["text"] for choice in found]


def test_nothing_of_a_stop_sequence_is_handed_out_before_it_is_known_to_be_none():
    for stops in (["END"], ["ab", "abc"], ["aab"], ["bc", "abcd"], []):
        for text in ("one EN END two", "xabcy", "aaab", "abcd", "EENDD", "ENENDEND", "ab"):
            for size in (1, 2, 3, 50):
                told = []
                upto = UpToStop(stops, told.append)
                for start in range(0, len(text), size):
                    upto.take(text[start : start + size])
                    assert "".join(told) == text[: len("".join(told))]
                upto.end()
                places = [place for stop in stops if (place := text.find(stop)) >= 0]
                if size == 50 or len(places) < 2:  # where two end in one token the earliest counts
                    assert "".join(told) == upto.text == text[: min(places, default=len(text))]
                assert upto.stopped == bool(places)


def _by_hand(folder, prompt, ids):
    """Log-probabilities [tokens, vocabulary] by the model's own forward pass."""
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = network(input_ids=torch.tensor([[*prompt, *ids]])).logits[0].double()
    return logits.log_softmax(-1)[len(prompt) - 1 : len(prompt) + len(ids) - 1]


@pytest.mark.parametrize("ended", [False, True])
def test_logprobs_are_those_of_the_scorer_whether_an_answer_ended_or_was_cut(by, tiny_model, ended):
    drawn = Sampling(12, 1.0, 1, 7)
    if ended:  # the fourth token is made what ends a turn
        [one] = by.model.answer([CHAT], drawn)
        by = replace(by, model=replace(by.model, eos_ids=(*by.model.eos_ids, one.ids[3])))
    prompt = by.model.prompt_ids(CHAT, drawn)
    [one] = by.model.answer([CHAT], drawn)
    assert one.finished == ended
    wanted = _by_hand(tiny_model, prompt, one.ids)
    [plain], _ = _said(by, logprobs=True)
    [top], _ = _said(by, logprobs=True, top_logprobs=5)
    assert len(plain["logprobs"]) == len(one.ids) > 0
    for place, (token, more) in enumerate(zip(plain["logprobs"], top["logprobs"], strict=True)):
        assert token["logprob"] == pytest.approx(float(wanted[place, one.ids[place]]), abs=1e-5)
        assert more["logprob"] == pytest.approx(token["logprob"], abs=1e-5)
        assert token["top_logprobs"] == []
        best = wanted[place].topk(5)
        assert [each["logprob"] for each in more["top_logprobs"]] == pytest.approx(best.values.tolist(), abs=1e-5)
        spell = by.spelling.bytes_of
        assert [bytes(each["bytes"]) for each in more["top_logprobs"]] == [
            spell(index, first=place == 0) for index in best.indices.tolist()
        ]
    assert b"".join(bytes(token["bytes"]) for token in plain["logprobs"]).decode(errors="replace") == plain["text"]


def test_an_answer_that_ends_at_once_has_no_logprobs_and_no_text(by):
    [one] = by.model.answer([CHAT], Sampling(12))
    silent = replace(by, model=replace(by.model, eos_ids=(one.ids[0],)))
    [choice], [piece] = _said(silent, temperature=0, logprobs=True, top_logprobs=2, stream=True)
    assert (choice["text"], choice["num_tokens"], choice["finish_reason"], choice["logprobs"]) == ("", 0, "stop", [])
    assert piece == ""


def test_a_real_model_answers_and_its_tokens_spell_the_text(stories):
    by = held(_base(stories))
    [choice], [pieces] = _said(by, max_tokens=40, logprobs=True, top_logprobs=20, stream=True, temperature=0)
    assert b"".join(bytes(token["bytes"]) for token in choice["logprobs"]).decode(errors="replace") == choice["text"]
    assert pieces == choice["text"]
    for token in choice["logprobs"]:  # greedy: the token is the likeliest one
        assert token["top_logprobs"][0]["bytes"] == token["bytes"]
        assert len(token["top_logprobs"]) == 20


def test_the_prompt_is_the_one_that_training_renders(by):
    messages = [{"role": "system", "content": "be brief"}, USER, {"role": "assistant", "content": "ok"}, USER]
    wanted = by.model.prompt_ids(Chat(tuple(Message(**one) for one in messages)), Sampling(1))
    assert prompt_of(by, messages) == wanted


def test_a_conversation_without_room_for_an_answer_is_refused_and_nothing_is_cut(tiny_gpt):
    by = held(_base(tiny_gpt))
    with pytest.raises(RenderError, match=r"the conversation has \d+ tokens and the model is made for 64") as caught:
        _said(by, messages=[{"role": "user", "content": "no " * 60}])
    assert caught.value.reason == "too_long"
    num = 64 - len(prompt_of(by, [{"role": "user", "content": ""}])) - 1
    [choice], _ = _said(by, messages=[{"role": "user", "content": "a" * num}])
    assert choice["num_tokens"] <= 1
    assert choice["finish_reason"] in ("length", "stop")


def test_a_message_that_the_template_leaves_out_is_refused_and_not_passed_over(tiny_model, tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text(
        "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    by = held(_base(tiny_model, chat_template=str(template)))
    _said(by)
    with pytest.raises(RenderError, match="the system message"):
        _said(by, messages=[{"role": "system", "content": "be brief"}, USER])


def test_nobody_who_is_gone_is_answered(by):
    told = []
    with pytest.raises(Cancelled):
        answer(by, _asked(stream=True, max_tokens=50), lambda **line: told.append(line), lambda: len(told) > 3)
    assert len(told) == 4


# ------------------------------------------------------------------------------------------------ the process


def _lines(requests, load=held):
    out = io.StringIO()
    talk = Talk(out, load)
    for number, (model, asked) in enumerate(requests, start=1):
        talk.answer({"id": number, "model": model, "asked": asked})
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_one_model_is_held_and_loaded_again_only_when_another_is_asked(tiny_model, tiny_gpt):
    loads = []

    def load(spec):
        loads.append(spec["settings"]["name"])
        return held(spec)

    one, two = _base(tiny_model), _base(tiny_gpt)
    lines = _lines([(one, _asked()), (dict(one), _asked()), (two, _asked()), (one, _asked())], load)
    assert loads == [str(tiny_model), str(tiny_gpt), str(tiny_model)]
    assert [line["id"] for line in lines if line.get("done")] == [1, 2, 3, 4]


def test_a_model_that_cannot_be_loaded_is_one_line_without_folders_and_the_next_request_is_answered(
    tmp_path, tiny_model
):
    gone = tmp_path / "gone"
    first, *rest = _lines([(_base(gone), _asked()), (_base(tiny_model), _asked())])
    assert first["error"]["status"] == 503
    assert first["error"]["code"] == "model_unavailable"
    assert str(tmp_path) not in first["error"]["message"]
    assert "\n" not in first["error"]["message"]
    assert rest[-1] == {"id": 2, "done": True}


def test_running_out_of_memory_lets_the_model_go_and_is_one_line(tiny_model):
    made = []

    def ran_out(*_):
        raise MemoryError

    def load(spec):
        made.append(held(spec))
        if len(made) == 1:
            made[0].model.network.model.layers[1].register_forward_pre_hook(ran_out)
        return made[-1]

    one = _base(tiny_model)
    first, second, *rest = _lines([(one, _asked()), (one, _asked())], load)
    assert "begun" in first
    assert second["error"]["status"] == 503
    assert second["error"]["code"] == "out_of_memory"
    assert rest[-1] == {"id": 2, "done": True}
    assert len(made) == 2


@pytest.fixture
def program(tmp_path):
    started = []

    def start(code="from tiebreak.service.talk import main; main()"):
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                start_new_session=True,
            )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        process.wait()


def _send(process, **told):
    process.stdin.write(json.dumps(told) + "\n")
    process.stdin.flush()


def _until_done(process, number):
    lines = []
    for line in process.stdout:
        lines.append(json.loads(line))
        if lines[-1]["id"] == number and ("done" in lines[-1] or "error" in lines[-1]):
            return lines
    raise AssertionError(f"ended: {lines}")


def test_the_program_writes_its_lines_alone_whatever_libraries_print_and_ends_with_its_input(program, tiny_model, by):
    process = program(
        "import os\nfrom tiebreak.service import talk\nplain = talk.held\n"
        "def noisy(spec):\n    print('a library'); os.write(1, b'code in C\\n'); return plain(spec)\n"
        "talk.Talk.__init__.__defaults__ = (noisy,)\ntalk.main()"
    )
    _send(process, id=1, model=_base(tiny_model), asked=_asked())
    lines = _until_done(process, 1)
    assert [line["text"] for line in lines if "text" in line] == [choice["text"] for choice in _said(by)[0]]
    assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 5
    # A request that nobody waits for any more makes way for the next one.
    _send(process, id=2, model=_base(tiny_model), asked=_asked(max_tokens=2**20, n=16, stream=True))
    assert "begun" in json.loads(process.stdout.readline())
    _send(process, cancel=2)
    _send(process, id=3, model=_base(tiny_model), asked=_asked())
    since = time.monotonic()
    assert _until_done(process, 3)[-1] == {"id": 3, "done": True}
    assert time.monotonic() - since < 20
    # It ends in the middle of an answer, too.
    _send(process, id=4, model=_base(tiny_model), asked=_asked(max_tokens=2**20))
    assert "begun" in json.loads(process.stdout.readline())
    process.stdin.close()
    assert process.wait(20) == 0


def test_the_program_ends_by_a_signal(program):
    process = program()
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == -signal.SIGTERM
