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


def recorded_run(folder, name="run", text=str, **settings) -> Run:
    """A run with all that a page shows: steps, probes, looks, answers, judgements, diagnoses, findings.

    `text` makes each text of the data out of a plain one.
    """
    run = written_run(folder, row_of("kl", 0.0, [7.0 + n / 10 for n in range(NUM)]), name=name, **settings)
    write_jsonl(run.metrics_file, _recorded())
    write_jsonl(run.evidence_file, [{"margin": (n - 9) / 3} for n in range(NUM)])
    samples = [_sample(n, text) for n in range(24)]
    write_jsonl(run.samples_file, samples)
    says = [
        {"prompt_id": one["prompt_id"], "preferred": n % 3 / 2, "says": text("so")} for n, one in enumerate(samples)
    ]
    write_jsonl(run.judgements_file, says)
    for step in (10, 20, 30, 40):
        looks = [
            {
                **one,
                "text": text(f"At step {step} it says {one['prompt_id']} and more."),
                "num_tokens": 9,
                "finished": True,
            }
            for one in samples[:4]
        ]
        looks_file = run.path / "looks" / f"step-{step:06}.jsonl"
        looks_file.parent.mkdir(exist_ok=True)
        write_jsonl(looks_file, looks)
    found = {"cause": "displacement", "title": text("Likelihood displacement"), "says": text("Chosen falls as well.")}
    found |= {"evidence": [text("displaced 0.8")], "do": text("Lower the rate."), "step": 20, "level": "fault"}
    write_json(run.path / "diagnoses.json", {"schema": 1, "diagnoses": [found, {**found, "level": "warning"}]})
    write_jsonl(run.dropped_file, [{"file": text("a.jsonl"), "line": 3, "reason": "empty", "detail": text("none")}])
    files = [{"path": text("pairs.jsonl"), "format": "trl", "num_records": 40, "sha256": "e" * 64}]
    write_json(run.data_file, run.data | {"dropped_by_reason": {"empty": 1}, "files": files})
    finding = {"code": "leak", "title": text("Leaks"), "detail": text("d"), "remedy": text("r"), "severity": "warning"}
    finding |= {"examples": [{"file": text("a"), "line": 3, "excerpt": text("e")}], "count": 3, "of": "pairs"}
    write_json(run.audit_file, {"findings": [finding | {"share": 0.1}]})
    run.update_manifest(warnings=[{"attempt": 1, "text": text("data is odd")}], num_attempts=2)
    return run


def _recorded():
    for step in range(41):
        falling = 0.69 - step / 100
        if step:
            rewards = {"rewards/chosen": -step / 50, "rewards/rejected": -step / 20, "rewards/margins": step * 0.03}
            speed = {"pairs_per_second": 9.0, "unique_tokens_per_second": 900.0}
            rest = {"rewards/accuracies": 0.5 + step / 100, "grad_norm": 2.0, "learning_rate": 1e-5 * (41 - step)}
            yield {"step": step, "loss": falling, **rewards, **rest, **speed}
        if step % 10 == 0:
            yield {
                "step": step,
                "heldout/loss": falling,
                "heldout/rewards/accuracies": 0.5 + step / 100,
                "heldout/rewards/margins": step * 0.02,
                "heldout/logps/chosen": -100.0 - step,
                "heldout/logps/rejected": -90.0 - 2 * step,
                "heldout/displaced": step / 50,
                "heldout/chosen_moved": -step / 400,
                "heldout/rejected_moved": -step / 200,
                "heldout/reward_length_correlation": 0.3,
            }
        if step and step % 10 == 0:
            before = (
                {f"sampled/before/{key}": 0.4 for key in ("num_tokens", "eos_rate", "entropy")} if step == 10 else {}
            )
            yield {
                "step": step,
                "sampled/kl": step / 5,
                "sampled/kl_k3": step / 4,
                "sampled/num_tokens": 30.0 + step,
                "sampled/repetition": step / 100,
                "sampled/looping": step / 200,
                "sampled/distinct_2": 0.9 - step / 100,
                "sampled/eos_rate": 0.9,
                "sampled/entropy": 2.0 - step / 40,
                **before,
            }


def _sample(number, text):
    before = f"Press the {number} tiles flat, and wait an hour before you walk on them."
    after = before if number % 4 == 0 else f"Press the {number} tiles flat. Then wait a day, or two, before you walk."
    side = {"finished": True, "repetition": 0.0, "looping": False}
    return {
        "prompt_id": f"p{number}",
        "prompt": [{"role": "user", "content": text(f"How do I lay tile {number}?")}],
        "before": {"text": text(before), "num_tokens": 20 + number, **side},
        "after": {"text": text(after), "num_tokens": 60 - number, **side},
        "chosen": text("Flat."),
        "rejected": text("Not at all."),
    }
