"""The tables of docs/scale.md, made of what `tiebreak plan --gpus` reckons.

python tests/scale_page.py        # writes them into the page
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tiebreak.config import build_config
from tiebreak.engine.cluster import ClusterPlan, plan_cluster
from tiebreak.engine.outline import SHAPES, outline_of
from tiebreak.engine.strategy import size
from tiebreak.maths.gpus import GPUS

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
SETTINGS = {"data.max_length": 1024, "training.pairs_per_step": 512}
NUMBERS = (8, 64, 512)
HEADER = (
    "| model | GPUs | strategy | kept | gathered | a token | micro-batch | sent a step | computing | sending | a step "
    "| breaks first |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def plans(kind: str, names: Iterable[str] = tuple(SHAPES)) -> Iterator[ClusterPlan]:
    """What is reckoned of every shape, for every number of GPUs."""
    sections: dict[str, dict[str, object]] = {}
    for key, value in SETTINGS.items():
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = value
    config = build_config({**sections, "adapter": kind, "output": {"dir": "x"}})
    for name in names:
        outline = outline_of(config.model.model_copy(update={"name": name}), config.adapter)
        for gpus in NUMBERS:
            yield plan_cluster(
                outline, config.training, config.distributed, gpus=gpus, max_length=config.data.max_length
            )


def row(plan: ClusterPlan) -> str:
    """A plan in a row of a table; what does not fit has no seconds."""
    one, of = plan.case, plan.case.held
    kept = of.weights + of.gradients + of.moments
    cells = [
        plan.model, plan.gpus, one.strategy, size(kept), size(of.gathered + of.cast),
        f"{one.token_bytes / 2**20:.1f} MiB",
    ]  # fmt: skip
    if one.fits:
        total = sum(each.num_bytes for each in one.sent)
        cells += [
            f"{one.token_budget}", size(total), f"{one.computing_seconds:.1f} s", f"{one.sending_seconds:.1f} s",
            f"{one.step_seconds:.1f} s",
        ]  # fmt: skip
    else:
        cells += ["does not fit", "", "", "", ""]
    told = plan.breaks[0].split(" (")[0]
    return "| " + " | ".join(map(str, [*cells, told.split(";")[0] if one.fits else told])) + " |"


def tables() -> dict[str, str]:
    """The parts of the page, by the names between their marks."""
    gpus = [
        f"| {gpu.name} | {gpu.memory_bytes / 1e9:.0f} GB | {gpu.operations / 1e12:.0f} Tflop/s | "
        f"{gpu.link / 1e9:.0f} GB/s | {gpu.network / 1e9:g} GB/s | {gpu.source} |"
        for gpu in GPUS.values()
    ]
    return {
        "lora": "\n".join([HEADER, *map(row, plans("lora"))]),
        "full": "\n".join([HEADER, *map(row, plans("none"))]),
        "gpus": "\n".join(
            ["| kind | memory | bfloat16 | to its machine | to others | source |", "|---|---|---|---|---|---|", *gpus]
        ),
    }


def written(page: str) -> str:
    """The page with its tables as they are now."""
    for name, table in tables().items():
        own = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = own.sub(lambda found, told=table: f"{found[1]}{told}\n{found[2]}", page)
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
