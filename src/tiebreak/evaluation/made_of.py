"""What an evaluation was made of, and whether one that lies there was made of the same, whole.

Owns when a measurement need not be taken again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tiebreak.config import EvaluationConfig
from tiebreak.errors import RunError
from tiebreak.evaluation.capabilities import harness
from tiebreak.evaluation.capabilities.taskfiles import load_tasks
from tiebreak.evaluation.judges import functions
from tiebreak.fingerprint import file_digest, files_named, fingerprint
from tiebreak.runs import Run


def made_before(into: Run, made_of: str) -> dict[str, Any] | None:
    """Return an evaluation that was made of the same; None where there is none that can be read, or its judge failed.

    A judge that can never be made of the same, or was found no use, stays so; one that could not be asked, or said too
    little, may be heard the next time.
    """
    with contextlib.suppress(RunError):
        found = into.evaluation
        return found if found.get("made_of") == made_of and not _may_be_heard(found.get("judge")) else None
    return None


def _may_be_heard(judge: Any) -> bool:
    if not isinstance(judge, Mapping):
        return False
    # Of before it was written: whatever decided nothing may have failed.
    return bool(judge.get("may_be_heard", judge.get("refusal")))


def settings_digest(run: Run, settings: EvaluationConfig, whole: Mapping[str, Any]) -> str:
    """Return what an evaluation depends on besides the weights: settings, what they name, files of the run, versions.

    `whole` is the configuration that the settings are a part of, as JSON has it. Of a folder that a judge is told,
    names, sizes and times of its files count: it may hold weights.
    """
    evaluation = whole["evaluation"]
    judge = evaluation["judge"] or {}
    reward = str(judge.get("reward", ""))
    own = (run.heldout_pairs_file, run.audit_file, run.judge_file)
    return fingerprint(
        [
            [metadata.version("tiebreak"), dict(whole)],
            harness.identity_of(settings.lm_eval) if settings.lm_eval else None,
            [task.fingerprint for task in load_tasks(settings.tasks)],
            [files_named(evaluation), functions.found(reward)[1] if ":" in reward else ""],
            [
                [str(file), file.stat().st_size, file.stat().st_mtime_ns]
                for word in map(str, judge.values())
                if os.path.isdir(word)  # noqa: PTH112 - Path raises where a text is no name
                for file in sorted(Path(word).rglob("*"))
                if file.is_file()
            ],
            {file.name: file_digest(file) for file in own if file.exists()},
        ]
    )
