"""A chat template that passes over a part of a pair: told by name, counted, trained on only where that is allowed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from tiebreak.config import DataConfig
from tiebreak.data.preparation import prepare
from tiebreak.data.render import Renderer
from tiebreak.errors import DataError, RenderError
from tiebreak.records import Message, Pair

CALL = {"type": "function", "function": {"name": "look_up", "arguments": {"town": "Oslo", "at": {"hour": "noon"}}}}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
ASK, YES, NO = Message("user", "How far?"), Message("assistant", "Three miles."), Message("assistant", "Far away.")
CALLING = Message("assistant", "I look first.", None, (CALL,))
THOUGHTFUL = Message("assistant", "Three miles.", reasoning="The map says so.")

# A template that writes everything, and one for each way to pass over something.
HEAD = "{% for m in messages %}<|im_start|>{{ m.role }}\n"
CALLS = "{% for c in m.tool_calls or [] %}{{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}"
TAIL = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}"
THINKS = "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
WHOLE = TOOLS + HEAD + THINKS + "{{ m.content }}" + CALLS + TAIL


def but(**roles):
    """A template that writes all but the turns of some roles."""
    skipped = " and ".join(f"m.role != '{role}'" for role in roles)
    return TOOLS + HEAD + "{% if " + skipped + " %}{{ m.content }}{% endif %}" + CALLS + TAIL


OTHERS_SAY_IT = (Message("system", "Hi"), Message("user", "Hi there, how far?"))
LEFT_OUT = {
    "system": (but(system=1), Pair((Message("system", "Be brief."), ASK), YES, NO), "the system message"),
    "developer": (but(developer=1), Pair((Message("developer", "Be brief."), ASK), YES, NO), "the developer message"),
    "a system message that the user repeats": (but(system=1), Pair(OTHERS_SAY_IT, YES, NO), "the system message"),
    "tools": (HEAD + "{{ m.content }}" + TAIL, Pair((ASK,), YES, NO, (TOOL,)), "the tools"),
    "tool result": (
        but(tool=1), Pair((ASK, CALLING, Message("tool", "3 mi"), ASK), YES, NO), "the result of a tool",
    ),
    "earlier turn": (
        HEAD + "{% if m.role == 'user' or loop.last %}{{ m.content }}{% endif %}" + TAIL,
        Pair((ASK, Message("assistant", "To where?"), ASK), YES, NO),
        "an earlier turn of the assistant",
    ),
    "words beside a call": (
        HEAD + "{% if m.tool_calls %}" + CALLS + "{% else %}{{ m.content }}{% endif %}" + TAIL,
        Pair((ASK,), CALLING, NO),
        "the words of a completion beside its tool calls",
    ),
    "call beside words": (
        HEAD + "{{ m.content }}" + TAIL, Pair((ASK,), CALLING, NO), "the tool calls of a completion",
    ),
    "arguments of a call": (
        HEAD + "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}" + TAIL,
        Pair((ASK,), CALLING, NO),
        "the tool calls of a completion",
    ),
    "one call of two": (
        HEAD + "{{ m.content }}{% for c in (m.tool_calls or [])[:1] %}{{ c | tojson }}{% endfor %}" + TAIL,
        Pair((ASK,), Message("assistant", "", None, (CALL, CALL)), NO),
        "the tool calls of a completion",
    ),
    "earlier calls": (
        HEAD + "{{ m.content }}" + TAIL,
        Pair((ASK, CALLING, Message("tool", "3 mi"), ASK), YES, NO),
        "the tool calls of earlier turns",
    ),
    "reasoning": (HEAD + "{{ m.content }}" + TAIL, Pair((ASK,), THOUGHTFUL, NO), "the reasoning of a completion"),
    "half of a text": (
        HEAD + "{{ m.content[:8] }}" + TAIL, Pair((ASK,), YES, NO), "the text of a completion",
    ),
}  # fmt: skip


def renderer(tokenizer, template, **data):
    own = copy.deepcopy(tokenizer)
    own.chat_template = template
    return Renderer(own, (own.eos_token_id,), DataConfig(**data))


@pytest.mark.parametrize(("template", "pair", "what"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_a_template_leaves_out_is_named_and_the_same_chat_passes_where_it_is_written(
    tokenizer, template, pair, what
):
    with pytest.raises(RenderError, match=f"the chat template leaves out {what};") as refusal:
        renderer(tokenizer, template).pair(pair)
    assert refusal.value.reason == "not_rendered"
    assert "\n" not in str(refusal.value)
    assert renderer(tokenizer, WHOLE).pair(pair)


SHORT = {
    "a digit inside of a number": (
        but(tool=1), (ASK, CALLING, Message("tool", "5")), Message("assistant", "It is 15."), "the result of a tool",
    ),
    "a word inside of another": (
        but(tool=1), (Message("user", "Take a book."), CALLING, Message("tool", "OK")), YES, "the result of a tool",
    ),
    "a sentence whose words others say": (
        but(developer=1),
        (Message("developer", "Be concise."), Message("user", "Concise, what must be will be?")),
        YES,
        "the developer message",
    ),
    "a sentence that the template says itself": (
        "<|im_start|>system\nYou are kind.<|im_end|>\n" + but(developer=1),
        (Message("developer", "You are kind."), ASK), YES, "the developer message",
    ),
    "a number in arguments": (
        HEAD + "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }} {{ c.function.arguments.keys() | "
        "list | tojson }}{% endfor %}" + TAIL,
        (ASK, Message("assistant", "", None, ({"type": "function", "function": {"name": "f", "arguments": {"x": 7}}},)),
         Message("tool", "7 miles"), ASK), YES, "the tool calls of earlier turns",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("template", "prompt", "chosen", "what"), SHORT.values(), ids=SHORT)
def test_a_part_is_missed_though_its_few_words_stand_elsewhere(tokenizer, template, prompt, chosen, what):
    with pytest.raises(RenderError, match=f"the chat template leaves out {what};"):
        renderer(tokenizer, template).pair(Pair(prompt, chosen, NO))
    assert renderer(tokenizer, WHOLE).pair(Pair(prompt, chosen, NO))


FULL_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Finds a town.",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string", "description": "Its name."}, "far": {"type": "boolean"}},
        },
    },
}
OF_TOOLS = {
    "only names": "{{ t.function.name }}",
    "no descriptions": "{{ t.function.name }}({{ t.function.parameters | tojson }})",
    "no parameters": "{{ t.function.name }}: {{ t.function.description }}",
    "no names of parameters": "{{ t.function.name }}: {{ t.function.description }}{% for p in "
    "t.function.parameters.properties.values() %}{{ p | tojson }}{% endfor %}",
}


@pytest.mark.parametrize("written", OF_TOOLS.values(), ids=OF_TOOLS)
def test_tools_are_written_whole_or_missed(tokenizer, written):
    template = "{% for t in tools or [] %}" + written + "{% endfor %}" + WHOLE.removeprefix(TOOLS)
    pair = Pair((ASK,), YES, NO, (FULL_TOOL,))
    with pytest.raises(RenderError, match="leaves out the tools;"):
        renderer(tokenizer, template).pair(pair)
    assert renderer(tokenizer, WHOLE).pair(pair)


def test_a_template_that_decides_by_what_a_text_says_is_not_accused(tokenizer):
    """Words that stand nowhere else tell nothing there, and the real text is looked for."""
    parses = "{% if m.role == 'tool' and not m.content.startswith('{') %}{% else %}{{ m.content }}{% endif %}"
    template = TOOLS + HEAD + parses + CALLS + TAIL
    prompt = (ASK, CALLING, Message("tool", '{"miles": 3}'))
    assert renderer(tokenizer, template).pair(Pair(prompt, YES, NO))
    with pytest.raises(RenderError, match="leaves out the result of a tool"):
        renderer(tokenizer, template).pair(Pair((ASK, CALLING, Message("tool", "three")), YES, NO))


def test_where_no_other_words_can_be_written_whole_words_are_looked_for(tokenizer):
    wants = "{% if m.role == 'user' and 'book' not in m.content %}{{ raise_exception('no book') }}{% endif %}"
    template = HEAD + wants + "{% if m.role != 'tool' %}{{ m.content }}{% endif %}" + CALLS + TAIL
    prompt = (Message("user", "Look at the book."), CALLING, Message("tool", "OK"))
    with pytest.raises(RenderError, match="leaves out the result of a tool"):
        renderer(tokenizer, template).pair(Pair(prompt, YES, NO))
    kept = HEAD + wants + "{{ m.content }}" + CALLS + TAIL
    assert renderer(tokenizer, kept).pair(Pair(prompt, YES, NO))


def test_a_shape_of_chat_is_asked_once(tokenizer):
    """What is learned of one chat holds for all that differ in words alone."""
    own = renderer(tokenizer, WHOLE)
    for number in range(4):
        said = [Message("assistant", f"{side} {number} miles.") for side in ("Only", "Some")]
        own.pair(Pair((Message("system", f"Be {number}."), Message("user", f"And {number}?")), *said))
    assert len(own._completeness._known) == 2


def test_it_is_trained_on_without_the_part_where_that_is_allowed(tokenizer):
    template, pair, _ = LEFT_OUT["system"]
    allowed = renderer(tokenizer, template, allow=("not_rendered",))
    bare = Pair((ASK,), YES, NO)
    assert allowed.pair(pair).chosen_ids == renderer(tokenizer, WHOLE).pair(bare).chosen_ids
    template, pair, _ = LEFT_OUT["reasoning"]
    allowed = renderer(tokenizer, template, allow=("not_rendered",))
    assert allowed.pair(pair).chosen_ids == allowed.pair(bare).chosen_ids


WRITTEN_OTHERWISE = {
    "trimmed": HEAD + "{{ m.content | trim }}" + TAIL,
    "as JSON": HEAD + "{{ m.content | tojson }}" + TAIL,
    "as JSON of ASCII": HEAD + "{{ m.content | tojson(ensure_ascii=True) }}" + TAIL,
    "as Python": HEAD + "{{ [m.content] }}" + TAIL,
    "as HTML": HEAD + "{{ m.content | e }}" + TAIL,
    "as JSON in JSON": HEAD + "{{ m.content | tojson | tojson }}" + TAIL,
    "with plain quotes": HEAD + "{{ m.content | replace('„', '<') | replace('é', 'e') }}" + TAIL,
    "in capitals": HEAD + "{{ m.content | upper }}" + TAIL,
    "line by line": HEAD + "{% for line in m.content.split('\n') %}> {{ line }}\n{% endfor %}" + TAIL,
    "with system last": (
        "{% for m in messages[1:] %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'user' %}{{ m.content }} {{ messages[0].content }}{% else %}{{ m.content }}{% endif %}" + TAIL
    ),
}


@pytest.mark.parametrize("template", WRITTEN_OTHERWISE.values(), ids=WRITTEN_OTHERWISE)
def test_a_part_that_is_written_in_another_way_is_not_missed(tokenizer, template):
    system, asked = Message("system", "Be brief,\n„kurz“ \\ gut. "), Message("user", ' Say "é"\nand this.\n')
    chosen, rejected = Message("assistant", "Yes,\n\té!"), Message("assistant", "<>\u200d„'")
    if "é" in template:
        asked, chosen = Message("user", "Say it"), Message("assistant", "Yes.")
    assert renderer(tokenizer, template).pair(Pair((system, asked), chosen, rejected))


@pytest.mark.parametrize("reasons", ["in a field", "in the text"])
def test_the_reasoning_of_earlier_turns_need_not_be_written(tokenizer, reasons):
    """Templates of reasoning models cut it by design."""
    cut = HEAD + "{{ m.content.split('</think>')[-1] }}" + TAIL
    thought = {
        "in a field": Message("assistant", "To where?", reasoning="I must ask."),
        "in the text": Message("assistant", "<think>\nI must ask.\n</think>\n\nTo where?"),
    }[reasons]
    pair, plain = (Pair((ASK, m, ASK), YES, NO) for m in (thought, Message("assistant", "To where?")))
    made = renderer(tokenizer, cut)
    assert made.pair(pair).chosen_ids == made.pair(plain).chosen_ids


def test_control_tokens_inside_content_are_no_reason_to_miss_it(tokenizer):
    asked = Message("user", "<|im_start|>system\nlie<|im_end|><|im_")
    assert renderer(tokenizer, WHOLE).pair(Pair((asked,), Message("assistant", "No <|im_end|> of it <|"), NO))


def test_a_run_says_how_many_pairs_and_what_is_left_out(tokenizer, tmp_path):
    file = tmp_path / "pairs.jsonl"
    row = '{"system": "Be brief.", "prompt": "How far is %d?", "chosen": "Three miles.", "rejected": "Far away."}\n'
    file.write_text("".join(row % number for number in range(12)))
    data = DataConfig(train=str(file))
    own = renderer(tokenizer, but(system=1), train=str(file))
    with pytest.raises(DataError, match=r"Dropped: 12 not_rendered\. .*jsonl:1: the chat template leaves out the sys"):
        prepare(data, own)
    allowed = renderer(tokenizer, but(system=1), allow=("not_rendered",))
    assert prepare(data, allowed).report["num_dropped"] == 0


FOLDER = Path(pytest.importorskip("trl").__file__).parent / "chat_templates"
TEXT_ONLY = [
    file for file in sorted(FOLDER.glob("*.jinja")) if not file.stem.startswith(("idefics", "smolvlm", "llava"))
]
THINKERS = ("deepseek", "nemotron")


@pytest.mark.parametrize("file", TEXT_ONLY, ids=lambda file: file.stem)
def test_no_public_template_is_accused_of_leaving_out_an_ordinary_chat(tokenizer, file):
    """Those that open the reasoning where an answer begins are asked to write one that reasons."""
    made = renderer(tokenizer, file.read_text("utf-8"), max_length=10**6)
    thinks = "<think>\nIt is on\nthe map.\n</think>\n\n" if file.stem.startswith(THINKERS) else ""
    sides = (Message("assistant", f"{thinks}Three miles, at {end}.") for end in ("least", "most"))
    chosen, rejected = sides
    turns = (ASK, Message("assistant", "To Oslo?\n\nOr where?"), Message("user", "  Yes, to Oslo. \n"))
    for prompt in ((ASK,), turns, (Message("system", "Be brief."), *turns)):
        if file.stem in ("gemma", "gemma_training") and prompt[0].role == "system":
            continue  # refuses a system message itself
        pair = made.pair(Pair(prompt, chosen, rejected))
        assert pair.chosen_ids != pair.rejected_ids
