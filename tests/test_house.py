"""The house keeps its own rules: floors, readers of settings, honest help, a README that tells the truth."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import tiebreak
from tiebreak import api
from tiebreak import config as settings
from tiebreak.cli.app import app
from tiebreak.config.losses.gaps import Dpo
from tiebreak.faults import ACTIONS, POINTS
from tiebreak.maths.objectives import OBJECTIVES
from tiebreak.training import resumption

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "tiebreak"
SOURCES = sorted(PACKAGE.rglob("*.py"))
COMMANDS = (
    "train", "plan", "check", "clean", "convert", "init", "evaluate", "gate", "judge", "report", "export", "chat",
    "config", "losses", "promote", "rollback", "history", "compare", "watch", "why", "serve",
    "review",
)  # fmt: skip


def test_every_module_imports():
    for module in pkgutil.walk_packages(tiebreak.__path__, "tiebreak."):
        if module.name != "tiebreak.__main__":
            importlib.import_module(module.name)


def test_imports_only_go_down():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_command_can_say_how_it_ended_before_a_library_is_loaded():
    """An interruption in the first moments is one line, too: next to nothing is loaded outside of the last handler."""
    code = "import tiebreak.__main__, sys; print(*sorted(name for name in sys.modules if name.startswith('tiebreak')))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert loaded == [
        "tiebreak",
        "tiebreak.__main__",
        "tiebreak.cli",
        "tiebreak.cli.process",
        "tiebreak.training",
        "tiebreak.training.interpreter",
        "tiebreak.training.waiting",
    ]


def test_the_package_gives_what_its_library_gives():
    assert tiebreak.__all__ == api.__all__
    assert all(getattr(tiebreak, name) is getattr(api, name) for name in tiebreak.__all__)
    with pytest.raises(AttributeError, match="no attribute 'evaluation_of'"):
        _ = tiebreak.evaluation_of


# The last one reads the pairs, which takes a second, before it loads what computes, which takes several.
@pytest.mark.parametrize("statement", ["import tiebreak.api", "import tiebreak.cli.app", "import tiebreak.verbs.train"])
def test_the_package_and_its_help_load_no_torch(statement):
    code = f"import sys; {statement}; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_setting_has_a_reader_outside_the_configuration():
    nodes = [
        node
        for path in SOURCES
        if path.parent.name != "config"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    ]
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    # A formula reads its settings as keyword-only parameters (tests/maths/objectives/test_table.py holds them equal).
    parameters = {f"loss.{arg.arg}" for formula in OBJECTIVES.values() for arg in _keywords(formula.losses)}
    unread = [key for key, _ in settings.leaves() if key.rsplit(".", 1)[-1] not in read and key not in parameters]
    assert unread == []


def _keywords(formula) -> list[ast.arg]:
    source = ast.parse(textwrap.dedent(inspect.getsource(formula)))
    return [arg for node in ast.walk(source) if isinstance(node, ast.FunctionDef) for arg in node.args.kwonlyargs]


def test_every_setting_is_described_and_shown():
    shown = settings.describe_config()
    for key, field in settings.leaves():
        assert field.description, key
        of_another = key.startswith("loss.") and key.removeprefix("loss.") not in Dpo.model_fields
        if not (
            of_another
            or key.startswith(("evaluation.rule.", "evaluation.judge.", "evaluation.lm_eval.", "reference.moves."))
            or key.startswith("quantization.")
        ):
            assert field.description in shown, key


def test_the_printed_defaults_are_the_defaults(tmp_path):
    path = tmp_path / "all.yaml"
    path.write_text(settings.describe_config(), encoding="utf-8")
    assert settings.load_config(path, {"output.dir": "x"}) == settings.load_config(None, {"output.dir": "x"})


def test_all_public_names_exist():
    assert sorted(tiebreak.__all__) == tiebreak.__all__
    for name in tiebreak.__all__:
        assert getattr(tiebreak, name)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_examples_and_json(command):
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0
    assert "Examples" in shown.output
    assert "--json" in shown.output


def test_the_readme_names_only_commands_and_files_that_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    used = set(re.findall(r"^\s*tiebreak (\w+)", readme, re.MULTILINE))
    assert used <= set(COMMANDS), used
    made = set(re.findall(r"(?:^|`)make ([\w-]+)", readme, re.MULTILINE))
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"quickstart", "test", "test-quick", "test-all"} <= made <= set(targets)
    for link in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (ROOT / link).exists(), link


def test_every_package_names_its_files_and_the_readme_every_room():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in SOURCES:
        package = path.parent / "__init__.py"
        if path.parent == PACKAGE:
            continue
        told = ast.get_docstring(ast.parse(package.read_text(encoding="utf-8"))) or ""
        if path.name != "__init__.py":
            assert re.search(rf"\b{path.stem}\b", told), f"{package} does not name {path.name}"
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    for room in rooms:
        assert re.search(rf"^  {room}/ ", readme, re.MULTILINE), f"README.md does not name {room}/"


def test_documents_say_of_the_floors_what_is_proven():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [layer.split(" : ") for layer in contracts[0]["layers"]]
    floor = {room: number for number, layer in enumerate(layers) for room in layer}
    tree = (ROOT / "README.md").read_text().partition("src/tiebreak/\n")[2].partition("\ntests/")[0]
    told = [name.removesuffix(".py") for name in re.findall(r"^  (\w+(?:\.py)?)/? ", tree, re.MULTILINE)]
    floors = [floor[name] for name in told if name != "bundled"]
    assert floors == sorted(floors), told
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("From the ground:")[2].partition("Only `engine`")[0]
    named = re.findall(r"`(\w+)`", text)
    assert [floor[name] for name in named] == sorted((floor[name] for name in named), reverse=True), named
    assert set(named) == floor.keys() - {"__main__"}
    apart = next(one for one in contracts if "transformers" in one["name"])["source_modules"]
    assert set(apart) == {f"tiebreak.{name}" for name in floor if name != "engine"}


def test_documents_count_the_objectives_and_name_every_fault_and_every_free_setting():
    num = f"{len(OBJECTIVES) - 1}"
    assert f"The {num} other objectives" in (ROOT / "README.md").read_text()
    assert f"{num} objectives beside" in (ROOT / "CHANGELOG.md").read_text()
    text = (ROOT / "docs" / "reliability.md").read_text()
    free = [f"{name}*" if name.endswith(".") else name for name in resumption._FREE]
    assert [name for name in (*ACTIONS, *POINTS, *free) if f"`{name}`" not in text] == []


def test_the_root_of_the_package_stays_a_hall():
    # Twelve; one more since files, seals and runs are three sentences about one folder, used on every floor; and one
    # since the package itself loads nothing, so that the library has a module of its own.
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= 14


def test_no_room_is_called_by_what_it_is_made_of():
    vague = {"utils", "helpers", "common", "manager", "handler", "base", "misc"}
    assert not vague & {path.stem for path in SOURCES} | vague & {path.parent.name for path in SOURCES}


def test_a_command_a_function_and_a_file_have_one_name():
    verbs = {path.stem for path in (PACKAGE / "verbs").glob("*.py")} - {"__init__"}
    # The command config prints settings; what a program wants of them is load_config. Campaigns are made of verbs.
    campaigns = {"sweep", "rounds"}
    doors = {"serve", "review"}  # programs that others ask, and no functions that return
    assert verbs == set(COMMANDS) - {"config"} - campaigns - doors
    for name in campaigns:
        assert callable(getattr(tiebreak, name))
        assert callable(getattr(importlib.import_module(f"tiebreak.campaigns.{name}"), name))
    for verb in verbs:
        module = importlib.import_module(f"tiebreak.verbs.{verb}")
        assert callable(getattr(tiebreak, verb)), verb
        assert verb in tiebreak.__all__
        assert verb == "chat" or callable(getattr(module, verb)), verb


def test_functions_and_files_stay_small():
    long_files = [path.name for path in SOURCES if len(path.read_text(encoding="utf-8").splitlines()) > 330]
    assert long_files == []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 55, f"{path.name}: {node.name}"


def test_no_path_of_a_machine_is_in_the_project():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in listed:
        path = ROOT / name
        if path.is_file() and path.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".json", ""}:
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not re.search(r"/(work|home|root|Users)/\w", text), name


def test_the_quickstart_is_valid_and_safe():
    config = settings.load_config(tiebreak.QUICKSTART)
    assert settings.warnings_of(config) == []
    assert yaml.safe_load(tiebreak.QUICKSTART.read_text(encoding="utf-8"))["data"]["train"] == "bundled"


def test_the_bundled_pairs_are_what_the_readme_says():
    found = tiebreak.check("bundled").as_dict()
    assert found["num_dropped"] == 0
    assert found["num_duplicates"] == 0
    assert found["num_pairs"] >= 240
    assert found["num_prompts"] >= 200
    assert found["severities"]["error"] == 0
    # The preference is of whom the answer speaks: length must not give it away.
    assert 0.4 < found["chosen_longer_share"] < 0.6


def test_at_most_a_quarter_of_all_functions_are_private_with_one_caller():
    counted = subprocess.run(
        [sys.executable, ROOT / "scripts" / "house.py", "--most", "25"], capture_output=True, text=True, check=False
    )
    assert counted.returncode == 0, counted.stdout + counted.stderr


def test_nobody_but_verbs_and_what_opens_a_run_holds_a_whole_configuration():
    # A run reads its own back; resumption compares it with the one at hand; trained hands its sections to the engine;
    # settled refuses it before anything is read; attempt is the half of the verb train that needs torch; what a
    # campaign plans is whole configurations, and what translate makes of a request is one.
    allowed = {"opening.py", "resumption.py", "trained.py", "runs.py", "attempt.py", "settled.py", "campaign.py"}
    allowed |= {"translate.py"}
    holding = {
        path
        for path in SOURCES
        if path.parent.name not in ("config", "verbs", "cli") and path.parent != PACKAGE and path.name not in allowed
        if re.search(r":\s*Config\b", path.read_text(encoding="utf-8"))
    }
    assert holding == set()
