"""Run folders that were never trained: every file of what a run measured, written by hand, for cards and pages."""

from __future__ import annotations

from tiebreak.config import dump_config, load_config
from tiebreak.evaluation.measures import summarise
from tiebreak.evaluation.rows import Row
from tiebreak.files import write_json, write_jsonl
from tiebreak.runs import Run

NUM = 40
PROMPTS = [f"prompt{index}" for index in range(NUM)]


def row_of(key, before, after, prompts=PROMPTS):
    wide = lambda value: value if isinstance(value, list) else [value] * len(prompts)  # noqa: E731
    return Row.of(key, prompts, wide(before), wide(after))


def written_run(folder, *more: Row, name="run", model="llama sha256:00", **settings) -> Run:
    """A run that was measured by what is written here."""
    run = Run(folder / name)
    run.path.mkdir(parents=True)
    config = load_config(None, {"evaluation.probe_pairs": 16, "output.dir": "run"} | settings)
    run.config_file.write_text(dump_config(config), encoding="utf-8")
    twice = [PROMPTS[index // 2] for index in range(NUM)]
    rows = [
        row_of("accuracy", 0.5, [1.0] * 36 + [0.0] * 4, twice),
        row_of("margin", 0.0, 0.7, twice),
        row_of("logratio_gap", 0.0, 7.0, twice),
        row_of("answers/preferred", 0.5, [1.0] * 30 + [0.0] * 10),
        row_of("answers/repetition", 0.1, 0.1),
        *more,
    ]
    write_jsonl(run.measures_file, (row.as_dict() for row in rows))
    write_json(run.evaluation_file, summarise(rows, NUM, config.gate, ["a fact"], 3))
    probes = [{"step": step, "heldout/rewards/accuracies": 0.5 + step / 100} for step in (0, 20, 40)]
    write_jsonl(run.metrics_file, [{"step": 10, "grad_norm": 0.6}, *probes])
    manifest = {"model": model, "reference": f"{model}, adapter off", "method": "lora", "status": "done"}
    manifest |= {"data_fingerprint": "d" * 64, "config_fingerprint": "c" * 64, "versions": {"tiebreak": "1"}}
    manifest |= {"num_steps": 40, "num_steps_done": 40, "training_seconds": 3.0, "device": "cpu", "started": "now"}
    manifest |= {"num_parameters": 10, "num_trainable_parameters": 5, "learning_rate": 1e-5, "num_threads": 1}
    write_json(run.manifest_file, manifest | {"peak_memory_bytes": 1})
    counts = ("records", "train_pairs", "train_prompts", "heldout_pairs", "dropped", "beyond_max_pairs")
    data = {f"num_{name}": 1 for name in (*counts, "truncated_pairs")}
    spread = {"mean": 1.0, "median": 1.0, "max": 1}
    data |= {f"{side}_tokens": spread for side in ("prompt", "chosen", "rejected")}
    write_json(run.data_file, data | {"files": [], "max_length": 1})
    return run
