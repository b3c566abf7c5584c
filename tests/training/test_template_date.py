"""The date that a chat template writes is that of its run, on whatever day the run goes on, is measured or exported."""

from __future__ import annotations

import shutil

import pytest

from conftest import CHATML
from tiebreak.errors import RunError
from tiebreak.progress import Silent
from tiebreak.records import Message
from tiebreak.reporting.card import model_card
from tiebreak.runs import Run
from tiebreak.training.opening import made_ready
from tiebreak.training.trained import as_begun, load_trained
from tiebreak.verbs import train
from tiny import run_of_cats

ASK = [Message("user", "yes")]


class Said(Silent):
    """Remembers what a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture(scope="module")
def ran(tiny_model, tmp_path_factory):
    """A run whose template writes the date and takes an argument, and what was said at its start."""
    folder, said = tmp_path_factory.mktemp("dated"), Said()
    (folder / "template.jinja").write_text("{{ style }} {{ strftime_now('%d %b %Y') }}\n" + CHATML)
    config = run_of_cats(
        tiny_model,
        folder,
        12,
        model__chat_template=str(folder / "template.jinja"),
        model__chat_template_arguments={"style": "brief"},
        evaluation__probes=0,
    )
    return config, train.train(config, said), said.lines


def began_on(run: Run, day: str, tmp_path) -> Run:
    """The same run as though it had begun on another day."""
    other = Run(tmp_path / "run")
    shutil.copytree(run.path, other.path)
    other.update_manifest(template_date=day)
    return other


def prompt_of(policy, config) -> str:
    return str(policy.tokenizer.decode(list(policy.renderer(config.data).prompt(ASK))))


def test_a_start_says_which_day_it_keeps(ran):
    _, run, said = ran
    day = run.manifest["template_date"]
    assert any(f"writes the date: in all of this run it is {day}" in line for line in said)


def test_what_was_trained_writes_the_day_of_its_run_and_its_arguments(ran, tmp_path):
    config, run, _ = ran
    policy = load_trained(began_on(run, "2001-02-03", tmp_path)).policy
    assert prompt_of(policy, config).startswith("brief 03 Feb 2001\n")
    assert policy.identity != load_trained(run).policy.identity


def test_an_attempt_that_goes_on_renders_the_day_of_its_begin(ran, tmp_path):
    config, run, _ = ran
    other = began_on(run, "2001-02-03", tmp_path)
    assert as_begun(config, other).model.chat_template_date == "2001-02-03"
    ready = made_ready(config, other, {}, Silent())
    assert prompt_of(ready.loaded.policy, config).startswith("brief 03 Feb 2001\n")


def test_a_day_that_is_set_comes_before_that_of_the_begin(ran, tmp_path):
    config, run, _ = ran
    model = config.model.model_copy(update={"chat_template_date": "1999-12-31"})
    told = as_begun(config.model_copy(update={"model": model}), began_on(run, "2001-02-03", tmp_path))
    assert told.model.chat_template_date == "1999-12-31"


def test_a_broken_day_is_an_error_of_the_run(ran, tmp_path):
    config, run, _ = ran
    with pytest.raises(RunError, match="not as a run writes them"):
        as_begun(config, began_on(run, "soon", tmp_path))


def test_the_model_card_says_what_the_template_was_told(ran):
    _, run, _ = ran
    card = model_card(run, "adapter")
    assert 'takes `style`: `"brief"` where it is told nothing else' in card
    assert f"in training that was {run.manifest['template_date']}" in card
