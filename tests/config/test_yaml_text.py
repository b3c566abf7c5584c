"""The dialect of YAML: what is a number, what is true, what is a text, and what is refused because nobody can know."""

from __future__ import annotations

import datetime
import json

import pytest
import yaml

from tiebreak.config import load_config
from tiebreak.config.foreign.reading import read_foreign
from tiebreak.config.yaml_text import parse_yaml, write_yaml
from tiebreak.errors import ConfigError

VALUES = {
    "0": 0, "-0": 0, "12": 12, "+12": 12, "-3": -3, "0o10": 8, "0x1F": 31, "1.5": 1.5, ".5": 0.5, "5.": 5.0,
    "00.5": 0.5, "1e3": 1000.0, "5e-7": 5e-7, "1.5e-7": 1.5e-7, "true": True, "False": False, "~": None, "null": None,
    "": None,
}  # fmt: skip
TEXTS = [
    "yes", "no", "on", "off", "Yes", "NO", "y", "n", "1_000", "1__0", "12:30:00", "1:20", "190:20:30.15", "0b11", "0o9",
    "2026-11-29", "2001-01-01T00:00:00Z", "=", "tRue", ".", "e5", "1e", "0x", "1,000", "١٢",
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), VALUES.items(), ids=repr)
def test_a_value_is_what_yaml_1_2_says(text, value):
    found = parse_yaml(text, "x")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", TEXTS)
def test_what_only_yaml_1_1_takes_for_something_else_is_a_text(text):
    assert parse_yaml(f"[{text}]" if "," not in text else f"- {text}", "x") == [text]


@pytest.mark.parametrize("text", ["010", "08", "-010", "+07", "00", "0_1", "007"])
def test_a_number_that_begins_with_0_is_refused(text):
    with pytest.raises(ConfigError, match=r"octal to some readers of YAML and decimal to others; write -?\d+, or '"):
        parse_yaml(f"a: {text}", "x")
    assert parse_yaml(f"a: '{text}'", "x") == {"a": text}


@pytest.mark.parametrize("value", [*TEXTS, "010", "08", "0o10", "true", "1.5", "~", "5e-7", ".inf", "<<", "a: b", "'"])
def test_a_text_is_written_so_that_any_reader_gets_it_back(value):
    written = write_yaml({"a": value, value: [value]})
    wanted = {"a": value, value: [value]}
    assert parse_yaml(written, "x") == yaml.safe_load(written) == parse_yaml(written, "x", as_pyyaml=True) == wanted


@pytest.mark.parametrize("value", [*TEXTS, "a\u00a0", "\u00a0", "\u3000a", " a ", "", "...", [], {"a": "\u00a0"}])
def test_a_value_on_one_line_comes_back_with_its_blanks(value):
    written = write_yaml(value, inline=True)
    assert "\n" not in written
    assert parse_yaml(written, "x") == value


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("training: {epochs: 010}", "write 10, or '010' for a text"),
        ("training: {epochs: 1_000}", "training.epochs: found '1_000'; input should be a valid integer"),
        ("training: {epochs: 1:20}", "training.epochs: found '1:20'; input should be a valid integer"),
        ("training: {learning_rate: .inf}", "training.learning_rate: found inf"),
        ("training: {learning_rate: .nan}", "training.learning_rate: found nan"),
        ("training: {learning_rate: 1e400}", "training.learning_rate: found inf"),
        ("training: {shuffle: yes}", "training.shuffle: found 'yes'; wanted true or false"),
        ("training: {shuffle: off}", "training.shuffle: found 'off'; wanted true or false"),
        ('output: {dir: "a\\0b"}', "output: found {'dir': 'a\\x00b'}; a NUL character can stand in no path"),
        ('data: {train: ["a", "b\\0"]}', "a NUL character can stand in no path"),
        ('model: {name: "m\\0"}', "a NUL character can stand in no path"),
    ],
)
def test_a_setting_that_two_readers_would_read_differently_is_refused(tmp_path, text, told):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_override_is_of_the_same_dialect():
    assert load_config(None, ["output.dir=no"]).output.dir == "no"
    with pytest.raises(ConfigError, match=r"--set training\.epochs: not valid YAML"):
        load_config(None, ["training.epochs=010"])


def test_a_date_is_a_text_and_still_a_date(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("model: {chat_template_date: 2026-11-29}")
    assert load_config(path).model.chat_template_date == "2026-11-29"
    given = {"model.chat_template_date": datetime.date(2026, 11, 29)}
    assert load_config(None, given).model.chat_template_date == "2026-11-29"


def test_a_configuration_of_another_trainer_means_what_that_trainer_reads(tmp_path):
    path = tmp_path / "dpo.yaml"
    path.write_text("bf16: yes\nper_device_train_batch_size: 010\nlearning_rate: 5e-7\n")
    assert read_foreign(path).settings == {"bf16": True, "per_device_train_batch_size": 8, "learning_rate": 5e-7}
    assert json.dumps(yaml.safe_load("bf16: yes")) == '{"bf16": true}'


@pytest.mark.parametrize("as_pyyaml", [False, True])
@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a: &a {x: 1}\nb:\n  <<: *a\n  y: 2\n", {"a": {"x": 1}, "b": {"x": 1, "y": 2}}),
        ("a: &a {x: 1}\nb: {<<: *a, x: 2}\n", {"a": {"x": 1}, "b": {"x": 2}}),
        (
            "a: &a {x: 1}\nb: &b\n  <<: *a\n  x: 2\nc: {<<: [*b, *a]}\nd: {<<: *b, y: 3}\n",
            {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 2}, "d": {"x": 2, "y": 3}},
        ),
    ],
)
def test_mappings_are_merged_and_own_keys_count_more(text, read, as_pyyaml):
    assert parse_yaml(text, "a file", as_pyyaml=as_pyyaml) == read


def test_a_key_given_twice_beside_a_merge_is_refused():
    with pytest.raises(ConfigError, match="key 'x' is given twice"):
        parse_yaml("a: &a {x: 1}\nb:\n  <<: *a\n  x: 2\n  x: 3\n", "a file")
