"""Tasks of lm-eval (the Language Model Evaluation Harness), asked of reference and policy through its Python API.

Owns what of a task of lm-eval becomes a row, and what is refused. lm-eval is an extra, and is loaded only here; it asks
no hub, since every task names local data.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import glob
import json
import logging
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tiebreak.config import LmEvalConfig
from tiebreak.config.yaml_text import parse_yaml
from tiebreak.engine.attention import use_plain_attention
from tiebreak.engine.model import Model
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.reference.kinds import Reference
from tiebreak.errors import ConfigError, DataError, nearest, one_line
from tiebreak.evaluation.capabilities.asking import TaskRows
from tiebreak.evaluation.capabilities.scoring import require_finite
from tiebreak.evaluation.capabilities.task import Said, Task
from tiebreak.evaluation.rows import SHARE
from tiebreak.files import append_jsonl, appended_jsonl
from tiebreak.fingerprint import file_digest, fingerprint
from tiebreak.progress import Progress, Silent, aside

INSTALL = 'pip install "tiebreak[lm-eval]"'
_LOCAL = ("json", "csv", "parquet", "arrow", "text")
"""Builders of datasets that read files; anything else but a folder is a name on a hub."""
_BATCH = 8
_FUNCTION = re.compile(r"(?<=[\s:,\[])!function\b")
"""Marks Python of the task file's folder, which is a file of that folder."""
_PER = re.compile(r"(word|byte)_perplexity|bits_per_byte")
# One side of one task: for each question what was asked, and what was said.
_Answered = list[tuple[dict[str, Any], Said]]


def check_lm_eval(settings: LmEvalConfig, tasks: Sequence[Task] = ()) -> None:
    """Raise ConfigError for what could not be measured, or would be called as one of `tasks`; loads no model."""
    manager = _manager(settings)
    leaves = set(manager.all_subtasks)
    # Which tasks a group or tag stands for, lm-eval says only when it has loaded their data.
    asked = set(settings.tasks) if leaves.issuperset(settings.tasks) else leaves
    for task in tasks:
        if task.name in asked:
            raise ConfigError(f"{task.file}: a task of lm-eval is called '{task.name}' as well; rename one")


def measure_lm_eval(
    policy: Model,
    reference: Reference,
    settings: LmEvalConfig,
    progress: Progress | None = None,
    kept_in: Path | None = None,
) -> list[TaskRows]:
    """Ask reference and policy the same tasks of lm-eval; return what became of each, as of a user's own.

    A question's value is that of the first metric that its task names: of right and wrong 0 or 1, of a perplexity the
    log-probability per word or byte (nats). `kept_in` is a folder in which a side that is done survives a crash. Raises
    ConfigError, and DataError where lm-eval fails on a task.
    """
    progress = progress or Silent()
    manager = _manager(settings)
    of = identity_of(settings)
    kept = kept_in / "lm_eval.jsonl" if kept_in else None
    if kept_in:
        kept_in.mkdir(exist_ok=True)
    with progress.stage("tasks of lm-eval", 2) as advance:

        def asked(model: Model) -> dict[str, _Answered]:
            key = fingerprint([model.identity, *of])
            found = _read(kept, key)
            if found is None:
                found = _answered(model, settings, manager)
                _keep(kept, key, found)
            advance()
            return found

        after = asked(policy)
        with reference.model() as frozen:
            before = asked(frozen)
    rows = []
    for name, later in after.items():
        earlier = before[name]
        for side, answered in (("reference", earlier), ("policy", later)):
            require_finite({one["item"]: said.value for one, said in answered}, f"task {name}", side)
        metric = str(later[0][0]["metric"])
        unit = "nats" if _PER.fullmatch(metric) else SHARE
        items = [(one, first, second) for (one, first), (_, second) in zip(earlier, later, strict=True)]
        rows.append(TaskRows(name, "lm_eval", metric, unit, fingerprint([name, *of]), items, {}))
    return rows


def identity_of(settings: LmEvalConfig) -> list[Any]:
    """Return what answers depend on besides the model: settings, lm-eval's version, and all that task files read."""
    version = None
    with contextlib.suppress(metadata.PackageNotFoundError):
        version = metadata.version("lm_eval")
    return [settings.model_dump(mode="json"), version, _contents(Path(settings.include_path))]


def _contents(folder: Path) -> list[tuple[str, str]]:
    """Return path and digest of all that task files of a folder are and read: what they include, and their data."""
    found = set[Path]()
    ahead = [one for one in folder.rglob("*") if one.is_file()]
    while ahead:
        file = ahead.pop()
        if file in found or not file.is_file():
            continue
        found.add(file)
        told: Any = None
        if file.name.endswith(("yaml", "yml")):
            text = _FUNCTION.sub("", file.read_text(encoding="utf-8", errors="replace"))
            with contextlib.suppress(ConfigError):  # of what is no YAML, lm-eval makes no task
                told = parse_yaml(text, str(file), as_pyyaml=True)
        for task in _mappings(told):  # a group may spell its tasks out
            ahead += [file.parent / one for one in _texts(task.get("include"))]
            found |= {one for one in _data_of(task) if one.is_file()}
    return [(str(one), file_digest(one)) for one in sorted(found)]


def _mappings(told: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping in what YAML holds; an alias may lead round in it."""
    ahead, seen = [told], set[int]()
    while ahead:
        one = ahead.pop()
        if not isinstance(one, dict | list) or id(one) in seen:
            continue
        seen.add(id(one))
        ahead += one.values() if isinstance(one, dict) else one
        if isinstance(one, dict):
            yield one


def _data_of(told: Mapping[str, Any]) -> Iterator[Path]:
    """Yield what may be data of a task: files by name or pattern, from here or from a folder that it names."""
    more = told.get("dataset_kwargs")
    named = more if isinstance(more, dict) else {}
    folders = [*_texts(told.get("dataset_path")), *_texts(named.get("data_dir"))]
    for one in folders:
        yield from Path(one).rglob("*") if Path(one).is_dir() else ()
    for pattern in _texts(named.get("data_files")):
        for place in ("", *folders):
            yield from map(Path, glob.glob(str(Path(place) / pattern), recursive=True))  # noqa: PTH207 - absolute, too
            yield Path(place) / pattern


def _texts(value: Any) -> list[str]:
    """Return the texts in a text, a list, or a mapping of such."""
    if isinstance(value, dict | list):
        return [text for one in (value.values() if isinstance(value, dict) else value) for text in _texts(one)]
    return [value] if isinstance(value, str) else []


def _manager(settings: LmEvalConfig) -> Any:
    """Return lm-eval's index of the folder; raises ConfigError."""
    if find_spec("lm_eval") is None:
        raise ConfigError(f"evaluation.lm_eval: lm-eval is not installed; {INSTALL}")
    folder = Path(settings.include_path)
    if not folder.is_dir():
        raise ConfigError(f"evaluation.lm_eval.include_path: no such folder: {folder}")
    from lm_eval.tasks import TaskManager  # noqa: PLC0415 - an extra, and heavy

    with aside():
        manager = TaskManager(include_path=str(folder), include_defaults=False)
    for name in settings.tasks:
        if name not in manager.task_index:
            raise ConfigError(
                f"evaluation.lm_eval.tasks: {folder} holds no task '{name}'.{nearest(name, manager.all_tasks)} There "
                f"is {', '.join(manager.all_tasks)[:200] or 'none'}"
            )
    for entry in manager.task_index.values():
        source = str((entry.cfg or {}).get("dataset_path", "json"))
        if source not in _LOCAL and not Path(source).is_dir():
            raise ConfigError(
                f"{entry.yaml_path}: dataset_path '{source[:80]}' is no local folder and none of {', '.join(_LOCAL)}; "
                "nothing is fetched here: name files in dataset_kwargs.data_files"
            )
    return manager


def _answered(model: Model, settings: LmEvalConfig, manager: Any) -> dict[str, _Answered]:
    """Return for each task what was asked, and what a model said."""
    import lm_eval  # noqa: PLC0415 - an extra, and heavy
    from lm_eval.models.huggingface import HFLM  # noqa: PLC0415

    use_plain_attention(model.network)
    with evaluation_mode(model.network), _undisturbed():
        # lm-eval sets a padding token where there is none: on a tokenizer of its own.
        asked = HFLM(
            pretrained=model.network,
            tokenizer=copy.deepcopy(model.tokenizer),
            backend="causal",
            batch_size=_BATCH,
            max_length=model.context.most,
            mixed_precision_dtype=None if model.dtype == torch.float32 else model.dtype,
        )
        try:
            evaluate = functools.partial(
                lm_eval.simple_evaluate,
                asked,
                tasks=list(settings.tasks),
                task_manager=manager,
                limit=settings.limit,
                apply_chat_template=settings.chat,
                log_samples=True,
                bootstrap_iters=0,
                random_seed=None,
                numpy_random_seed=None,
                torch_random_seed=None,
            )
            found = model.accompanied(evaluate)
        except Exception as error:  # tasks are code of somebody else's, which may raise anything
            raise DataError(
                f"lm-eval failed on {', '.join(settings.tasks)[:80]} ({type(error).__name__}: {one_line(error, 300)})"
            ) from error
    return {
        name: list(_of_samples(name, samples, found["configs"][name], found["higher_is_better"][name]))
        for name, samples in found["samples"].items()
    }


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave random streams and standard output as they are, and lm-eval's advice on its own settings unsaid."""
    log = logging.getLogger("lm_eval")
    level, drawn, drawn_by_numpy = log.level, random.getstate(), np.random.get_state()
    log.setLevel(logging.ERROR)
    try:
        with torch.random.fork_rng(), aside():
            yield
    finally:
        log.setLevel(level)
        random.setstate(drawn)
        np.random.set_state(drawn_by_numpy)


def _of_samples(
    name: str, samples: list[dict[str, Any]], config: Mapping[str, Any], better: Mapping[str, bool]
) -> Iterator[tuple[dict[str, Any], Said]]:
    """Yield for each question of a task what was asked and said, by its first filter and the first metric it names."""
    if not samples:
        raise DataError(
            f"lm-eval's task {name} asked nothing: its split is empty, or its process_docs leaves no question; look at "
            "its test_split and data_files, or take it out of evaluation.lm_eval.tasks"
        )
    metric = str(config["metric_list"][0]["metric"])
    first = samples[0]["filter"]
    for sample in samples:
        if sample["filter"] != first:
            continue
        value = sample.get(metric)
        if _PER.fullmatch(metric) and isinstance(value, tuple):
            value = float(value[0]) / value[1]
        elif value is None or not better.get(metric, True) or not 0 <= float(value) <= 1:
            raise DataError(
                f"lm-eval's task {name}: '{metric}' of one question is {one_line(value, 40)}; wanted 0 to 1, higher "
                "being better, or a perplexity: name such a metric first"
            )
        # One number of lm-eval for a question is its place; the same question in two places is two.
        item = fingerprint([sample["doc_hash"], sample["doc_id"]])
        asked = {"item": item, "metric": metric, "doc_id": sample["doc_id"], "question": _plain(sample["arguments"][0])}
        details = {"target": _plain(sample["target"]), "said": _plain(sample["filtered_resps"])}
        yield asked, Said(float(value), details)


def _plain(value: Any) -> Any:
    """Return what JSON can hold of a value of somebody else's."""
    return json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)


def _read(kept: Path | None, key: str) -> dict[str, _Answered] | None:
    for row in appended_jsonl(kept) if kept else ():
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):  # what is none is asked again
            if row["key"] == key:
                return {
                    name: [(asked, Said(float(value), details)) for asked, value, details in some]
                    for name, some in row["tasks"].items()
                }
    return None


def _keep(kept: Path | None, key: str, found: Mapping[str, _Answered]) -> None:
    if kept:
        tasks = {name: [(asked, said.value, said.details) for asked, said in some] for name, some in found.items()}
        append_jsonl(kept, [{"key": key, "tasks": tasks}])
