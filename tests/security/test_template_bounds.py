"""Promise: a chat template gives text within seconds, or one line; it reaches nothing but its messages."""

from __future__ import annotations

import copy
import itertools
import json
import resource
import signal
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest

from bounds import hang_after
from tiebreak.config import DataConfig
from tiebreak.data import chat_template, template_probe, templates
from tiebreak.data.render import Renderer
from tiebreak.data.templates import METER, STEPS, fault_of, rendered
from tiebreak.errors import RenderError
from tiebreak.records import Message, Pair

LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}"
END = "{% endfor %}{% endfor %}"
BOMBS = {
    "loop that writes nothing": LOOP + END,
    "loop that writes": LOOP + "xxxxxxxx{{ j }}" + END,
    "loop that writes much": LOOP + "{{ 'x' * (1000000 + j) }}" + END,
    "doubled text": "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubled list": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "macro that calls itself twice": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
    ),
    "loop that calls itself": (
        "{% for i in [1, 2] recursive %}{% if loop.depth < 60 %}{{ loop([1, 2]) }}{% endif %}{% endfor %}"
    ),
    "lorem ipsum": "{{ lipsum(n=100000000) }}",
}  # fmt: skip
GROWING = {
    "repeated text": "{{ 'a' * 99999999999 }}",
    "repeated by a name": "{% set n = 99999999999 %}{% set x = 'a' * n %}",
    "padded text": "{{ 'a'|center(99999999999) }}",
    "padded by a method": "{% set f = 99999999999 %}{% set x = 'a'.ljust(f) %}",
    "padded by a list": "{% set x = 'a'.ljust(*[99999999999]) %}",
    "padded by a dictionary": "{% set x = 'a'|center(**{'width': 99999999999}) %}",
    "number that multiplies": (
        "{% set n = namespace(x=99) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}"
    ),
    "doubled by a filter": (
        "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = [n.x, n.x]|join %}{% set y = n.x|upper %}"
        "{% endfor %}"
    ),
    "searched again and again": (
        "{% set big = 'ab' * 1000000 %}" + LOOP + "{% if 'zz' in big %}{% endif %}{% set x = big.count('zz') %}" + END
    ),
    "loop whose items are all left out": "{% for i in range(99999) if false %}{% endfor %}" * 20,
    "macro whose results are not written": (
        "{% macro f(n) %}{% if n %}{% set x = f(n - 1) %}{% set y = f(n - 1) %}{% endif %}{% endmacro %}"
        "{% set x = f(60) %}"
    ),
}  # fmt: skip
ATOMS = {
    "power": "{{ 9**9**9 }}",
    "power of a name": "{% set n = 9 %}{% if messages|length > 99 %}{{ n ** n ** n }}{% endif %}",
    "repeated text": "{{ 'a' * 99999999999 }}",
    "padded text": "{{ 'a'|center(99999999999) }}",
    "format": "{{ '%99999999999d' % 1 }}",
    "join": "{{ (range(99999)|join)|list|join(range(99999)|join) }}",
    "shared lists": (
        "{% set a = [1] %}{% set b = [1] %}" + "{% set a = [a, a] %}{% set b = [b, b] %}" * 60 + "{{ a == b }}"
    ),
    "printed shared lists": "{% set a = [1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}",
}  # fmt: skip
ESCAPES = {
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "init": "{{ self.__init__.__globals__ }}",
    "attr": "{{ ''|attr('__class__') }}",
    "format": "{{ '{0.__class__.__init__.__globals__}'.format(namespace) }}",
    "format_map": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "getitem": "{{ cycler['__init__']['__globals__'] }}",
    "joiner": "{{ joiner.__init__.__globals__.os.popen('id').read() }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "append": "{{ messages.append(1) }}",
    "namespace": "{% set n = namespace() %}{% set n.__class__ = 1 %}{{ n.__init__.__globals__ }}",
}
PAIR = Pair((Message("user", "the cat"),), Message("assistant", "yes"), Message("assistant", "no"))


def _renderer(tokenizer, template: str) -> Renderer:
    own = copy.deepcopy(tokenizer)
    own.chat_template = template
    return Renderer(own, [own.eos_token_id], DataConfig(max_length=512))


@pytest.fixture
def hasty(monkeypatch):
    """Bounds that tests can wait for."""
    monkeypatch.setattr(templates, "STEPS", 200_000)


# ------------------------------------------------------------------------------------------------------------ rendering


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_ends_as_a_render_error_and_the_next_pair_costs_nothing(tokenizer, hasty, bomb, monkeypatch):
    renderer = _renderer(tokenizer, bomb)
    with hang_after(), pytest.raises(RenderError, match=r"the chat template (takes more than|writes)") as refusal:
        renderer.pair(PAIR)
    assert refusal.value.reason == "template"
    assert "\n" not in str(refusal.value)
    monkeypatch.setattr(chat_template, "rendered", lambda *_, **__: pytest.fail("the bomb is rendered again"))
    with pytest.raises(RenderError, match="the chat template"):
        renderer.pair(PAIR)


@pytest.mark.parametrize("bomb", [LOOP + END, *GROWING.values()], ids=["loop", *GROWING])
def test_a_bomb_for_some_pairs_only_ends_too(tokenizer, hasty, bomb):
    renderer = _renderer(
        tokenizer, tokenizer.chat_template + "{% if 'boom' in messages[0].content %}" + bomb + "{% endif %}"
    )
    assert renderer.pair(PAIR).chosen_ids
    with pytest.raises(RenderError, match="takes more than 200,000 steps"):
        renderer.pair(Pair((Message("user", "boom"),), PAIR.chosen, PAIR.rejected))


def test_a_bomb_ends_in_any_thread(tokenizer, hasty):
    ended = []

    def render():
        try:
            _renderer(tokenizer, LOOP + END).pair(PAIR)
        except RenderError as error:
            ended.append(str(error))

    for thread in [threading.Thread(target=render) for _ in range(3)]:
        thread.start()
        thread.join()
    assert ended == ["the chat template takes more than 200,000 steps for one chat"] * 3


@pytest.mark.parametrize("name", ["loop that writes much", "doubled text", "doubled list", "doubled by a filter"])
def test_what_a_template_makes_stays_small(tokenizer, hasty, name):
    tracemalloc.start()
    try:
        with pytest.raises(RenderError, match="takes more than"):
            _renderer(tokenizer, (BOMBS | GROWING)[name]).pair(PAIR)
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()


@pytest.fixture
def no_limit_of_memory(tmp_path, monkeypatch):
    """A system that has no limit of memory for a process, as macOS."""
    (tmp_path / "sitecustomize.py").write_text(
        "import resource\n"
        "def refuse(what, limits, given=resource.setrlimit):\n"
        "    if what == resource.RLIMIT_AS:\n"
        "        raise ValueError('current limit exceeds maximum limit')\n"
        "    given(what, limits)\n"
        "resource.setrlimit = refuse\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    templates._tried.cache_clear()
    yield
    templates._tried.cache_clear()


def test_a_system_without_a_limit_of_memory_tries_templates_as_well(no_limit_of_memory):
    assert fault_of("{% for m in messages %}{{ m.content }}{% endfor %}", {}) is None
    assert "much memory" in fault_of(BOMBS["doubled text"], {})
    assert fault_of(GROWING["repeated text"], {}) is not None


def test_what_all_bounds_together_allow_is_below_the_memory_of_the_trial():
    assert STEPS * templates._CHARACTERS_PER_STEP <= template_probe.MEMORY_BYTES
    assert STEPS * templates._ITEMS_PER_STEP * 8 <= template_probe.MEMORY_BYTES


def test_rendering_sets_nothing_for_the_process(tokenizer, hasty, monkeypatch):
    def refuse(*_):
        raise AssertionError("the process belongs to the user")

    for module, name in [(resource, "setrlimit"), (signal, "signal"), (signal, "setitimer"), (sys, "settrace")]:
        monkeypatch.setattr(module, name, refuse)
    assert _renderer(tokenizer, tokenizer.chat_template).pair(PAIR).chosen_ids
    with pytest.raises(RenderError, match="takes more than"):
        _renderer(tokenizer, LOOP + END).pair(PAIR)


def test_the_next_rendering_has_all_its_steps(tokenizer, hasty):
    own = copy.deepcopy(tokenizer)
    own.chat_template = "{% for i in range(70000) %}{{ i }}{% endfor %}"
    for _ in range(4):
        assert rendered(own, [{"role": "user", "content": "a"}], None, False).startswith("0123")


def test_a_template_s_own_error_passes_through_and_leaves_nothing_counted(tokenizer):
    own = copy.deepcopy(tokenizer)
    own.chat_template = "{{ 1 // 0 }}"
    with pytest.raises(ZeroDivisionError):
        rendered(own, [{"role": "user", "content": "a"}], None, False)
    assert METER.left == sys.maxsize


def test_numbers_of_the_data_are_no_widths(tokenizer):
    """What is large as a number, and no more than written out, costs nothing."""
    own = copy.deepcopy(tokenizer)
    own.chat_template = (
        "{% macro shown(n) %}{{ n }}{% endmacro %}{% set n = messages[0].n %}"
        "{{ shown(n) }} {{ '%d'|format(n) }} {{ '{}'.format(n) }} {{ n|string }} {{ n|tojson }} {{ n > 1 }} {{ n + 1 }}"
    )
    number = 12345678901234567890
    text = rendered(own, [{"role": "user", "content": "a", "n": number}], None, False)
    assert text == f"{number} {number} {number} {number} {number} True {number + 1}"


TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look.",
        "parameters": {
            "type": "object",
            "properties": {"at": {"type": "string", "enum": ["a", "b"]}, "n": {"type": "array", "items": {}}},
            "required": ["at"],
        },
    },
}
CALL = {
    "type": "function",
    "id": "call00001",
    "function": {"name": "look", "arguments": {"at": "it", "n": 1234567890123, "l": [1, 2], "d": {"x": None}}},
}
CHATS = (
    [{"role": "user", "content": "a"}],
    [
        {"role": "system", "content": "s"},
        {"role": "user", "content": " b "},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nc"},
    ],
    [{"role": role, "content": "text " * 40} for role in ("user", "assistant") * 3],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "b", "name": "look", "tool_call_id": "call00001"},
        {"role": "assistant", "content": "done", "reasoning_content": "because"},
    ],
)
FEATURES = """
{%- macro turn(m, last=false) %}{{ m.role|upper ~ ': ' ~ m['content'].strip()[:7] }}{{ '!' * 3 if last }}{% endmacro %}
{%- macro around() %}[{{ caller(2) }}]{% endmacro %}
{%- set ns = namespace(n=0, text='') %}
{% for m in messages if m.role != 'system' recursive %}
{%- set ns.n = ns.n + m.content|length %}{% set ns.text = ns.text ~ m.role %}
{%- if loop.first and loop.depth == 1 %}{{ loop([messages[-1]]) }}
{% elif loop.last and loop.depth == 2 %}{% continue %}{% endif %}
{{ turn(m, last=loop.last) }} {{ loop.index }}/{{ loop.length }}
{%- if m.tool_calls is defined %}{{ m.tool_calls|map(attribute='function.name')|join(', ') }}{% endif %}
{%- else %}nothing
{%- endfor %}
{% call(x) around() %}{{ x * 2 }}{% endcall %}
{% filter upper %}{% generation %}{% set hidden = 1 %}a{% endgeneration %}{% endfilter %}{{ hidden is defined }}
{% set block %}{{ ns.text }}{% endset %}{{ block|replace('user', 'u')|indent(2) }}{{ ns.n % 7 + 2 ** 3 - 8 / 4 }}
{{ '%s-%s' % (1, 'a') }}{{ dict(a=1, **{'b': 2}) }}{{ [1, 2, 3][::-1]|sum(start=4) }}{{ 'b' in 'abc' }}
"""
OWN = {
    "features": FEATURES,
    "refuses": "{{ raise_exception('roles must alternate') }}",
    "undefined": "{{ nothing }}{{ nothing.at.all }}",
    "unsafe": "{{ ''.__class__ }}",
    "no Jinja": "{% for %}",
}


@pytest.mark.parametrize("template", OWN.values(), ids=OWN)
def test_a_counted_template_writes_what_it_wrote(tokenizer, template):
    _assert_alike(tokenizer, template)


def test_the_templates_of_many_families_write_what_they_wrote(tokenizer):
    trl = pytest.importorskip("trl")
    found = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    assert len(found) > 30
    for path in found:
        _assert_alike(tokenizer, path.read_text(encoding="utf-8"))


def _assert_alike(tokenizer, template):
    """The same text, or the same refusal, as from transformers alone."""
    own = copy.deepcopy(tokenizer)
    own.chat_template = template

    def outcome(render):
        try:
            return render()
        except Exception as error:  # noqa: BLE001
            return type(error), str(error)

    for chat, tools, generation in itertools.product(CHATS, (None, [TOOL]), (True, False)):
        plain = outcome(
            lambda chat=chat, tools=tools, generation=generation: own.apply_chat_template(
                chat, tools=tools, tokenize=False, add_generation_prompt=generation
            )
        )
        assert outcome(lambda c=chat, t=tools, g=generation: rendered(own, c, t, g)) == plain


# ------------------------------------------------------------------------------------------------------------ the trial


@pytest.mark.parametrize("bomb", [*ATOMS.values(), BOMBS["doubled text"], BOMBS["loop that writes"]])
def test_a_template_that_is_bad_for_every_chat_is_found_before_it_renders_here(bomb):
    with hang_after():
        found = fault_of(bomb, {})
    assert found
    assert "\n" not in found
    assert not found.startswith("cannot be tried")


def test_templates_that_are_used_pass_the_trial(tokenizer):
    tools = "{% if tools %}{{ tools|tojson(indent=4) }}{% endif %}"
    marked = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% break %}{% endfor %}"
    strict = "{{ raise_exception('Conversation roles must alternate user/assistant') }}"
    dated = "{{ strftime_now('%d %b %Y') }}{{ bos_token }}"
    for template in (tokenizer.chat_template, tools, marked, strict, dated, "{{ nothing.at.all }}", "{{ 1 / 0 }}"):
        assert fault_of(template, {"bos_token": "<s>"}) is None, template


def test_a_template_that_is_none_is_left_to_the_rendering():
    assert fault_of("{% for %}", {}) is None


def test_the_trial_sees_nothing_of_our_environment(monkeypatch):
    """Should a template ever leave the sandbox there, it finds no token."""
    monkeypatch.setenv("HF_TOKEN", "hf_" + "s" * 34)
    seen = []
    real = templates.subprocess.Popen
    monkeypatch.setattr(templates.subprocess, "Popen", lambda *a, **k: seen.append(k["env"]) or real(*a, **k))
    assert fault_of("{{ 'a new one, not remembered' }}", {}) is None
    assert [set(environment) for environment in seen] == [{"PYTHONPATH"}]


def test_the_bounds_of_the_trial_are_tighter_than_those_of_rendering():
    assert template_probe.OUTPUT_CHARACTERS <= STEPS * templates._CHARACTERS_PER_STEP


@pytest.mark.parametrize("bomb", [ATOMS["power"], ATOMS["repeated text"], BOMBS["loop that writes"]])
def test_a_model_with_such_a_template_is_refused_before_a_run_folder_is_made(
    model_copy, trained_on, pairs, refused, here, bomb
):
    (model_copy / "chat_template.jinja").write_text(bomb)
    refused(trained_on(model_copy, pairs), "the chat template", "it is not used")
    (here / "named.jinja").write_text(bomb)
    refused(trained_on(model_copy, pairs, "model.chat_template=named.jinja"), "the chat template", "it is not used")
    assert not (here / "runs").exists()


# ---------------------------------------------------------------------------------------------------------- the sandbox


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
def test_a_template_reaches_nothing_but_its_messages(tokenizer, escape):
    own = copy.deepcopy(tokenizer)
    own.chat_template = escape
    chat = [{"role": "user", "content": "the cat"}]
    try:
        text = own.apply_chat_template(chat, tokenize=False)
    except Exception:  # noqa: BLE001 - any refusal will do
        return
    assert "<" not in text
    assert "root:" not in text
    assert chat == [{"role": "user", "content": "the cat"}]


def test_templates_run_in_the_immutable_sandbox():
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from transformers.utils.chat_template_utils import _compile_jinja_template

    assert isinstance(_compile_jinja_template("x").environment, ImmutableSandboxedEnvironment)
    assert isinstance(template_probe.sandbox(), ImmutableSandboxedEnvironment)


def test_a_template_cannot_change_the_pair_that_it_renders(tokenizer):
    changing = "{% for m in messages %}{{ m.update({'content': 'no'}) }}{{ m.content }}{% endfor %}"
    before = json.dumps(PAIR.as_dict())
    with pytest.raises(RenderError):
        _renderer(tokenizer, changing).pair(PAIR)
    assert json.dumps(PAIR.as_dict()) == before
