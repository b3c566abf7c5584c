"""Reasoning in a completion is learned whole, exactly as generation will see it, whatever its template does with it."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
from tokenizers import AddedToken

from tiebreak.config import DataConfig
from tiebreak.data.render import Renderer
from tiebreak.data.templates import with_defaults
from tiebreak.data.thoughts import MARKS
from tiebreak.errors import RenderError
from tiebreak.records import Message, Pair

ASK = Message("user", "How far?")
CALL = {"type": "function", "function": {"name": "look_up", "arguments": {"town": "Oslo"}}}
HEAD = "{% for m in messages %}<|im_start|>{{ m.role }}\n"
CUT = "{{ m.content.split('</think>')[-1] | trim }}"
CALLS = "{% for c in m.tool_calls or [] %}{{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}"
END = "<|im_end|>\n{% endfor %}"
ASKED = "{% if add_generation_prompt %}<|im_start|>assistant\n"
SWITCHED = (
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
)
OPENS = HEAD + CUT + CALLS + END + ASKED + "<think>\n{% endif %}"
CUTS = HEAD + CUT + CALLS + END + ASKED + "{% endif %}"
SWITCHES = HEAD + CUT + CALLS + END + ASKED + SWITCHED + "{% endif %}"
# Writes what the one above has to be completed with: the oracle of what is composed.
WRITES = (
    HEAD + "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}"
    + CALLS + END + ASKED + "{% endif %}"
)  # fmt: skip


def reasoned(text, thought, calls=()):
    return Message("assistant", text, None, calls, reasoning=thought)


def renderer(tokenizer, template, **data):
    own = copy.deepcopy(tokenizer)
    own.chat_template = template
    return Renderer(own, (own.eos_token_id,), DataConfig(**data))


def texts(tokenizer, template, chosen, rejected):
    made = renderer(tokenizer, template).pair(Pair((ASK,), chosen, rejected))
    return [
        tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for ids in (made.prompt_ids, made.chosen_ids, made.rejected_ids)
    ]


TOLD = {
    "in the text": Message("assistant", "<think>\nthe map\n</think>\n\nThree miles."),
    "in a field": reasoned("Three miles.", "the map"),
    "behind the opening": Message("assistant", "the map\n</think>\n\nThree miles."),
}
OTHER = Message("assistant", "<think>\nhm\n</think>\n\nFar away.")


@pytest.mark.parametrize("chosen", TOLD.values(), ids=TOLD)
def test_a_completion_goes_on_behind_a_prompt_that_opens_its_reasoning(tokenizer, chosen):
    prompt, one, two = texts(tokenizer, OPENS, chosen, OTHER)
    assert prompt == "<|im_start|>user\nHow far?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert one == "the map\n</think>\n\nThree miles.<|im_end|>"
    assert two == "hm\n</think>\n\nFar away.<|im_end|>"
    assert (
        renderer(tokenizer, OPENS).prompt([ASK])
        == renderer(tokenizer, OPENS).pair(Pair((ASK,), chosen, OTHER)).prompt_ids
    )


@pytest.mark.parametrize("chosen", [TOLD["in the text"], TOLD["in a field"]], ids=["in the text", "in a field"])
@pytest.mark.parametrize("calls", [(), (CALL,)], ids=["words", "words and a call"])
def test_what_is_composed_is_what_a_template_writes_that_keeps_the_reasoning(tokenizer, chosen, calls):
    field = reasoned("Three miles.", "the map", calls)
    chosen = Message("assistant", chosen.content, None, calls, reasoning=chosen.reasoning)
    made, oracle = (renderer(tokenizer, t).pair(Pair((ASK,), m, OTHER)) for t, m in ((CUTS, chosen), (WRITES, field)))
    assert made.prompt_ids == oracle.prompt_ids
    assert made.chosen_ids == oracle.chosen_ids


def test_reasoning_that_was_cut_off_is_learned_as_far_as_it_goes(tokenizer):
    _, chosen, _ = texts(tokenizer, OPENS, Message("assistant", "<think>\nthe map and"), OTHER)
    assert chosen == "the map and<|im_end|>"


WRITES_EMPTY = (
    HEAD + "{% if m.role == 'assistant' %}<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}" + CUT
    + CALLS + END + ASKED
)  # fmt: skip


@pytest.mark.parametrize("opened", ["", "<think>\n"], ids=["not opened", "opened"])
def test_reasoning_that_was_cut_off_is_no_answer_behind_an_empty_one(tokenizer, opened):
    """Templates that write an empty thought before an answer that has none take a thought without end for an answer."""
    template = WRITES_EMPTY + opened + "{% endif %}"
    prompt, chosen, _ = texts(tokenizer, template, Message("assistant", "<think>\nthe map and"), OTHER)
    assert (prompt + chosen).endswith("assistant\n<think>\nthe map and<|im_end|>")
    assert chosen == "<think>\nthe map and<|im_end|>".removeprefix(opened)


def test_reasoning_that_was_cut_off_is_refused_behind_a_closed_one(tokenizer):
    template = WRITES_EMPTY + "<think>\n\n</think>\n\n{% endif %}"
    with pytest.raises(RenderError, match="closes the reasoning") as refusal:
        texts(tokenizer, template, Message("assistant", "<think>\nthe map and"), Message("assistant", "Far."))
    assert refusal.value.reason == "seam"


OTHER_MARKS = ("<reasoning>\nhm\n</reasoning>\n\nThree.", "<thinking>hm</thinking>Three.", "Write </analysis> there.")


@pytest.mark.parametrize("text", OTHER_MARKS)
def test_behind_an_opened_mark_no_other_mark_is_reasoning(tokenizer, text):
    with pytest.raises(RenderError, match=r"opens the reasoning \(<think>\).*has none; name a template") as refusal:
        texts(tokenizer, OPENS, Message("assistant", text), OTHER)
    assert refusal.value.reason == "seam"


@pytest.mark.parametrize("text", OTHER_MARKS)
def test_marks_that_a_template_does_not_speak_of_are_text(tokenizer, text):
    _, chosen, _ = texts(tokenizer, CUTS, Message("assistant", text), OTHER)
    assert chosen == f"{text}<|im_end|>"


def test_reasoning_whose_words_the_answer_repeats_is_written_in_front_of_it(tokenizer):
    """The answer holds the text of the reasoning, so that it seems to be written."""
    _, chosen, other = texts(tokenizer, CUTS, reasoned("Three miles.", "Three"), reasoned("Far.", "Far."))
    assert chosen == "<think>\nThree\n</think>\n\nThree miles.<|im_end|>"
    assert other == "<think>\nFar.\n</think>\n\nFar.<|im_end|>"


def test_blanks_before_the_answer_stay_as_they_are(tokenizer):
    _, chosen, _ = texts(tokenizer, OPENS, Message("assistant", "<think>the map</think> Three."), OTHER)
    assert chosen == "the map</think> Three.<|im_end|>"


def test_control_tokens_in_reasoning_stay_text(tokenizer):
    made = renderer(tokenizer, OPENS).pair(Pair((ASK,), reasoned("Three.", "so <|im_end|>\n<|im_start|>user"), OTHER))
    assert sum(token in tokenizer.added_tokens_decoder for token in made.chosen_ids) == 1
    assert made.chosen_ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: mark.begin)
def test_the_marks_of_other_families_are_known(tokenizer, mark):
    template = HEAD + "{{ m.content.split('" + mark.end + "')[-1] | trim }}" + END + ASKED + mark.begin + "{% endif %}"
    for chosen in (Message("assistant", f"{mark.begin}the map{mark.end}Three."), reasoned("Three.", "the map")):
        prompt, text, _ = texts(tokenizer, template, chosen, reasoned("Far.", "hm"))
        assert prompt.endswith(mark.begin)
        assert text.replace("\n", "") == f"the map{mark.end}Three.<|im_end|>"


@pytest.mark.parametrize("template", [OPENS, CUTS, HEAD + "{{ m.content }}" + END + ASKED + "{% endif %}"])
def test_marks_that_are_control_tokens_stay_tokens_around_the_reasoning_and_nowhere_else(tokenizer, template):
    marked = copy.deepcopy(tokenizer)
    marked.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in ("<think>", "</think>")])
    chosen = Message("assistant", "<think>\nthe map\n</think>\n\nThree <think> miles.")
    made = renderer(marked, template).pair(Pair((ASK,), chosen, OTHER))
    ids = [*made.prompt_ids, *made.chosen_ids]
    begin, end = marked.convert_tokens_to_ids(["<think>", "</think>"])
    assert (ids.count(begin), ids.count(end)) == (1, 1)
    said = marked.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert said.endswith("<think>\nthe map\n</think>\n\nThree <think> miles.<|im_end|>")


# ----------------------------------------------------------------------------------------------- what cannot be learned


@pytest.mark.parametrize(
    ("template", "way_out"),
    [
        (OPENS, "name a template that does not open it"),
        (SWITCHES, r"chat_template_arguments: \{enable_thinking: false\}"),
    ],
)
def test_a_completion_without_reasoning_behind_an_open_one_is_refused_with_the_way_out(tokenizer, template, way_out):
    with pytest.raises(RenderError, match=rf"opens the reasoning \(<think>\).*has none; .*{way_out}") as refusal:
        texts(tokenizer, template, Message("assistant", "Three miles."), OTHER)
    assert refusal.value.reason == "seam"


def test_the_way_out_leads_out(tokenizer):
    off = with_defaults(SWITCHES, {"enable_thinking": False})
    prompt, chosen, _ = texts(tokenizer, off, Message("assistant", "Three miles."), Message("assistant", "Far."))
    assert prompt.endswith("assistant\n<think>\n\n</think>\n\n")
    assert chosen == "Three miles.<|im_end|>"


def test_reasoning_behind_a_closed_one_is_refused_with_the_way_out(tokenizer):
    off = with_defaults(SWITCHES, {"enable_thinking": False})
    with pytest.raises(RenderError, match=r"closes the reasoning .*has some; .*\{enable_thinking: true\}"):
        texts(tokenizer, off, reasoned("Three miles.", "the map"), OTHER)


# ----------------------------------------------------------------------------------------------------- public templates

FOLDER = Path(pytest.importorskip("trl").__file__).parent / "chat_templates"
OPENING = ("deepseek_r1_distill", "deepseekv3", "nemotron_3_nano", "qwen3", "qwen3_5_think", "qwen3_6", "qwen3_8")


@pytest.mark.parametrize("name", [*OPENING, "glm4moe"])
def test_families_that_reason_learn_reasoning_that_was_cut_off_as_it_is(tokenizer, name):
    template = (FOLDER / f"{name}.jinja").read_text("utf-8")
    prompt, _, rejected = texts(tokenizer, template, OTHER, Message("assistant", "<think>\nthe map and"))
    said = (prompt + rejected).rpartition("<think>")[2]
    assert re.fullmatch(r"\nthe map and(<[^<>]*end[^<>]*>)*", said)
    assert (prompt + rejected).count("<think>") == 1


@pytest.mark.parametrize("name", OPENING)
@pytest.mark.parametrize("chosen", [TOLD["in the text"], TOLD["in a field"]], ids=["in the text", "in a field"])
def test_families_that_reason_learn_their_reasoning_in_front_of_the_answer(tokenizer, name, chosen):
    template = (FOLDER / f"{name}.jinja").read_text("utf-8")
    prompt, text, _ = texts(tokenizer, template, chosen, OTHER)
    said = (prompt + text).rpartition("<think>")[2]
    assert said.split() == ["the", "map", "</think>", *said.partition("</think>")[2].split()]
    assert (prompt + text).count("<think>") == 1
    assert said.partition("</think>")[2].split()[0] == "Three"
