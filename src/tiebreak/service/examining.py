"""A job's files before anything is trained on them: the doctor's word, as a client reads it.

Owns which findings end a job, how they are told in one line, and that no line names a place of this machine. The doctor
is a process of its own, and what is found is read from what it prints; it can be asked again at any time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiebreak.doctor.rules import READING_RULES
from tiebreak.errors import EXIT_FAILURE, EXIT_USAGE, one_line
from tiebreak.secrecy import masked, secrets_of
from tiebreak.service.launching import LOG, NICE
from tiebreak.service.translate import TRAINING, VALIDATION

PARAMS = {TRAINING: "training_file", VALIDATION: "validation_file"}
_PRINTED = ".check-"
_FOUND = 3
_UNREPEATED = "secret"
"""The finding whose excerpts are not repeated: an error is kept in logs that its owner does not read."""
_LONGEST = 2000
_DOCTOR = """
import os, runpy, signal, threading

def end_with_the_server():
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)

threading.Thread(target=end_with_the_server, daemon=True).start()
runpy.run_module("tiebreak", run_name="__main__", alter_sys=True)
"""
"""The program of the doctor: nobody would hear it behind a server whose end of the pipe has closed."""
_PLACE = re.compile(r"(?<![\w.:/])/(?!v1/)(?:[^\s/'\":;,]+/)+")
"""The folders of a path that begins at the root; what an address has behind its host is none."""


_OURS = re.compile(rf"(?<![\w.-])({'|'.join(map(re.escape, PARAMS))})(?![\w.-])")


@dataclass(frozen=True)
class Examined:
    """What the doctor said of a job's files."""

    error: Mapping[str, Any] | None
    """Why they cannot be trained on, as the job shows it; None where they can."""
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Examination:
    """The doctor at work, as a process of its own."""

    process: subprocess.Popen[bytes]
    printed: Path

    @property
    def is_over(self) -> bool:
        """Whether the doctor is done."""
        return self.process.poll() is not None

    def end(self) -> None:
        """End it, whatever it does: nothing is lost."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._let_go()
        self.printed.unlink(missing_ok=True)

    def result(self, names: Mapping[str, str], allow: Collection[str]) -> Examined | None:
        """Return what was found, with the clients' `names` of the files; None where the doctor came to no end."""
        self._let_go()
        text = self.printed.read_bytes().decode("utf-8", "replace")
        self.printed.unlink(missing_ok=True)
        return examined(self.process.returncode, text, self.printed.parent, names, allow)

    def _let_go(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()


def examine(folder: Path) -> Examination:
    """Let the doctor look at the files of a job; it ends with this process, however that ends."""
    for left in folder.glob(f"{_PRINTED}*"):  # one that a killed server had begun writes on, and nobody reads it
        left.unlink(missing_ok=True)
    printed = folder / f"{_PRINTED}{secrets.token_hex(8)}.json"
    with printed.open("wb") as out, (folder / LOG).open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - words of ours
            [sys.executable, "-c", _DOCTOR, "check", "--config", str(folder / "config.yaml"), "--json", "--quiet"],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=log,
            start_new_session=True,
        )
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
    return Examination(process, printed)


def examined(
    code: int, printed: str, folder: Path, names: Mapping[str, str], allow: Collection[str]
) -> Examined | None:
    """Return what an exit code and a document of `check --json` say; None where they are none.

    `allow` names errors that the operator lets pass.
    """
    try:
        told = json.loads(printed)
        if code == EXIT_USAGE:
            return Examined(_unread(str(told["error"]), str(told["message"]), folder, names))
        if code not in (0, EXIT_FAILURE):
            return None
        findings = told["findings"]
        # A row that cannot be read is a fault of the file: nobody looks at a list of what was left out.
        unread = [one for one in findings if one["code"] in READING_RULES and one["action"] == "reject"]
        stop = [one for one in findings if one["severity"] == "error" or one in unread]
        errors = [one for one in stop if one["code"] not in allow]
        warnings = [_said(one) for one in findings if one not in errors and one["severity"] != "info"]
        unit, split = told["unit"], told["split"]
        num_train, num_heldout = split[f"num_train_{unit}"], split[f"num_heldout_{unit}"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    shown = [shown_line(line, folder, names) for line in warnings]
    if not errors and not num_heldout:
        line = (
            f"{TRAINING}: none of {num_train} {unit} is held out to measure on; bring more prompts, or a "
            "validation_file of others"
        )
        return Examined(_error(TRAINING, shown_line(line, folder, names)), shown)
    return Examined(_found(errors, folder, names) if errors else None, shown)


def _unread(kind: str, message: str, folder: Path, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the error of files that cannot be read, or of settings of the operator's that are wrong."""
    line = shown_line(message, folder, names)
    if kind not in ("DataError", "RenderError"):
        return {"code": "invalid_settings", "param": None, "message": line}
    return _error(VALIDATION if VALIDATION in message and TRAINING not in message else TRAINING, line)


def _found(errors: Sequence[Mapping[str, Any]], folder: Path, names: Mapping[str, str]) -> dict[str, Any]:
    places = [(one, example) for one in errors for example in one["examples"]]
    # One of each finding first, then more of them.
    places.sort(key=lambda place: place[0]["examples"].index(place[1]))
    lines = [
        f"{one['file']}:{one['line']}: {error['title']}" + f": {one['excerpt']}" * (error["code"] != _UNREPEATED)
        for error, one in places[:_FOUND]
    ]
    remedies = dict.fromkeys(error["remedy"] for error in errors if error["examples"] and "-c " not in error["remedy"])
    if lines and remedies:
        lines[-1] = f"{lines[-1]}; {'; '.join(remedies)}"
    blamed = {Path(one["file"]).name for _, one in places}
    last = VALIDATION if blamed == {VALIDATION} or errors[0]["code"] == "leak" else TRAINING
    whole = [_said(error) for error in errors if not error["examples"]]
    return _error(last, shown_line("; ".join((lines + whole)[:_FOUND]), folder, names))


def _said(finding: Mapping[str, Any]) -> str:
    detail = f" ({finding['detail']})" if finding["detail"] else ""
    places = ", ".join(f"{one['file']}:{one['line']}" for one in finding["examples"][:_FOUND])
    start = f"{places}: " if places else ""
    of = finding["of"].removesuffix("s") if finding["count"] == 1 else finding["of"]
    return f"{start}{finding['count']} {of}: {finding['title']}{detail}; {finding['remedy']}"


def _error(file: str, message: str) -> dict[str, Any]:
    param = PARAMS[file]
    return {"code": f"invalid_{param}", "param": param, "message": message}


def shown_line(text: str, folder: Path, names: Mapping[str, str]) -> str:
    """Return one line of a worker as a client may read it: with its own names of files, and no places or secrets."""
    text = text.replace(f"{folder}/", "").replace(str(folder), "the job")
    text = _PLACE.sub("", _OURS.sub(lambda found: names.get(found[0], found[0]), text))
    return one_line(masked(text, secrets_of(os.environ)), _LONGEST)
