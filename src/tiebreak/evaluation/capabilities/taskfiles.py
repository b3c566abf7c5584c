"""Task files to tasks, checked from end to end before a model is loaded.

Owns how a task file and its data are read, which questions a limit takes, and the words of a refusal: one line with
file and line. A row that is no question refuses its task, unless the task says how many may be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tiebreak.config import Compliance, ExactAnswer, MultipleChoice, PlainText, Refusal, Section, TaskConfig
from tiebreak.config.yaml_text import line_of, lines_of, parse_yaml
from tiebreak.data.containers import blocks, rows
from tiebreak.data.containers.json_lines import split
from tiebreak.data.containers.unpacking import Damaged, as_lines, chunks, refuse_irregular
from tiebreak.data.formats import RowError
from tiebreak.errors import ConfigError, DataError, nearest, one_line
from tiebreak.evaluation.capabilities.answered import ExactAnswering, Refusing
from tiebreak.evaluation.capabilities.choices import Choosing
from tiebreak.evaluation.capabilities.plain_text import Reading
from tiebreak.evaluation.capabilities.task import Item, Kind, Task
from tiebreak.evaluation.capabilities.templates import shown
from tiebreak.records import Source

# For each section of settings its kind.
_KINDS: Mapping[type[Section], Callable[[Any], Kind]] = {
    MultipleChoice: Choosing,
    ExactAnswer: ExactAnswering,
    Refusal: Refusing,
    Compliance: Refusing,
    PlainText: Reading,
}
_TASK: TypeAdapter[Any] = TypeAdapter(TaskConfig)
_MOST_BYTES = 2**22
"""A task file with more is data: it belongs into a file of its own."""


def load_tasks(paths: Sequence[str | Path]) -> list[Task]:
    """Return the tasks of these files, in order.

    Raises ConfigError for what is wrong in a task file, DataError for a row of its data.
    """
    tasks: list[Task] = []
    for path in map(Path, paths):
        task = _task(path)
        known = next((one for one in tasks if one.name.casefold() == task.name.casefold()), None)
        if known:
            raise ConfigError(f"{path}: another task is called '{task.name}' as well ({known.file}); rename one")
        tasks.append(task)
    return tasks


def _task(path: Path) -> Task:
    text, tree = _read(path)
    try:
        config = _TASK.validate_python(tree)
        kind = _KINDS[type(config)](config)
    except ValidationError as error:
        raise _refused(path, text, tree, error) from None
    except ValueError as error:
        raise ConfigError(f"{path}: {one_line(error)}") from None
    if config.data is None:
        where = [Source(str(path), line) for line in lines_of(text, ["items"])]
        found: Iterator[tuple[Source, Any]] = zip(where, config.items, strict=True)
    else:
        data = path.parent / config.data
        if not data.exists():
            raise ConfigError(f"{path}:{line_of(text, ['data'])}: no such file: {data} (data stands beside the task)")
        chunk = config.chunk if isinstance(config, PlainText) else None
        found = _pieces(data, chunk) if chunk else (row for block in blocks(data, str(data)) for row in rows(block))
    items: dict[str, Item] = {}
    num_read, dropped = 0, []
    for source, row in found:
        try:
            item = _item(kind, source, row)
        except DataError as error:
            if not config.max_dropped_share:
                raise
            dropped.append(str(error))
        else:
            items.setdefault(item.item_id, item)
            num_read += 1
    if len(dropped) > config.max_dropped_share * (num_read + len(dropped)):
        raise DataError(
            f"{path}: {len(dropped)} of {num_read + len(dropped)} rows are no questions, more than max_dropped_share "
            f"{config.max_dropped_share:g}; the first: {dropped[0]}"
        )
    if not items:
        raise DataError(f"{path}: holds no question" + (f"; {config.data} is empty" if config.data else ""))
    taken = set(sorted(items)[: config.limit])
    kept = tuple(item for item_id, item in items.items() if item_id in taken)
    return Task(config.name, kind, kept, str(path), num_read - len(items), len(items) - len(kept), tuple(dropped))


def _read(path: Path) -> tuple[str, Mapping[str, Any]]:
    if not path.exists():
        raise ConfigError(f"{path}: no such file; evaluation.tasks names task files, as in docs/capabilities.md")
    try:
        refuse_irregular(path)
    except DataError as error:
        raise ConfigError(str(error)) from None
    if path.stat().st_size > _MOST_BYTES:
        raise ConfigError(
            f"{path}: is larger than {_MOST_BYTES >> 20} MiB; put the questions into a file and name it as data"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({one_line(error)})") from None
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ConfigError(f"{path}: wanted settings like 'name:' and 'kind:', found {shown(tree)}")
    return text, tree


def _refused(path: Path, text: str, tree: Mapping[str, Any], error: ValidationError) -> ConfigError:
    """Return the first fault of a task file, in words of YAML and with its line."""
    fault = error.errors()[0]
    # A union puts the tag of the member that was meant before the place.
    place = [step for step in fault["loc"] if step != tree.get("kind")]
    key = ".".join(str(step) for step in place if isinstance(step, int) or step.replace("_", "").isalnum())
    where = f"{path}:{line_of(text, place)}"
    if "kind" not in tree:
        return ConfigError(f"{path}: 'kind' is missing; {fault['msg']}")
    if fault["type"] == "kind":
        return ConfigError(f"{path}:{line_of(text, ['kind'])}: kind: found {shown(tree['kind'])}; {fault['msg']}")
    if fault["type"] == "extra_forbidden":
        section = next(one for one in _KINDS if one.model_fields["kind"].default == tree["kind"])
        known = [field.alias or name for name, field in section.model_fields.items()]
        return ConfigError(
            f"{where}: a task of kind {tree['kind']} has no setting {shown(place[-1])}.{nearest(str(place[-1]), known)}"
        )
    if fault["type"] == "missing":
        return ConfigError(f"{path}: '{key}' is missing")
    said = fault["msg"].removeprefix("Value error, ")
    found = f"{key}: found {shown(fault['input'])}; " if key else ""
    return ConfigError(f"{where}: {found}{one_line(said)}")


def _item(kind: Kind, source: Source, row: Any) -> Item:
    if isinstance(row, RowError):
        raise DataError(f"{source}: {row}")
    if not isinstance(row, Mapping):
        raise DataError(f"{source}: wanted an object with the fields of a question, found {shown(row)}")
    try:
        return kind.read(row, source)
    except ValueError as error:
        raise DataError(f"{source}: {one_line(error)}") from None


def _pieces(path: Path, least: int) -> Iterator[tuple[Source, dict[str, str]]]:
    """Yield pieces of a plain text: whole lines, at least so many letters; what is left at the end joins no other."""
    lines: list[str] = []
    begin = number = num_letters = 0
    try:
        with closing(chunks(path)) as opened:
            for number, line in enumerate(split(as_lines(opened)), 1):
                if line is None:
                    raise DataError(f"{path}:{number}: the line is too long for a text")
                begin = begin if lines else number
                lines.append(line.decode("utf-8"))
                num_letters += len(lines[-1])
                if num_letters >= least:
                    yield Source(str(path), begin), {"text": "\n".join(lines)}
                    lines, num_letters = [], 0
    except Damaged as error:
        raise DataError(f"{path}:{number + 1}: the file is damaged here ({error})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{number}: is no UTF-8 text (byte {error.start + 1} of the line)") from None
    if any(line.strip() for line in lines):
        yield Source(str(path), begin), {"text": "\n".join(lines)}
