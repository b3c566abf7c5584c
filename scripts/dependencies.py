"""Look at what is installed beside tiebreak: does it fit together, is it what was tested, may it be used, is it safe?

    python scripts/dependencies.py                 # all four; exit 1 where something is wrong
    python scripts/dependencies.py --json

Owns what is looked at. Licences are read from the packages' own metadata, of the packages that `tiebreak` needs to run
and no others. Known vulnerabilities are asked of pip-audit, where that is installed and a network answers; where not,
the report says that nobody looked. Nothing is installed or changed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PACKAGE = "tiebreak"
AUDIT_SECONDS = 300

# Licences that ask something of whoever passes on what is built with them. The LGPL allows use as a library.
_COPYLEFT = re.compile(r"\bA?GPL|\bSSPL|\bCC-BY-(?:NC|SA)|General Public Licen[sc]e|BUSL|Commons Clause", re.IGNORECASE)
_ALLOWED_COPYLEFT = re.compile(
    r"L(?:esser )?GPL|Lesser General|Library General|with (?:GCC|Classpath|Bootloader)", re.IGNORECASE
)
_PERMISSIVE = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software|CNRI|MPL|Mozilla|Unlicense|Zlib|HPND|0BSD|Public Domain|CC0|Boost|BSL-1",
    re.IGNORECASE,
)
_NVIDIA = re.compile(r"^(nvidia-|cuda-|triton)")
"""Come with the CUDA builds of torch, under NVIDIA's own terms, and are not passed on by us."""


class Finding(NamedTuple):
    """One thing that was looked at: `ok`, `wrong`, `skipped`, and why."""

    check: str
    state: str
    detail: str


def main() -> None:
    """Look, report, and exit with 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--constraints", type=Path, default=ROOT / "constraints.txt", help="versions that were tested")
    wanted = parser.parse_args()
    needed = runtime()
    found = [consistency(), *versions(needed, wanted.constraints), *licences(needed), vulnerabilities()]
    show = _as_json if wanted.json else _as_text
    print(show(found, needed))
    sys.exit(any(one.state == "wrong" for one in found))


def runtime(root: str = PACKAGE) -> dict[str, metadata.Distribution]:
    """Return every installed distribution that `root` needs to run, by name, `root` left out."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [(root, frozenset[str]())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        waiting += [
            (str(canonicalize_name(one.name)), frozenset(one.extras)) for one in _requirements(found[name], extras)
        ]
    found.pop(root, None)
    return dict(sorted(found.items()))


def _requirements(distribution: metadata.Distribution, extras: frozenset[str]) -> Iterator[Requirement]:
    for text in distribution.requires or ():
        one = Requirement(text)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield one


# ----------------------------------------------------------------------------------------------------------- four looks


def consistency() -> Finding:
    """Say whether every installed package has what it asks for."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    said = " ".join((done.stdout + done.stderr).split())
    return Finding("pip check", "wrong" if done.returncode else "ok", said[:500])


def versions(needed: dict[str, metadata.Distribution], constraints: Path) -> Iterator[Finding]:
    """Compare what is installed with the versions that were tested."""
    tested = tested_versions(constraints.read_text(encoding="utf-8"))
    other = [
        f"{name} {one.version} (tested: {tested[name]})"
        for name, one in needed.items()
        if name in tested and Version(one.version).public != tested[name]
    ]
    # A new environment brings installers of its own; which ones makes no difference to what runs.
    loose = {"pip", "setuptools", "wheel"}
    unknown = [name for name in needed if name not in tested and name not in loose and not _NVIDIA.match(name)]
    yield Finding("versions", "wrong" if other else "ok", ", ".join(other) or f"{len(needed)} packages as tested")
    if unknown:
        yield Finding("versions", "wrong", f"in no line of {constraints.name}: {', '.join(unknown)}")


def tested_versions(text: str) -> dict[str, str]:
    """Return the pinned version of each package of a file of constraints."""
    pins = (line.split("#")[0].strip().partition("==") for line in text.splitlines())
    return {str(canonicalize_name(name)): version.strip() for name, equals, version in pins if equals}


def licences(needed: dict[str, metadata.Distribution]) -> Iterator[Finding]:
    """Judge the licence that each package states."""
    verdicts = {name: (licence_of(one), judged(licence_of(one), name)) for name, one in needed.items()}
    for verdict, state in (("copyleft", "wrong"), ("unknown", "wrong"), ("vendor", "ok")):
        names = [
            f"{name} ({licence[:60] or 'none stated'})" for name, (licence, is_) in verdicts.items() if is_ == verdict
        ]
        if names:
            yield Finding("licences", state, f"{verdict}: {', '.join(names)}")
    num = sum(verdict == "permissive" for _, verdict in verdicts.values())
    yield Finding("licences", "ok", f"{num} of {len(needed)} packages are under permissive licences")


def licence_of(distribution: metadata.Distribution) -> str:
    """Return what a package states: an SPDX expression, else classifiers, else a short free text."""
    stated = distribution.metadata
    if expression := stated.get("License-Expression"):
        return str(expression)
    classified = [
        line.rpartition(" :: ")[2] for line in stated.get_all("Classifier") or () if line.startswith("License")
    ]
    return " / ".join(classified) or " ".join(str(stated.get("License") or "").split())[:200]


def judged(licence: str, name: str = "") -> str:
    """Return permissive, copyleft, vendor or unknown; of alternatives (OR) the best counts, of sums (AND) the worst."""
    if _NVIDIA.match(name):
        return "vendor"
    worst = "permissive"
    for part in re.split(r"\bAND\b", licence):
        verdicts = [_judged_one(choice) for choice in re.split(r"\bOR\b| / ", part)]
        best = next((one for one in ("permissive", "unknown", "copyleft") if one in verdicts), "unknown")
        worst = max(worst, best, key=("permissive", "unknown", "copyleft").index)
    return worst


def _judged_one(licence: str) -> str:
    if _COPYLEFT.search(licence) and not _ALLOWED_COPYLEFT.search(licence):
        return "copyleft"
    return "permissive" if _PERMISSIVE.search(licence) or _ALLOWED_COPYLEFT.search(licence) else "unknown"


def vulnerabilities() -> Finding:
    """Ask pip-audit for known vulnerabilities of everything installed."""
    check = "known vulnerabilities"
    if find_spec("pip_audit") is None:
        return Finding(check, "skipped", "pip-audit is not installed (pip install pip-audit); nobody looked")
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--skip-editable"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=AUDIT_SECONDS, check=False)
        listed = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        return Finding(check, "skipped", "pip-audit gave no answer (no network?); nobody looked")
    known = [
        f"{one['name']} {one.get('version', '')}: {', '.join(bug['id'] for bug in one['vulns'])}"
        for one in listed
        if one.get("vulns")
    ]
    return Finding(check, "wrong" if known else "ok", "; ".join(known) or f"none in {len(listed)} packages")


# ------------------------------------------------------------------------------------------------------------ reporting


def _as_text(found: list[Finding], needed: dict[str, metadata.Distribution]) -> str:
    lines = [f"{len(needed)} packages that {PACKAGE} needs to run"]
    return "\n".join([*lines, *(f"{one.state:<8}{one.check}: {one.detail}" for one in found)])


def _as_json(found: list[Finding], needed: dict[str, metadata.Distribution]) -> str:
    packages: dict[str, Any] = {
        name: {"version": one.version, "licence": licence_of(one), "judged": judged(licence_of(one), name)}
        for name, one in needed.items()
    }
    return json.dumps({"findings": [one._asdict() for one in found], "packages": packages}, indent=2)


if __name__ == "__main__":
    main()
