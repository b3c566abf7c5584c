"""What a chat template is told: arguments that go with it wherever it goes, and a date that stays that of its run."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tiebreak.config import DataConfig, ModelConfig, build_config, load_config
from tiebreak.data.render import Renderer
from tiebreak.data.templates import with_defaults
from tiebreak.engine.models import load_renderer
from tiebreak.engine.sources import resolve
from tiebreak.engine.tokenizer import load_tokenizer, now_for
from tiebreak.errors import ConfigError
from tiebreak.records import Message

ASK = [Message("user", "yes")]
SWITCHED = (
    "{% if enable_thinking is defined and not enable_thinking %}quick {% endif %}{{ style | default('plain') }}: "
)
TEMPLATE = SWITCHED + (
    "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}a{% endif %}"
)
DATED = "{{ strftime_now('%d %b %Y %H:%M') }}\n" + TEMPLATE


def loaded(model, tmp_path, template=TEMPLATE, **settings):
    file = tmp_path / "template.jinja"
    file.write_text(template, encoding="utf-8")
    config = build_config({"model": {"name": str(model), "chat_template": str(file)} | settings}).model
    return load_tokenizer(config, resolve(config)), config


def text(tokenizer, now=None):
    ids = Renderer(tokenizer, (tokenizer.eos_token_id,), DataConfig(), now).prompt(ASK)
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


# ------------------------------------------------------------------------------------------------------------ arguments


@pytest.mark.parametrize(
    ("arguments", "begin"),
    [
        ({"enable_thinking": False}, "quick plain: "),
        ({"style": "a \"b\"\n'c' %} {{ é \\ 🦊"}, "a \"b\"\n'c' %} {{ é \\ 🦊: "),
        ({"style": 3}, "3: "),
        ({"style": None}, "None: "),
        ({"enable_thinking": True, "style": 0.5}, "0.5: "),
    ],
)
def test_arguments_reach_every_rendering_and_are_saved_with_the_tokenizer(tiny_model, tmp_path, arguments, begin):
    tokenizer, _ = loaded(tiny_model, tmp_path, chat_template_arguments=arguments)
    assert text(tokenizer).startswith(begin)
    tokenizer.save_pretrained(tmp_path / "saved")
    stranger = AutoTokenizer.from_pretrained(tmp_path / "saved")
    chat = [{"role": "user", "content": "yes"}]
    assert stranger.apply_chat_template(chat, tokenize=False) == begin + "yes<|im_end|>"
    told = stranger.apply_chat_template(chat, tokenize=False, style="other")
    assert told.endswith("other: yes<|im_end|>")


def test_a_template_that_is_told_nothing_new_writes_the_same(tokenizer):
    for template in ("\n  {% if tools %}x{% endif %} {{ messages[0].content }}\n", "  {%- set a = 1 %}\n{{ a }}"):
        plain, told = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
        plain.chat_template, told.chat_template = template, with_defaults(template, {"style": "x", "other": 1})
        assert text(plain) == text(told)


def test_a_name_that_no_template_reads_is_refused_with_the_nearest(tiny_model, tmp_path):
    with pytest.raises(ConfigError, match=r"enable_thinkin: is no name .* Did you mean 'enable_thinking'"):
        loaded(tiny_model, tmp_path, chat_template_arguments={"enable_thinkin": False})
    with pytest.raises(ConfigError, match="messages: is given to every template"):
        loaded(tiny_model, tmp_path, chat_template_arguments={"messages": "none"})


@pytest.mark.parametrize("name", ["a b", "a-b", "__class__", "x %}{{ 1 }}", ""])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(ConfigError, match=r"chat_template_arguments.*no name that a template could read"):
        build_config({"model": {"chat_template_arguments": {name: 1}}})


def test_arguments_are_set_by_a_dotted_key_or_in_yaml(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("model: {chat_template_arguments: {reasoning_effort: high}}\n")
    config = load_config(file, ["model.chat_template_arguments.enable_thinking=false"])
    assert config.model.chat_template_arguments == {"reasoning_effort": "high", "enable_thinking": False}


# ----------------------------------------------------------------------------------------------------------------- date


def test_a_template_that_reads_the_clock_is_told_the_day_that_is_set(tiny_model, tmp_path):
    tokenizer, config = loaded(tiny_model, tmp_path, DATED, chat_template_date="2001-02-03")
    assert text(tokenizer, now_for(config, tokenizer)).startswith("03 Feb 2001 00:00\n")
    plain, config = loaded(tiny_model, tmp_path, chat_template_date="2001-02-03")
    assert now_for(config, plain) is None


def test_without_a_date_it_is_told_a_whole_day_which_is_the_same_all_day(tiny_model, tmp_path):
    tokenizer, config = loaded(tiny_model, tmp_path, DATED)
    now = now_for(config, tokenizer)
    assert (now.hour, now.minute, now.second, now.microsecond) == (0, 0, 0, 0)


CLOCKS = {
    "called": "{{ strftime_now('%Y') }}",
    "where it is defined": "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}",
    "by another name": "{% set now = strftime_now %}{{ now('%Y') }}",
    "as a default": "{{ day | default(strftime_now('%Y')) }}",
    "in a macro": "{% macro year() %}{{ strftime_now('%Y') }}{% endmacro %}{{ year() }}",
    "joined": "{{ 'in ' ~ strftime_now('%Y') }}",
}


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)
def test_the_clock_is_held_however_a_template_asks_for_it(tiny_model, tmp_path, clock):
    tokenizer, config = loaded(tiny_model, tmp_path, clock + TEMPLATE, chat_template_date="1987-06-05")
    assert "1987" in text(tokenizer, now_for(config, tokenizer))


@pytest.mark.parametrize("name", ["llama3_2", "gptoss", "muse_glimmer"])
def test_public_templates_write_the_date_that_they_are_told(tiny_model, tmp_path, name):
    folder = Path(pytest.importorskip("trl").__file__).parent / "chat_templates"
    template = (folder / f"{name}.jinja").read_text("utf-8")
    tokenizer, config = loaded(tiny_model, tmp_path, template, chat_template_date="1987-06-05")
    assert "1987" in text(tokenizer, now_for(config, tokenizer))


@pytest.mark.parametrize("date", ["yesterday", "2026-13-01", "20-1-1"])
def test_what_is_no_date_is_refused(date):
    with pytest.raises(ConfigError, match=r"model\.chat_template_date: found .*a date is written as 2026-11-29"):
        build_config({"model": {"chat_template_date": date}})


def test_a_bare_date_in_yaml_is_a_date(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("model: {chat_template_date: 2026-11-29}\n")
    assert load_config(file).model.chat_template_date == "2026-11-29"


def test_the_doctor_counts_with_a_whole_day_too(tiny_model, tmp_path):
    tokenizer, _ = loaded(tiny_model, tmp_path, DATED)
    saved = tmp_path / "model"
    tokenizer.save_pretrained(saved)
    for file in Path(tiny_model).glob("*config.json"):
        if not (saved / file.name).exists():
            (saved / file.name).write_bytes(file.read_bytes())
    ids = load_renderer(ModelConfig(name=str(saved)), DataConfig())[0].prompt(ASK)
    assert " 00:00\n" in tokenizer.decode(list(ids))


def test_what_is_no_plain_value_is_refused():
    with pytest.raises(ConfigError, match=r"what 'builtin_tools' is told is text, a number, true, false or null"):
        build_config({"model": {"chat_template_arguments": {"builtin_tools": ["a"]}}})
    with pytest.raises(ConfigError, match=r"chat_template_arguments: found .*a user or token before the host"):
        build_config({"model": {"chat_template_arguments": {"site": "https://me:word@host/x"}}})
