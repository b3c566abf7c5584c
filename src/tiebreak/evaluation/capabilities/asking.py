"""Tasks asked of reference and policy: what became of each question, and of all together.

Owns the order, what is left out and said so, and what a task's row is. What is done survives a crash in a folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiebreak.config import DataConfig
from tiebreak.config.gate import TASKS
from tiebreak.engine.model import Model
from tiebreak.engine.reference.kinds import Reference
from tiebreak.engine.scorer import Cut
from tiebreak.errors import DataError, RenderError
from tiebreak.evaluation.capabilities.scoring import require_finite
from tiebreak.evaluation.capabilities.task import Desk, Item, Said, Task
from tiebreak.evaluation.rows import SHARE, Row
from tiebreak.maths.paired import mcnemar, sign_test
from tiebreak.progress import Advance, Progress, Silent


@dataclass(frozen=True)
class TaskRows:
    """What reference (before) and policy (after) made of a task, question by question."""

    name: str
    kind: str
    metric: str
    unit: str
    fingerprint: str
    items: Sequence[tuple[dict[str, Any], Said, Said]]
    """What was asked, for JSON, with `item` its id; before; after."""
    left_out: dict[str, int]
    """Questions that were not asked, by reason."""

    def row(self) -> Row:
        """Return the row that rules read as capability/NAME; its prompts are the ids of questions."""
        asked = [str(one["item"]) for one, _, _ in self.items]
        before, after = [one.value for _, one, _ in self.items], [one.value for _, _, one in self.items]
        return Row(TASKS + self.name, f"{self.name}: {self.metric}", self.unit, "higher", asked, before, after)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield a line of tasks.jsonl for each question."""
        for asked, before, after in self.items:
            sides = {"before": before, "after": after}
            values = {name: {"value": side.value, **side.details} for name, side in sides.items()}
            yield {"task": self.name, "kind": self.kind, **asked, **values}

    def summary(self) -> dict[str, Any]:
        """Return counts, both means, and the exact p-value of as many questions having become better as worse.

        `p` is McNemar's for right and wrong, the sign test's for what is measured in nats. No verdict stands on it.
        """
        row = self.row()
        test = mcnemar(row.before, row.after) if row.unit == SHARE else sign_test(row.changes, row.prompts)
        return {
            **{"name": self.name, "kind": self.kind, "metric": self.metric, "unit": self.unit},
            "fingerprint": self.fingerprint,
            "num_items": len(self.items),
            "left_out": self.left_out,
            "before": sum(row.before) / len(row.before),
            "after": sum(row.after) / len(row.after),
            "num_better": sum(change > 0 for change in row.changes),
            "num_worse": sum(change < 0 for change in row.changes),
            "test": "mcnemar" if row.unit == SHARE else "signs",
            "p": test,
        }


@dataclass(frozen=True)
class Prepared:
    """A task as it is put to a model: its questions as tokens or chats, and how many could not be, by reason."""

    task: Task
    items: Sequence[tuple[Item, Sequence[Any]]]
    left_out: dict[str, int]

    def ask(self, model: Model, side: str, desk: Desk) -> list[Said]:
        """Return what a model says of each question; raises Diverged where a log-probability is not finite."""
        said = self.task.kind.ask(model, self.items, desk)
        values = {item.item_id: one.value for (item, _), one in zip(self.items, said, strict=True)}
        require_finite(values, f"task {self.task.name}", side)
        return said


def prepare_tasks(tasks: Sequence[Task], policy: Model, progress: Progress) -> list[Prepared]:
    """Return tasks as a model takes them; what it does not take is left out, and the progress told.

    Worth its few seconds before training. Raises DataError where nothing is left of one.
    """
    renderer = policy.renderer(DataConfig())
    found = []
    for task in tasks:
        items: list[tuple[Item, Sequence[Any]]] = []
        refused: list[RenderError] = []
        for item in task.items:
            try:
                items.append((item, task.kind.ready(item, policy, renderer)))
            except RenderError as error:
                refused.append(error)
        if not items:
            raise DataError(
                f"{task.file}: the model can be asked none of {len(task.items)} questions ({refused[0].reason}: "
                f"{refused[0]})"
            )
        if refused:
            num, total = len(refused), len(task.items)
            progress.warn(f"task {task.name}: {num} of {total} are left out ({refused[0].reason}: {refused[0]})")
        if task.dropped:
            progress.warn(f"task {task.name}: {len(task.dropped)} rows are no questions; the first: {task.dropped[0]}")
        counted = {"no_question": len(task.dropped), "twice": task.num_twice, "limit": task.num_beyond}
        left_out = {**counted, **Counter(one.reason for one in refused)}
        found.append(Prepared(task, items, {reason: num for reason, num in left_out.items() if num}))
    return found


def measure_tasks(
    policy: Model,
    reference: Reference,
    tasks: Sequence[Task],
    cut: Cut,
    progress: Progress | None = None,
    kept_in: Path | None = None,
) -> list[TaskRows]:
    """Ask reference and policy the same questions; return what became of each task, in order.

    `kept_in` is a folder in which what is done survives a crash; whoever has kept the result removes it. It is known by
    content, so that another model, or another question, finds nothing of its own in it. Raises DataError where a model
    can be asked nothing of a task, Diverged where a log-probability is not finite.
    """
    if not tasks:
        return []
    progress = progress or Silent()
    prepared = prepare_tasks(tasks, policy, progress)
    if kept_in:
        kept_in.mkdir(exist_ok=True)

    def asked(model: Model, side: str, advance: Advance) -> list[list[Said]]:
        return [one.ask(model, side, Desk(cut, advance, kept_in)) for one in prepared]

    total = sum(len(some) for one in prepared for _, some in one.items)
    with progress.stage("tasks", 2 * total) as advance:
        after = asked(policy, "policy", advance)
        with reference.model() as frozen:
            before = asked(frozen, "reference", advance)
    return [
        TaskRows(
            one.task.name,
            one.task.kind.name,
            one.task.kind.metric,
            one.task.kind.unit,
            one.task.fingerprint,
            [
                (item.as_dict(), first, second)
                for (item, _), first, second in zip(one.items, earlier, later, strict=True)
            ],
            one.left_out,
        )
        for one, earlier, later in zip(prepared, before, after, strict=True)
    ]
