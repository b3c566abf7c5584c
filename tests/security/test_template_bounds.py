"""Promise: a chat template gives text within seconds, or one line; it reaches nothing but its messages."""

from __future__ import annotations

import copy
import json
import resource
import signal
import threading
import time

import pytest

from bounds import hang_after
from tiebreak.config import DataConfig
from tiebreak.data import render, template_probe, templates
from tiebreak.data.render import Renderer
from tiebreak.data.templates import Exceeded, fault_of, limited
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
    monkeypatch.setattr(templates, "CPU_SECONDS", 0.5)
    monkeypatch.setattr(templates, "MEMORY_BYTES", 2**28)
    monkeypatch.setattr(templates, "OUTPUT_CHARACTERS", 2**22)


# ------------------------------------------------------------------------------------------------------------ rendering


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_ends_as_a_render_error_and_the_next_pair_costs_nothing(tokenizer, hasty, bomb, monkeypatch):
    renderer = _renderer(tokenizer, bomb)
    with hang_after(), pytest.raises(RenderError, match=r"the chat template (takes more than|writes)") as refusal:
        renderer.pair(PAIR)
    assert refusal.value.reason == "template"
    assert "\n" not in str(refusal.value)
    monkeypatch.setattr(render, "limited", lambda *_, **__: pytest.fail("the bomb is rendered again"))
    with pytest.raises(RenderError, match="the chat template"):
        renderer.pair(PAIR)


def test_a_bomb_for_some_pairs_only_ends_too(tokenizer, hasty):
    renderer = _renderer(
        tokenizer, tokenizer.chat_template + "{% if 'boom' in messages[0].content %}" + LOOP + END + "{% endif %}"
    )
    assert renderer.pair(PAIR).chosen_ids
    with pytest.raises(RenderError, match="takes more than"):
        renderer.pair(Pair((Message("user", "boom"),), PAIR.chosen, PAIR.rejected))


def test_memory_is_bounded_in_one_step_and_in_any_thread(hasty):
    """The kernel refuses it, so no step between two looks takes all that the machine has."""
    ended = []

    def take():
        try:
            limited(lambda: "x" * 2**31)  # more than a heap may still hold of what was freed
        except Exceeded as error:
            ended.append(str(error))

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    take()
    assert ended == ["the chat template takes more than 256 MiB of memory for one chat"] * 2
    assert len("x" * 2**29) == 2**29, "the bound is gone when the rendering is"


def test_a_lower_limit_of_the_user_stays(hasty):
    own = (2**50, resource.getrlimit(resource.RLIMIT_AS)[1])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, own)
    try:
        assert int(limited(lambda: str(resource.getrlimit(resource.RLIMIT_AS)[0]))) < 2**50
        assert resource.getrlimit(resource.RLIMIT_AS) == own
        tight = (templates._mapped_bytes() + 2**27, own[1])
        resource.setrlimit(resource.RLIMIT_AS, tight)
        assert limited(lambda: str(resource.getrlimit(resource.RLIMIT_AS)[0])) == str(tight[0])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_time_is_not_bounded_in_other_threads_and_nobody_else_is_stopped(monkeypatch):
    monkeypatch.setattr(templates, "CPU_SECONDS", 0.05)
    texts = []
    thread = threading.Thread(target=lambda: texts.append(limited(_computing, 0.2)))
    thread.start()
    thread.join()
    assert texts == ["text"]


def _computing(seconds: float) -> str:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return "text"


def test_a_stop_that_comes_at_the_last_moment_hits_nobody_else(monkeypatch):
    """Renderings that end just when their time does: each is text or Exceeded, and nothing is raised later."""
    monkeypatch.setattr(templates, "CPU_SECONDS", 0.02)
    monkeypatch.setattr(templates, "_AGAIN_SECONDS", 0.001)
    outcomes = []
    for number in range(150):
        try:
            outcomes.append(limited(_computing, 0.016 + 0.0002 * (number % 40)))
        except Exceeded:
            outcomes.append("stopped")
        for _ in range(2000):
            pass  # what came too late would be raised here
    assert set(outcomes) == {"text", "stopped"}
    assert not templates._rendering
    assert signal.getitimer(signal.ITIMER_PROF)[0] == 0


def test_the_next_rendering_has_all_its_time(hasty):
    for _ in range(4):
        assert limited(_computing, 0.3) == "text"


def test_a_template_s_own_error_and_an_interruption_pass_through():
    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error):
            limited(_raiser(error))
        assert not templates._rendering


def _raiser(error):
    def render():
        raise error

    return render


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
    real = templates.subprocess.run
    monkeypatch.setattr(templates.subprocess, "run", lambda *a, **k: seen.append(k["env"]) or real(*a, **k))
    assert fault_of("{{ 'a new one, not remembered' }}", {}) is None
    assert [set(environment) for environment in seen] == [{"PYTHONPATH"}]


def test_the_bounds_of_the_trial_are_tighter_than_those_of_rendering():
    assert template_probe.CPU_SECONDS <= templates.CPU_SECONDS
    assert template_probe.MEMORY_BYTES <= templates.MEMORY_BYTES
    assert template_probe.OUTPUT_CHARACTERS <= templates.OUTPUT_CHARACTERS


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
    assert isinstance(template_probe._environment(), ImmutableSandboxedEnvironment)


def test_a_template_cannot_change_the_pair_that_it_renders(tokenizer):
    changing = "{% for m in messages %}{{ m.update({'content': 'no'}) }}{{ m.content }}{% endfor %}"
    before = json.dumps(PAIR.as_dict())
    with pytest.raises(RenderError):
        _renderer(tokenizer, changing).pair(PAIR)
    assert json.dumps(PAIR.as_dict()) == before
