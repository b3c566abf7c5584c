"""Whatever command is printed is run as it was printed: pasted into a shell, it reads what was read before."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

import tiebreak
from tiebreak.config import DataConfig, command, load_config, load_data, quoted, reading
from tiebreak.config.commands import FLAGS

ODD = ["-c", "prompt=in put", "-c", "completion_a=one", "-c", "completion_b=the 'other'", "-c", "winner=label"]
NAMES = [
    "pairs.jsonl",
    "my pairs; $(rm x).jsonl",
    "it's  two.jsonl",
    "-d.jsonl",
    "naïve.jsonl",
    "line\nbreak.jsonl",
    "\u202e.jsonl",
]


def odd(number: int, label: str = "A") -> dict:
    one, other = f"This is number {number}.", f"That would be {number}?"
    return {"in put": f"What is it, {number}?", "one": one, "the 'other'": other, "label": label}


def saved(path: str, rows: list) -> str:
    Path(path).write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def typed(line: str) -> list[str]:
    """The words of a command as a shell gives them to the program."""
    found = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    return found.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]


def printed(text: str) -> list[list[str]]:
    """The commands in what was printed: on lines of their own, after 'next:', in comments, in quotes."""
    lines = re.findall(r"^(?:# |next: +|.*; next: )?(tiebreak [a-z]+ .*)$", text, re.MULTILINE)
    lines += [found[1] for found in re.findall(r"""(['"`])(tiebreak [a-z]+ (?:(?!\1).)*)\1""", text)]
    return [typed(line) for line in lines]


@pytest.fixture
def follow(cli):
    """Run a command and then all that it advises; return what each of those printed."""

    def call(*words, code: int) -> dict[str, str]:
        found, out, err = cli(*words)
        assert found == code, err
        done = {}
        for _, verb, *rest in printed(out + err):
            found, out, err = cli(verb, *rest)
            assert found in (0, 1), (verb, rest, err)  # 1: the doctor found something, in what it could read
            done[verb] = out + err
        return done

    return call


@pytest.mark.parametrize("name", NAMES)
def test_advice_on_mapped_columns_reads_what_was_read(follow, here, name):
    saved(name, [*map(odd, range(20)), odd(0, "B")])
    path = name if not name.startswith("-") else f"./{name}"
    done = follow("check", path, *ODD, code=1)
    assert "21 pairs: 19 kept" in done["clean"]


def test_advice_without_a_finding_writes_a_configuration_of_the_same_reading(follow, here):
    saved("a b.jsonl", list(map(odd, range(20))))
    done = follow("check", "a b.jsonl", *ODD, "--min-margin", "0.5", "--set", "data.max_dropped_share=0.5", code=0)
    data = yaml.safe_load(done["init"])["data"]
    assert data["columns"] == {
        "prompt": "in put",
        "completion_a": "one",
        "completion_b": "the 'other'",
        "winner": "label",
    }
    assert (data["train"], data["min_margin"], data["max_dropped_share"]) == ("a b.jsonl", 0.5, 0.5)


def test_advice_on_ratings_keeps_how_they_become_pairs(follow, here):
    rows = [{"q": f"p{n}", "answers": [f"{word} {n}" for word in "abc"], "points": [1, 2, 3]} for n in range(12)]
    saved("r.jsonl", rows)
    columns = ["-c", "prompt=q", "-c", "completions=answers", "-c", "scores=points"]
    for form in (["--pairing", "all"], ["--pairing", "all", "--min-margin", "2"]):
        done = follow("check", "r.jsonl", *columns, *form, code=0)
        assert yaml.safe_load(done["init"])["data"]["pairing"] == "all"


def test_advice_keeps_the_held_out_file(follow, here):
    saved("train.jsonl", list(map(odd, range(20))))
    saved("test.jsonl", [odd(3)])
    done = follow("check", "train.jsonl", *ODD, "--heldout", "test.jsonl", code=1)
    assert "1  leak (quarantine)" in done["clean"]


def test_advice_of_a_refused_training_reads_as_the_configuration_does(follow, cli, here):
    saved("one.jsonl", [*map(odd, range(20)), odd(0, "B")])
    saved("two.jsonl", [{"prompt": "And you?", "chosen": "Well.", "rejected": "Bad."}])
    columns = {"prompt": "in put", "completion_a": "one", "completion_b": "the 'other'", "winner": "label"}
    Path("my.yaml").write_text(yaml.safe_dump({"data": {"train": "one.jsonl", "columns": columns}}))
    Path("mix.yaml").write_text(
        yaml.safe_dump(
            {"data": {"train": [{"path": "one.jsonl", "columns": columns}, {"path": "two.jsonl", "weight": 2.0}]}}
        )
    )
    for config, pairs in (("my.yaml", "21 pairs"), ("mix.yaml", "22 pairs")):
        done = follow("train", config, "-q", code=2)
        assert done.keys() == {"check", "clean"}
        assert pairs in done["check"]
        code, out, _ = cli("check", "--config", config, "--json")
        assert (code, json.loads(out)["num_pairs"]) == (1, int(pairs.split()[0]))
        subprocess.run(["rm", "-r", "OUT"], check=True)


def test_advice_of_a_run_is_to_paste(cli, tiny_model, here):
    """From a file to an exported model by nothing but what was printed."""
    saved("the pairs.jsonl", [{"prompt": f"the cat {n}", "chosen": f"yes {n}", "rejected": "no"} for n in range(30)])
    code, out, _ = cli("init", "the pairs.jsonl", "--model", tiny_model, "-o", "my first.yaml")
    assert code == 0
    ((_, *words),) = printed(out)
    code, out, err = cli(*words, "--set", "training.epochs=1", "--set", "evaluation.num_samples=1",
                         "--set", "evaluation.num_draws=0", "-q")  # fmt: skip
    assert code == 0, err
    ((_, *words),) = printed(out)
    assert cli(*words, "-q")[0] == 0
    Path("runs/my first/evaluation.json").unlink()
    _, _, err = cli("report", "runs/my first")
    ((_, *words),) = printed(err)
    assert cli(*words, "-q")[0] == 0


BLIND = "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ASKS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@pytest.fixture
def advised(here):
    """Pairs with a system message, and a template that leaves it out."""
    saved(
        "pairs.jsonl",
        [{"system": "Be kind.", "prompt": f"cat {n}", "chosen": f"yes {n}", "rejected": "no"} for n in range(30)],
    )
    Path("blind.jinja").write_text(BLIND + ASKS)
    Path("whole.jinja").write_text(BLIND.replace(" if m.role != 'system'", "") + ASKS)


def codes(out):
    return {one["code"] for one in json.loads(out)["findings"]}


def test_a_check_reads_by_the_template_of_the_run_and_its_remedies_can_be_tried(cli, tiny_model, advised):
    model = {"name": str(tiny_model), "chat_template": "blind.jinja"}
    Path("my.yaml").write_text(yaml.safe_dump({"model": model, "data": {"train": "pairs.jsonl"}}))
    code, out, _ = cli("check", "--config", "my.yaml", "--json")
    assert code == 1
    assert "not_rendered" in codes(out)
    read = json.loads(out)["read"]
    assert (read["model"], read["model.chat_template"]) == (str(tiny_model), "blind.jinja")
    code, out, _ = cli("check", *typed(command("check", read))[2:], "--json")
    assert "not_rendered" in codes(out)
    for words in (["--config", "my.yaml"], ["pairs.jsonl", "--model", tiny_model]):
        code, out, _ = cli("check", *words, "--set", "model.chat_template=whole.jinja", "--json")
        assert code == 0
        assert "not_rendered" not in codes(out)
    assert cli("check", "pairs.jsonl", "--set", "loss.beta=1")[0] == 2
    code, _, err = cli("clean", "pairs.jsonl", "OUT", "--set", "model.name=x")
    assert (code, "only settings of data are read here" in err) == (2, True)


def test_a_starting_configuration_has_the_template_that_it_was_written_with_and_says_what_it_leaves_out(
    cli, tiny_model, advised
):
    blind = ["--model", tiny_model, "--set", "model.chat_template=blind.jinja"]
    code, out, err = cli("init", "pairs.jsonl", *blind, "-q")
    assert code == 0, err
    assert yaml.safe_load(out)["model"] == {"name": str(tiny_model), "chat_template": "blind.jinja"}
    assert "# not_rendered: 30 pairs, the chat template leaves out the system message; name one that writes" in out
    assert "tiebreak clean" not in out
    assert "with --model M" not in out


def test_what_a_model_has_no_positions_for_is_not_told_to_be_allowed_more(cli, tiny_gpt, here):
    saved("long.jsonl", [{"prompt": "cat " * 90, "chosen": f"yes {n}", "rejected": "no"} for n in range(9)])
    code, out, _ = cli("check", "long.jsonl", "--model", tiny_gpt, "-q")
    assert code == 1
    assert "set data.truncation: prompt_start, or raise data.max_length where the model has more positions" in out
    assert "once its findings are answered: in the file, or by --set" in " ".join(out.split())


@pytest.mark.parametrize("command", ["clean", "convert", "init"])
def test_nothing_is_made_of_a_file_without_a_pair(cli, here, command):
    saved("odd.jsonl", list(map(odd, range(3))))
    words = {"clean": ["OUT"], "convert": ["out.jsonl", "--to", "trl"], "init": []}[command]
    code, out, err = cli(command, "odd.jsonl", *words)
    assert (code, out) == (2, "")
    assert "odd.jsonl:1: found the keys 'in put'" in err or "no pair can be read" in err
    ((_, *words),) = printed(err)
    code, out, _ = cli(*words)
    assert code == 1
    assert "unusable" in out


def test_a_file_whose_pairs_are_all_set_aside_is_cleaned_to_nothing_and_says_so(cli, here):
    both = [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "chosen": "b", "rejected": "a"}]
    saved("pairs.jsonl", both)
    code, out, err = cli("clean", "pairs.jsonl", "OUT")
    assert (code, out) == (2, "")
    assert "no pair would be kept, nothing is written (contradiction 2 pairs" in err
    assert not Path("OUT").exists()


def test_a_report_says_how_its_data_was_read(cli, here):
    saved("a.jsonl", list(map(odd, range(9))))
    _, out, _ = cli("check", "a.jsonl", *ODD, "--min-margin", "1", "--json")
    read = json.loads(out)["read"]
    assert (read["train"], read["min_margin"], read["columns"]["winner"]) == ("a.jsonl", 1.0, "label")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"train": "a.jsonl"}, "tiebreak check a.jsonl"),
        ({"train": ("a.jsonl", "b.jsonl"), "pairing": "all"}, "tiebreak check a.jsonl b.jsonl --pairing all"),
        ({"train": "a", "max_length": 99, "truncation": "prompt_start"},
         "tiebreak check a --max-length 99 --set 'data.truncation=\"prompt_start\"'"),
        ({"train": "a", "columns": {"prompt": " p"}}, "tiebreak check a --set 'data.columns={\"prompt\": \" p\"}'"),
        ({"train": [{"path": "a", "weight": 2.0}]},
         "tiebreak check --set 'data.train=[{\"path\": \"a\", \"weight\": 2.0}]'"),
    ],
)  # fmt: skip
def test_a_command_says_what_is_not_the_default_and_gives_the_same_settings(settings, line):
    data = load_config(None, {f"data.{name}": value for name, value in settings.items()}).data
    assert command("check", reading(data)) == line
    words = typed(line)[2:]
    sets = [value for flag, value in pairwise(words) if flag == "--set"]
    options = {flag: name for name, flag in FLAGS.items()}
    given = {options[flag]: value for flag, value in pairwise(words) if flag in options}
    given = {name: int(value) if value.isdigit() else value for name, value in given.items()}
    paths = [word for word in words if not word.startswith("-") and word not in [*sets, *map(str, given.values())]]
    train = {"train": paths[0] if len(paths) == 1 else paths} if paths else {}
    assert load_data(None, sets, {**given, **train}) == data


def test_every_setting_of_reading_is_in_what_a_command_says():
    """A new setting of data is either read by no command, or a command can say it."""
    from tiebreak.config.commands import _READ_BY

    said = {name for names in _READ_BY.values() for name in names} | {"train"}
    said |= {"set_aside"}  # of held-out prompts, once a run has held them out
    said |= {"heldout_prompts"}  # of a loop of rounds, which writes the file for its runs
    said |= {"store"}  # of a start, which looks there first: what it reads is the same
    assert DataConfig.model_fields.keys() - said == set()


@pytest.mark.parametrize("word", [*NAMES, "", "a'b\\c", "tab\there", "é\x9b", "100%", "\\x41  \\"])
def test_a_quoted_word_is_itself_in_a_shell_and_shows_all_of_itself(word):
    assert typed(quoted(word)) == [word]
    assert quoted(word).isprintable()


def test_a_configuration_of_another_trainer_is_taken_over_and_checked(cli, here):
    saved("the pairs.jsonl", [{"prompt": f"the cat {n}", "chosen": f"yes {n}", "rejected": "no"} for n in range(30)])
    theirs = {
        "stage": "dpo",
        "cutoff_len": 64,
        "pref_beta": 0.3,
        "trust_remote_code": True,
        "dataset": "the pairs.jsonl",
    }
    Path("their.yaml").write_text(yaml.safe_dump(theirs))
    code, out, _ = cli("init", "--from", "their.yaml", "-o", "my own.yaml")
    assert code == 0
    assert "  trust_remote_code: left out, code of a model is never run" in out
    ((_, *words),) = printed(out)
    code, out, _ = cli(*words)
    assert (code, "30 pairs on 30 prompts" in out) == (0, True)
    code, out, _ = cli("init", "--from", "their.yaml", "--json", "other.jsonl")
    found = json.loads(out)
    assert (code, found["trainer"], yaml.safe_load(found["config"])["data"]["train"]) == (
        0,
        "LLaMA-Factory",
        "other.jsonl",
    )
    assert {"key": "loss.beta", "value": 0.3, "origin": "from pref_beta", "theirs": "pref_beta"} in found["taken"]
    code, out, _ = cli("init", "--from", "their.yaml", "--trainer", "trl")
    assert (code, out.splitlines()[0]) == (0, "# Written by 'tiebreak init' from their.yaml, a configuration of TRL.")


FOLLOWED = {
    "tiebreak config": "test_app: the printed configuration is one to start from",
    "tiebreak init": "no advice: who wrote a configuration",
    "tiebreak check": "no advice: where a setting's codes come from",
    "tiebreak clean FILE OUT": "no advice to paste: which file it is, the run's owner knows",
    "tiebreak check FILE --model MODEL": "the same",
    "tiebreak evaluate": "no advice to paste: of the run that watch was given",
    "tiebreak config > my.yaml": "test_app: the printed configuration is one to start from",
    "tiebreak train": "the quickstart, in the story",
    "tiebreak train {}": "here: from a file to an exported model",
    "tiebreak export {} --out my-model": "here: from a file to an exported model",
    "tiebreak evaluate {}": "here: from a file to an exported model",
    "tiebreak export {} --out {}": "test_rounds: what comes next after a loop",
    "tiebreak check {}": "test_review: from a link to the doctor and the gate",
    "tiebreak evaluate {} --set evaluation.num_samples=64": "test_review: a run without answers",
    "tiebreak check --config {}": "here: a configuration of another trainer",
}


def test_no_command_is_printed_that_is_not_followed_here():
    """Whoever writes a command into a message writes it with `command`, or names the test that runs it."""
    written = set()
    for file in Path(tiebreak.__file__).parent.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        told |= {id(each) for node in ast.walk(tree) if isinstance(node, ast.Call) and "examples" in ast.dump(node.func)
                 for each in node.args}  # fmt: skip
        parts = {id(each) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for each in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(each.value) if isinstance(each, ast.Constant) else "{}" for each in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told | parts:
                text = node.value
            else:
                continue
            written |= {found.strip() for found in re.findall(r"tiebreak (?:[a-z]+)(?: [-{>\w][^'` ]*)*", text)}
    verbs = [f"tiebreak {one}" for one in ("check", "clean", "convert", "init", "train", "plan", "evaluate", "report",
                                           "export", "chat", "config")]  # fmt: skip
    assert {line for line in written if line.startswith(tuple(verbs))} - FOLLOWED.keys() == set()


@pytest.mark.parametrize(
    "text", ["data: 5", "data: x.jsonl", "data: [a]", "data: {train: [1]}", "data:", "model: {name: x}"]
)
def test_a_configuration_without_data_is_refused_in_one_line(cli, here, text):
    Path("my.yaml").write_text(text)
    for words in (["check"], ["clean", "OUT"], ["convert", "o.jsonl", "--to", "trl"], ["init"]):
        code, out, err = cli(*words, "--config", "my.yaml")
        assert (code, out, err.count("\n")) == (2, "", 1), err
