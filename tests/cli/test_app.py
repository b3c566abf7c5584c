"""The command line: one line for every fault, an exit code, no stack trace, nothing left behind."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tiebreak.config import DataConfig, load_config
from tiebreak.errors import EXIT_FAILURE, EXIT_USAGE
from tiebreak.files import write_json, write_text
from tiebreak.reporting import console
from tiebreak.runs import Run

COMMANDS = ["train", "plan", "check", "clean", "convert", "init", "evaluate", "report", "export", "chat", "config"]
ESCAPES = "\x1b[31mred\x1b]0;title\x07 \x9b31m \u202egnp \x00"


@pytest.fixture
def refused(cli, here):
    """Run a command that has to fail in one line and leave the folder as it was; return that line."""

    def call(*words, exit_code: int = EXIT_USAGE) -> str:
        before = sorted(here.rglob("*"))
        code, out, err = cli(*words)
        assert code == exit_code, err
        lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
        assert len(lines) == 1, err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in out + err
        if "--json" in words:
            found = json.loads(out)
            assert found == {"error": found["error"], "message": lines[0][7:], "exit_code": exit_code}
        else:
            assert out == ""
        assert sorted(here.rglob("*")) == before
        return lines[0]

    return call


def row(number: int = 0, **changes) -> dict:
    return {"prompt": f"the cat {number}", "chosen": f"yes {number}", "rejected": "no"} | changes


def saved(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


@pytest.fixture
def pairs(here) -> Path:
    return saved(here / "pairs.jsonl", map(row, range(40)))


# --------------------------------------------------------------------------------------- what loads nothing, what helps

NO_TORCH = """
import sys
import tiebreak
from tiebreak.__main__ import main
sys.argv = ["tiebreak", *sys.argv[1:]]
try:
    main()
finally:
    heavy = {"torch", "transformers", "peft", "accelerate", "matplotlib", "numpy"} & set(sys.modules)
    print("loaded:", sorted(heavy))
"""


@pytest.mark.parametrize(
    ("words", "loaded"),
    [
        (["--help"], []),
        (["--version"], []),
        (["config"], []),
        (["train", "--help"], []),
        (["check", "--help"], []),
        (["check", "bundled", "--json"], ["numpy"]),
    ],
    ids=str,
)
def test_commands_that_compute_nothing_load_no_torch(words, loaded):
    done = subprocess.run([sys.executable, "-c", NO_TORCH, *words], capture_output=True, text=True, check=True)
    assert done.stdout.endswith(f"loaded: {loaded}\n")
    assert len(done.stdout) > len(f"loaded: {loaded}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_examples(cli, command):
    code, out, _ = cli(command, "--help")
    assert code == 0
    assert "Examples:" in out
    assert f"$ tiebreak {command}" in out


def test_the_help_lists_every_command(cli):
    code, out, _ = cli("--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize("words", [["trian"], ["check"], ["check", "--bogus", "a"], ["export", "runs/a"]])
def test_a_wrong_call_is_a_usage_error(cli, here, words):
    code, out, err = cli(*words)
    assert code == EXIT_USAGE
    assert out == ""
    assert err
    assert "Traceback" not in err
    assert not list(here.iterdir())


def test_the_installed_command_ends_in_one_line(here):
    done = subprocess.run(
        [sys.executable, "-m", "tiebreak", "check", "absent.jsonl"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (EXIT_USAGE, "")
    assert done.stderr == "error: absent.jsonl: no such file.\n"


# ---------------------------------------------------------------------------------------------------------------- check

BAD_FILES = {
    "empty": (b"", "holds no record"),
    "blank": (b"\n\n", "holds no record"),
    "damaged gzip": (gzip.compress(json.dumps(row()).encode())[:-4], ":1: the file is damaged here"),
    "gzip of noise": (b"\x1f\x8b" + b"\x00" * 40, "the file is damaged here"),
}
UNUSABLE_FILES = {
    "wrong shape": (b'{"shape": [], "colour": true}\n', "found the keys 'shape', 'colour'"),
    "not JSON": (b"{'prompt': 'a'}\n", "not JSON at column 2"),
    "escapes": (json.dumps({ESCAPES: 1}).encode(), "found the keys"),
    "binary": (bytes(byte for byte in range(256) if byte != 10), "is not UTF-8"),
}


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize(("content", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_of_pairs_is_refused(refused, here, content, words, flags):
    (here / "bad.jsonl").write_bytes(content)
    line = refused("check", "bad.jsonl", *flags)
    assert line.startswith("error: bad.jsonl")
    assert words in line
    assert line.isprintable()


@pytest.mark.parametrize(("content", "words"), UNUSABLE_FILES.values(), ids=UNUSABLE_FILES)
def test_a_file_without_a_usable_record_is_an_error_that_the_doctor_explains(cli, here, content, words):
    (here / "bad.jsonl").write_bytes(content)
    code, out, _ = cli("check", "bad.jsonl", "--json")
    found = json.loads(out)
    assert code == EXIT_FAILURE
    assert (found["num_records"], found["num_dropped"], found["num_pairs"]) == (1, 1, 0)
    assert found["findings"][0]["code"] == "unusable"
    example = found["findings"][0]["examples"][0]
    assert (example["file"], example["line"]) == ("bad.jsonl", 1)
    assert words in example["excerpt"]
    code, out, _ = cli("check", "bad.jsonl")
    assert code == EXIT_FAILURE
    assert out.replace("\n", "").isprintable()


def test_a_missing_file_is_refused_with_the_nearest_name(refused, pairs):
    assert refused("check", "pair.jsonl") == "error: pair.jsonl: no such file. Did you mean 'pairs.jsonl'?"


def test_check_accounts_for_every_record(cli, here):
    saved(here / "a.jsonl", [*map(row, range(17)), row(1), row(chosen=""), []])
    code, out, _ = cli("check", "a.jsonl", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["num_records"] == 20 == found["num_used_records"] + found["num_dropped"]
    assert (found["num_pairs"], found["num_duplicates"], found["num_prompts"]) == (18, 1, 17)
    assert found["dropped_by_reason"] == {"empty_completion": 1, "not_an_object": 1}
    told = {finding["code"]: finding for finding in found["findings"]}
    assert told["empty_completion"]["examples"][0] == {"file": "a.jsonl", "line": 19, "excerpt": "'chosen' is empty"}
    assert (told["duplicate"]["count"], told["duplicate"]["examples"][0]["line"]) == (1, 18)
    assert found["split"]["num_train_pairs"] + found["split"]["num_heldout_pairs"] == 18
    assert found["words"]["prompt"]["max"] == 3
    code, out, _ = cli("check", "a.jsonl")
    assert code == 0
    assert "20 records" in out
    assert "a.jsonl:19" in out


def test_check_exits_with_1_where_training_would_be_wrong(cli, here):
    turned = row(3, chosen=row(3)["rejected"], rejected=row(3)["chosen"])
    saved(here / "a.jsonl", [*map(row, range(9)), turned])
    code, out, _ = cli("check", "a.jsonl", "--json")
    (finding,) = [one for one in json.loads(out)["findings"] if one["severity"] == "error"]
    assert code == EXIT_FAILURE
    assert (finding["code"], finding["count"]) == ("contradiction", 2)
    assert [example["line"] for example in finding["examples"]] == [4, 10]


def test_findings_are_shown_where_their_page_cannot_be_written(cli, refused, here):
    saved(here / "a.jsonl", map(row, range(9)))
    (here / "file").write_text("")
    code, out, err = cli("check", "a.jsonl", "--html", "file/x.html")
    assert (code, err) == (EXIT_USAGE, "error: file/x.html: cannot be written (File exists)\n")
    assert "9 records" in out
    told = refused("check", "a.jsonl", "--json", "--html", "file/x.html")
    assert told == "error: file/x.html: cannot be written (File exists)"


def test_the_folder_of_a_page_is_made(cli, here):
    saved(here / "a.jsonl", map(row, range(9)))
    code, out, _ = cli("check", "a.jsonl", "--html", "new/folder/x.html")
    assert (code, out.splitlines()[-1]) == (0, "page: new/folder/x.html")
    assert (here / "new" / "folder" / "x.html").is_file()


def test_a_configuration_for_a_held_out_file_is_one_to_start_from(cli, here):
    saved(here / "p.jsonl", map(row, range(9)))
    saved(here / "h.jsonl", map(row, range(20, 23)))
    code, out, _ = cli("init", "p.jsonl", "--heldout", "h.jsonl")
    (here / "my.yaml").write_text(out, encoding="utf-8")
    found = load_config(here / "my.yaml").data
    assert (code, found.train, found.heldout) == (0, "p.jsonl", "h.jsonl")
    assert "heldout_share" not in out


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--min-margin", "-1", "data.min_margin: found -1.0; input should be greater than or equal to 0"),
        ("--heldout-share", "1", "data.heldout_share: found 1.0; input should be less than 1"),
        ("--max-length", "3", "data.max_length: found 3; input should be greater than or equal to 8"),
        (
            "--pairing",
            "some",
            "data.pairing: found 'some'; "
            "input should be 'best_worst', 'best_second', 'best_random', 'all', 'none' or 'good'",
        ),
    ],
)
def test_an_option_of_a_setting_has_the_range_of_the_setting(refused, pairs, option, value, told):
    assert refused("check", "pairs.jsonl", option, value) == f"error: command line: {told}"


def test_the_help_of_an_option_is_that_of_its_setting(cli):
    _, out, _ = cli("check", "--help")
    words = " ".join(out.replace("│", " ").split())
    for name in ("format", "pairing", "min_margin", "heldout_share", "max_length"):
        field = DataConfig.model_fields[name]
        assert field.description in words
        assert f"[default: ({field.default})]" in words


def test_a_conversion_that_can_say_no_pair_is_refused(refused, here):
    saved(
        here / "a.jsonl",
        [
            row(
                prompt=[{"role": "developer", "content": "x"}, {"role": "user", "content": "y"}],
                chosen=[{"role": "assistant", "content": "a"}],
                rejected=[{"role": "assistant", "content": "b"}],
            )
        ],
    )
    line = refused("convert", "a.jsonl", "b.jsonl", "--to", "hh")
    assert line.startswith("error: a.jsonl:1: the 'hh' form has no place for a developer message")


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["text", "json"])
def test_escape_sequences_in_data_never_reach_the_terminal(cli, here, flags):
    name = "a\x1b[2J\x9b1m\u202e.jsonl"
    rows = [
        *map(row, range(3)),
        {ESCAPES: ESCAPES},
        row(prompt=[{"role": ESCAPES, "content": "x"}]),
        row(chosen={ESCAPES: 1}),
    ]
    saved(here / name, rows)
    code, out, err = cli("check", name, *flags)
    assert code == EXIT_FAILURE  # half of the records are unusable
    shown = (out + err).replace("\n", "")
    assert shown.isprintable()
    if flags:
        assert json.loads(out)["files"][0]["path"] == name


def test_hostile_answers_and_warnings_are_shown_as_text(capsys, here):
    side = {"text": ESCAPES + "[bold]", "num_tokens": 1, "finished": True}
    sample = {"prompt": [{"role": "user", "content": ESCAPES}], "before": side, "after": side | {"matches_rule": True}}
    console.print_evaluation({"table": [], "verdict": "fail", "reason": ESCAPES}, [sample])
    console.print_text(ESCAPES)
    for tell in (console.Console().say, console.Console().warn):
        tell(f"[red]{ESCAPES}")
    shown = capsys.readouterr()
    assert (shown.out + shown.err).replace("\n", "").isprintable()
    assert "[bold]" in shown.out
    assert "[red]" in shown.err


def test_a_path_that_is_not_utf_8_can_be_shown(cli, here):
    name = os.fsdecode(b"\xff.jsonl")
    saved(here / name, map(row, range(3)))
    for flags in ([], ["--json"]):
        code, out, _ = cli("check", name, *flags)
        assert code == 0
        assert "\\udcff" in out or "\\xdcff" in out


# --------------------------------------------------------------------------------------------------------------- config


def test_a_bad_configuration_is_refused(refused, here):
    write_text(here / "my.yaml", "loss: {bta: 0.2}\n")
    for command in (["train"], ["train", "--json"], ["config"], ["config", "--json"]):
        line = refused(command[0], "my.yaml", *command[1:])
        assert line == "error: my.yaml: unknown key 'loss.bta'. Did you mean 'loss.beta'?"
    assert "no such file" in refused("train", "other.yaml")
    assert "training.epochs: found 'two'" in refused("config", "--set", "training.epochs=two")
    assert "wanted KEY=VALUE" in refused("config", "--set", "training.epochs", "--json")
    write_text(here / "my.yaml", "loss: [\n\x1b")
    assert refused("train", "my.yaml").isprintable()


def test_the_printed_configuration_is_one_to_start_from(cli, here):
    _, described, _ = cli("config")
    write_text(here / "my.yaml", described)
    code, resolved, _ = cli("config", "my.yaml", "--set", "loss.beta=0.3")
    assert code == 0
    write_text(here / "my.yaml", resolved)
    _, out, _ = cli("config", "my.yaml", "--json")
    assert json.loads(out)["loss"]["beta"] == 0.3


def test_a_printed_configuration_has_the_values_that_it_was_made_of(here):
    value = "\N{ZERO WIDTH NON-JOINER}می\N{ZERO WIDTH NON-JOINER}روم"
    done = in_a_shell(f"tiebreak config --set 'output.dir={value}' > my.yaml", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert load_config(here / "my.yaml").output.dir == value


THEIRS = "dataset_name: org/pairs\nbeta: 0.2\n"


@pytest.mark.parametrize(
    ("flags", "option"),
    [
        (["--model", "m"], "--model"),
        (["--heldout", "h.jsonl"], "--heldout"),
        (["--format", "trl"], "--format"),
        (["--column", "prompt=q"], "--column"),
        (["--pairing", "all"], "--pairing"),
        (["--min-margin", "0"], "--min-margin"),
        (["--set", "data.max_length=9"], "--set"),
        (["--config", "my.yaml"], "--config"),
    ],
)
def test_an_option_that_taking_over_does_not_read_is_refused(refused, here, flags, option):
    write_text(here / "their.yaml", THEIRS)
    assert f"{option}: is not read beside --from" in refused("init", "--from", "their.yaml", *flags)


def test_a_trainer_is_named_only_of_a_configuration(refused, pairs):
    assert "--trainer: says whose configuration --from names" in refused("init", pairs, "--trainer", "trl")


@pytest.mark.parametrize(
    "words",
    [
        ["check", "pairs.jsonl", "--column", "prompt=a", "--column", "prompt=b"],
        ["clean", "pairs.jsonl", "cleaned", "--do", "contradiction=reject", "--do", "contradiction=warn"],
        ["promote", "run", "--override", "longer=one", "--override", "longer=two"],
    ],
)
def test_a_name_that_is_given_twice_is_refused(refused, pairs, words):
    assert "is given twice; keep the one that is meant" in refused(*words)


@pytest.mark.parametrize(
    "command", [["check"], ["clean", "cleaned"], ["convert", "new.jsonl", "--to", "trl"], ["init"]]
)
def test_pairs_of_a_file_of_rounds_are_asked_about(refused, here, command):
    write_text(here / "loop.yaml", "rounds: {count: 2}\n")
    told = refused(*command, "--config", "loop.yaml")
    assert "loop.yaml: has rounds, each of which makes its own pairs; name files here" in told


def test_a_pattern_that_yaml_made_another_one_is_refused(refused, here):
    write_text(here / "my.yaml", 'evaluation:\n  rule:\n    pattern: "\\bno\\b"\n')
    assert "holds a backspace (U+0008)" in refused("config", "my.yaml")


# ------------------------------------------------------------------------------------------------------------ encodings


def in_a_shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = command.replace("tiebreak", f"{sys.executable} -m tiebreak")
    done = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, check=False, env=dict(os.environ) | environment
    )
    out, err = (shown.decode("utf-8", "replace") for shown in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(script, done.returncode, out, err)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_text_that_the_terminal_lacks_is_escaped(here, encoding):
    value = "été \N{CJK UNIFIED IDEOGRAPH-4F60} \N{GRINNING FACE}"
    done = in_a_shell(f"tiebreak config --set 'output.dir={value}' --json", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["output"]["dir"] == value
    shown = in_a_shell(f"tiebreak config --set 'output.dir={value}'", PYTHONIOENCODING=encoding)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"dir: {value}" in shown.stdout  # what a file is made of is UTF-8, as configurations are read
    refused = in_a_shell(f"tiebreak check '{value}.jsonl'", PYTHONIOENCODING=encoding)
    assert refused.returncode == EXIT_USAGE
    assert value.encode(encoding, "backslashreplace").decode("utf-8", "replace") in refused.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_the_caller_closed_is_no_fault(here, closed):
    done = in_a_shell(f"tiebreak config --json {closed}")
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) is (">&-" not in closed.replace("2>&-", ""))
    assert in_a_shell(f"tiebreak check absent.jsonl {closed}").returncode == EXIT_USAGE


# ----------------------------------------------------------------------------------------------------------------- runs


@pytest.fixture
def unfinished(here) -> Path:
    made = Run(here / "runs" / "half")
    made.path.mkdir(parents=True)
    write_json(made.path / "run.json", {"status": "running"})
    return made.path


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize(
    "command", [["evaluate"], ["report"], ["export", "--out", "made"], ["chat", "-p", "Hi"]], ids=lambda words: words[0]
)
def test_a_run_that_is_none_is_refused(refused, unfinished, command, flags):
    verb, *more = command
    assert "runs/none: no such run folder" in refused(verb, "runs/none", *more, *flags)
    if verb != "report":  # of a folder of runs it makes a page over all of them
        assert "runs: holds no run.json" in refused(verb, "runs", *more, *flags)
    assert "the run is 'running' and holds no trained policy" in refused(verb, "runs/half", *more, *flags)
    write_text(unfinished / "run.json", "[]")
    assert "run.json: cannot be read" in refused(verb, "runs/half", *more, *flags)


def test_chat_as_json_needs_a_prompt(refused, unfinished):
    (unfinished / "policy").mkdir()
    assert "needs --prompt TEXT" in refused("chat", "runs/half", "--json")


# -------------------------------------------------------------------------------------------------- models and training


def train_words(model: object, pairs: Path, *more: str) -> list[str]:
    write_text(Path("my.yaml"), "{}\n")
    changes = [
        f"model.name={json.dumps(str(model))}", "model.device=cpu", f"data.train={pairs}", "data.heldout_share=0.3",
        "data.max_length=96", "adapter.rank=2", "evaluation.num_samples=2", "evaluation.max_new_tokens=4",
        "evaluation.probes=1", "evaluation.neutral_probe=false", "evaluation.num_draws=0", "output.trackers=[]", *more,
    ]  # fmt: skip
    return ["train", "my.yaml", "--quiet", *(word for change in changes for word in ("--set", change))]


@pytest.fixture
def broken(tiny_model, tmp_path):
    """A copy of the tiny model without some of its files."""

    def copy(*without: str) -> Path:
        folder = tmp_path / "broken"
        shutil.copytree(tiny_model, folder)
        for pattern in without:
            found = list(folder.glob(pattern))
            assert found, pattern
            for file in found:
                file.unlink()
        return folder

    return copy


class Canary:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("unpickled").absolute(),))


def test_a_model_that_is_not_there_is_refused(refused, pairs):
    assert "no such folder" in refused(*train_words("./none", pairs))
    assert "neither config.json nor adapter_config.json" in refused(*train_words(".", pairs))
    assert "Did you mean 'smollm2-135m-instruct'" in refused(*train_words("smollm2-135m", pairs), "--json")


def test_a_model_without_a_tokenizer_is_refused(refused, pairs, broken):
    assert "holds no tokenizer that loads" in refused(*train_words(broken("tokenizer*", "*.jinja"), pairs))


def test_a_model_without_a_chat_template_is_refused(refused, pairs, broken):
    line = refused(*train_words(broken("*.jinja"), pairs), "--json")
    assert "has no chat template; name a Jinja file as model.chat_template" in line


def test_a_model_without_weights_is_refused(refused, pairs, broken):
    assert "cannot be loaded" in refused(*train_words(broken("*.safetensors"), pairs))


def test_pickled_weights_are_never_loaded(refused, pairs, broken, here):
    import torch

    folder = broken("*.safetensors")
    torch.save({"lm_head.weight": Canary()}, folder / "pytorch_model.bin")
    assert "cannot be loaded" in refused(*train_words(folder, pairs))
    assert not (here / "unpickled").exists()


def test_damaged_weights_are_refused(refused, pairs, broken):
    folder = broken()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert "cannot be loaded" in refused(*train_words(folder, pairs))


def test_an_adapter_without_safetensors_is_refused(refused, pairs, tiny_model, here, tmp_path):
    import torch

    adapter = tmp_path / "adapter"
    adapter.mkdir()
    kind = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(tiny_model), "r": 2,
            "target_modules": ["q_proj"]}  # fmt: skip
    write_json(adapter / "adapter_config.json", kind)
    torch.save({"x": Canary()}, adapter / "adapter_model.bin")
    assert "holds no adapter_model.safetensors; pickled weights are never loaded" in refused(
        *train_words(adapter, pairs)
    )
    assert not (here / "unpickled").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("output.trackers=[nosuch]", "output.trackers: 'nosuch' is not known; choose from"),
        ("evaluation.rule={pattern: '('}", "evaluation.rule.pattern: found '('; not a regular expression"),
        ("data.train=none.jsonl", "none.jsonl: no such file"),
        ("data.heldout=none.jsonl", "none.jsonl: no such file"),
        ("data.format=openai", "not in the 'openai' form"),
        ("data.max_length=8", "no pair is left to train on"),
        ("data.heldout_share=0.001", "no pair is held out to measure on"),
        ("model.chat_template=none.jinja", "model.chat_template none.jinja: cannot be read"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_a_run_folder_is_made(
    refused, tiny_model, pairs, here, change, words
):
    assert words in refused(*train_words(tiny_model, pairs, change))
    assert not (here / "runs").exists()


def test_a_template_that_raises_stops_before_a_run_folder_is_made(refused, tiny_model, pairs, here):
    write_text(here / "t.jinja", "{{ raise_exception('no\x1b[31m ' + messages[0]['role']) }}")
    line = refused(*train_words(tiny_model, pairs, "model.chat_template=t.jinja"))
    assert "the chat template refuses the messages" in line
    assert line.isprintable()


def test_a_folder_that_is_no_run_is_left_alone(refused, tiny_model, pairs):
    assert "is not empty and not a run" in refused(*train_words(tiny_model, pairs, "output.dir=."))


def test_a_plan_says_what_fits_and_makes_no_run(cli, tiny_model, pairs, here):
    words = ("plan", "--set", f"model.name={tiny_model}", "--set", f"data.train={pairs}", "--set", "data.max_length=64")
    before = sorted(here.rglob("*"))
    code, out, _ = cli(*words, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["token_budget"] >= found["longest_pair"] > 0
    assert found["peak_bytes"] < found["available_bytes"]
    code, out, err = cli(*words)
    assert code == 0
    told = f"micro-batches of at most {found['token_budget']} tokens"
    assert told in out
    assert told not in err
    code, out, err = cli(*words, "--quiet")
    assert (code, err) == (0, "")
    assert told in out
    assert sorted(here.rglob("*")) == before


def test_a_plan_for_gpus_that_are_not_here_reads_neither_weights_nor_data(cli, refused, tiny_model, here):
    (here / "model").mkdir()
    (here / "model" / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
    words = ("plan", "--gpus", "16", "--model", "model", "--set", "data.train=none.jsonl")
    code, out, err = cli(*words, "--gpu", "a100", "--strategy", "hsdp", "--pair-tokens", "100", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["strategy"], found["shares"], found["gpu"]["name"], found["pair_tokens"]) == ("hsdp", 8, "a100", 100)
    assert {one["what"] for one in found["sent"]} == {"all-gather", "reduce-scatter", "all-reduce"}
    code, out, _ = cli(*words, "--quiet")
    assert code == 0
    assert "16 × h200 in 2 machines" in out
    assert "strategy ddp: all fits into each process" in out
    assert "single: 16 processes were started" in refused(*words, "--strategy", "single", "--quiet")
    assert "say how many with --gpus" in refused("plan", "--gpu", "h100")


def test_a_run_is_trained_judged_and_exported_once(cli, refused, tiny_model, pairs, here, monkeypatch):
    """One small run, and what is refused afterwards."""
    words = train_words(tiny_model, pairs)
    code, out, err = cli(*words, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["run"] == "runs/my"
    assert found["status"] == "done"
    assert found["evaluation"]["verdict"] == found["verdict"]
    assert "holds a finished run with other settings (loss.beta)" in refused(*words, "--set", "loss.beta=0.2", "--json")
    taken = here / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    assert "taken: exists and is not an empty folder" in refused("export", "runs/my", "--out", "taken", "-q")
    empty = here / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    with monkeypatch.context() as patch:
        patch.setattr(
            "tiebreak.training.trained.load_trained", pytest.fail
        )  # refused before a model is loaded for nothing
        assert "the folder that this command runs in" in refused("export", "../runs/my", "--out", ".", "--json", "-q")
        for temperature in ("inf", "1e-40"):
            line = refused("chat", "../runs/my", "-p", "Hi", "--temperature", temperature, "--json")
            assert f"temperature {temperature}: wanted 0, which is greedy" in line
    monkeypatch.chdir(here)
    monkeypatch.setenv("TIEBREAK_FAULT", "int@export")
    code, out, err = cli("export", "runs/my", "--out", "made", "--quiet", "--json")
    told = {"error": "Interrupted", "message": "interrupted; what was finished before is kept", "exit_code": 130}
    assert (code, json.loads(out), err) == (130, told, f"stopped: {told['message']}\n")
    monkeypatch.delenv("TIEBREAK_FAULT")
    code, out, _ = cli("export", "runs/my", "--out", "made", "--quiet", "--json")
    assert code == 0
    assert json.loads(out)["form"] == "merged"
    shutil.rmtree(here / "runs" / "my" / "policy")
    assert "holds no trained policy" in refused("evaluate", "runs/my")


def test_a_fault_of_the_machine_is_one_line_too(refused):
    assert "File name too long" in refused("check", "x" * 300)


def test_an_option_with_a_tilde_behind_its_equals_sign_means_the_home(cli, here, monkeypatch):
    (here / "home").mkdir()
    monkeypatch.setenv("HOME", str(here / "home"))
    code, _, err = cli("init", "bundled", "--out=~/my.yaml")
    assert code == 0, err
    assert (here / "home" / "my.yaml").is_file()
    assert not (here / "~").exists()
