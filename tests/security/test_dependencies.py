"""Promise: what tiebreak runs on is what was tested, fits together, and may be used by everybody."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "dependencies.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("dependencies_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_package_that_tiebreak_needs_is_under_a_licence_that_spreads(script):
    needed = script.runtime()
    assert {"torch", "transformers", "jinja2", "urllib3"} <= needed.keys()
    assert not {"pytest", "trl", "ruff", "tiebreak"} & needed.keys()
    wrong = [one for one in script.licences(needed) if one.state == "wrong"]
    assert wrong == []


@pytest.mark.parametrize(
    ("licence", "verdict"),
    [
        ("MIT", "permissive"), ("Apache-2.0 OR BSD-3-Clause", "permissive"), ("MPL-2.0", "permissive"),
        ("Apache-2.0 AND CNRI-Python", "permissive"), ("GPL-3.0-or-later", "copyleft"), ("AGPL-3.0-only", "copyleft"),
        ("GNU General Public License v3 (GPLv3)", "copyleft"), ("MIT AND GPL-2.0-only", "copyleft"),
        ("MIT OR GPL-2.0-only", "permissive"), ("LGPL-2.1-or-later", "permissive"), ("CC-BY-NC-4.0", "copyleft"),
        ("GNU Lesser General Public License v2 (LGPLv2)", "permissive"), ("SSPL-1.0", "copyleft"), ("", "unknown"),
        ("Proprietary", "unknown"), ("GNU Affero General Public License v3", "copyleft"),
        ("BSD License / GNU General Public License v2", "permissive"),
    ],
)  # fmt: skip
def test_licences_are_told_apart(script, licence, verdict):
    assert script.judged(licence) == verdict


def test_the_script_finds_a_version_that_was_not_tested(script, tmp_path):
    file = tmp_path / "constraints.txt"
    file.write_text("# a comment\nJinja2==0.1  # old\nnumpy==1\n")
    assert script.tested_versions(file.read_text()) == {"jinja2": "0.1", "numpy": "1"}
    needed = {name: one for name, one in script.runtime().items() if name in ("jinja2", "markupsafe")}
    found = list(script.versions(needed, file))
    assert [one.state for one in found] == ["wrong", "wrong"]
    assert "jinja2" in found[0].detail
    assert "markupsafe" in found[1].detail


def test_the_script_reports_as_json_and_says_where_nobody_looked(script):
    done = subprocess.run([sys.executable, SCRIPT, "--json"], capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    states = {one["check"]: one["state"] for one in found["findings"]}
    assert states["pip check"] == "ok"
    assert states["known vulnerabilities"] in ("ok", "skipped", "wrong")
    assert done.returncode == any(one["state"] == "wrong" for one in found["findings"])
