"""What tiebreak does on one CUDA device: right, and how fast. Written for a lent machine, so it ends within minutes.

    python benchmarks/gpu.py                                      # at most 8 minutes, results/gpu-<hardware>.json
    python benchmarks/gpu.py --minutes 4 --parts parity,attention
    python benchmarks/gpu.py --device cpu --tiny                  # do the scripts run at all; no file without --out
    pytest tests/test_gpu_shapes.py -k benchmark                  # a dry run of what only CUDA runs, without CUDA

Parts, each a process of its own, so that a crash or an exhausted memory costs one part and not the rest:

    parity      packed = plain, log-probabilities and LoRA gradients, bf16 and fp32, four families     gpu_models.py
    attention   varlen_attn, FlexAttention and SDPA on packed rows; how varlen_attn aligns its mask    gpu_attention.py
    throughput  DPO with LoRA at the shapes of Llama-3.1-8B and SmolLM2-135M, random weights           gpu_throughput.py
    trl         TRL at the same shapes, defaults and tuned, where it can be imported                   gpu_trl.py

One JSON object on stdout and in the file. Keys carry units. What was not measured is null and says why, and is listed
under `not_measured`; time that one part leaves goes to the next. Weights are random: rates hold, losses mean nothing.

Needed besides CUDA: torch >= 2.6 (varlen_attn since 2.10, `window_size` since 2.11), transformers >= 5, peft with its
accelerate and safetensors, jaxtyping. tiebreak need not be installed: its engine is then taken from ../src, and none of
pydantic, pyyaml, typer and its other dependencies is asked for, since nothing here imports `tiebreak.config`,
`engine.models` or `training.loop`. trl 1.16 (with datasets) is optional.

Exit code 0; 1 where a check did not hold, a case failed or nothing was measured; 2 where there is no such device or a
package is missing.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if importlib.util.find_spec("tiebreak") is None:
    # Beside us, without its __init__: that one asks for an installation and for pydantic, the engine for neither.
    _spec = ModuleSpec("tiebreak", None, is_package=True)
    _spec.submodule_search_locations = [str(HERE.parent / "src" / "tiebreak")]
    sys.modules["tiebreak"] = importlib.util.module_from_spec(_spec)

MODULES = {
    "parity": "gpu_models",
    "attention": "gpu_attention",
    "throughput": "gpu_throughput",
    "trl": "gpu_trl",
}
WEIGHTS = {"parity": 70, "attention": 120, "throughput": 170, "trl": 110}
"""Seconds of each part where 8 minutes are shared by all; else in proportion."""
NEEDED = ("torch", "transformers", "peft", "jaxtyping", "tiebreak")
LEAST_SECONDS = 2.0
"""A case with less time than this is not begun."""
GENEROSITY = 1.5
"""A case may take this many equal shares of the time left: the first ones are the longest and most wanted."""
SAVING_SECONDS = 4.0
"""Kept back from a part, so that a process is rarely ended from outside."""
Found = dict[str, Any]
Runner = Callable[[str, argparse.Namespace, float], Found]


def main(argv: Sequence[str] | None = None, run: Runner | None = None) -> int:
    """Run the parts, or one part as a process of its own, and return the exit code; `run` is how a part is run."""
    arguments = _arguments(argv)
    if arguments.worker:
        work(arguments.worker, arguments, Path(arguments.answer), arguments.until)
        return 0
    refusal = _refusal(arguments)
    if refusal:
        print(refusal, file=sys.stderr)
        return 2
    end = time.time() + 60 * arguments.minutes
    result = described(arguments)
    result["parts"] = run_parts(arguments, end, run or isolated)
    result["not_measured"] = not_measured(result["parts"])
    result["failed"] = failed(result["parts"])
    text = json.dumps(result, indent=2)
    _save(text, result["hardware"]["name"], arguments)
    print(text)
    measured = any(outcome["figures"] for outcome in outcomes(result["parts"]).values())
    return 0 if measured and not result["failed"] else 1


# -------------------------------------------------------------------------------------------------------------- the run


def run_parts(arguments: argparse.Namespace, end: float, run: Runner) -> dict[str, Found]:
    """Run the parts in order; each may take its share of the time that is left."""
    found: dict[str, Found] = {}
    waiting = [part for part in MODULES if part in arguments.parts]
    if "trl" in waiting and importlib.util.find_spec("trl") is None:
        waiting.remove("trl")
        found["trl"] = _nothing("absent", "trl is not installed here")
    while waiting:
        part, left = waiting[0], end - time.time()
        share = left * WEIGHTS[part] / sum(WEIGHTS[name] for name in waiting)
        if share < SAVING_SECONDS + LEAST_SECONDS:
            found[part] = _nothing("skipped", f"{max(left, 0):.0f} s were left of {arguments.minutes:g} minutes")
        else:
            print(f"{part}: at most {share:.0f} s", file=sys.stderr)
            found[part] = run(part, arguments, time.time() + share)
        waiting.pop(0)
    return found


def isolated(part: str, arguments: argparse.Namespace, until: float) -> Found:
    """Run a part in a fresh process that is ended when its time is over; keep what it had measured by then."""
    with tempfile.TemporaryDirectory(prefix="tiebreak-gpu-") as folder:
        answer, log = Path(folder) / "answer.json", Path(folder) / "log.txt"
        command = [sys.executable, str(HERE / "gpu.py"), "--worker", part, "--answer", str(answer)]
        command += ["--until", str(until - SAVING_SECONDS), "--device", arguments.device]
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command + ["--tiny"] * arguments.tiny, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
            )
            code = _waited(process, until)
        cause = "its time was over" if code is None else f"its process ended with code {code}: {_last_line(log)}"
        if not answer.exists():
            return _nothing("failed" if code else "skipped", f"nothing came of it; {cause}")
        found: Found = json.loads(answer.read_text(encoding="utf-8"))
    if code:
        _mark_unfinished(found, cause)
    return found


def _waited(process: subprocess.Popen[bytes], until: float) -> int | None:
    """Return the exit code; end the process and all that it started, and return None, when the time is over."""
    try:
        return process.wait(timeout=max(until - time.time(), 0.1))
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def work(part: str, arguments: argparse.Namespace, answer: Path, until: float) -> Found:
    """Measure the cases of a part one after the other; the file is whole after each."""
    from gpu_models import Setting  # noqa: PLC0415 - the waiting process needs no torch for this

    began = time.time()
    module = importlib.import_module(MODULES[part])
    cases = module.cases(part, Setting.of(arguments.device, tiny=arguments.tiny))
    found: Found = {"seconds": 0.0, "cases": {name: _nothing("skipped", "not reached in time") for name in cases}}
    _write(answer, found)
    for index, (name, measure) in enumerate(cases.items()):
        left = until - time.time()
        if left >= LEAST_SECONDS:
            share = left * min(1.0, GENEROSITY / (len(cases) - index))
            found["cases"][name] = _nothing("failed", "the process ended in this case")
            _write(answer, found)
            found["cases"][name] = _outcome(measure, share)
            print(f"{part} {name}: {found['cases'][name]}", file=sys.stderr)
        found["seconds"] = time.time() - began
        _write(answer, found)
    return found


def _outcome(measure: Callable[[float], Found], seconds: float) -> Found:
    from gpu_models import UnmeasurableError  # noqa: PLC0415

    began = time.time()
    try:
        outcome: Found = {"status": "measured", "reason": None, "figures": measure(seconds)}
    except UnmeasurableError as error:
        outcome = _nothing("absent", str(error))
    except Exception as error:  # noqa: BLE001 - one broken case must not cost the others their turn
        outcome = _nothing("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:400]}")
    return outcome | {"seconds": time.time() - began}


def _nothing(status: str, reason: str) -> Found:
    return {"status": status, "reason": reason, "figures": None}


def _mark_unfinished(found: Found, cause: str) -> None:
    for outcome in found["cases"].values():
        if outcome["reason"] == "the process ended in this case":
            outcome["reason"] = cause


# ---------------------------------------------------------------------------------------------------------- the account


def outcomes(parts: dict[str, Found]) -> dict[str, Found]:
    """Return every case by 'part/case', and a part without cases by its name."""
    flat: dict[str, Found] = {}
    for part, found in parts.items():
        flat |= {f"{part}/{name}": case for name, case in found["cases"].items()} if "cases" in found else {part: found}
    return flat


def not_measured(parts: dict[str, Found]) -> dict[str, str]:
    """Return why each case without figures has none."""
    return {name: f"{o['status']}: {o['reason']}" for name, o in outcomes(parts).items() if o["figures"] is None}


def failed(parts: dict[str, Found]) -> list[str]:
    """Return the cases that broke, and those whose check did not hold."""
    broken = [name for name, outcome in outcomes(parts).items() if outcome["status"] == "failed"]
    wrong = [name for name, o in outcomes(parts).items() if o["figures"] and o["figures"].get("passed") is False]
    return broken + wrong


def described(arguments: argparse.Namespace) -> Found:
    """Return what was run, on what, with which versions."""
    import torch  # noqa: PLC0415 - as late as can be: a refusal and --help are quick
    from machine import description, versions  # noqa: PLC0415

    machine, cuda = description(), arguments.device == "cuda"
    commit = _output("git", "-C", str(HERE), "rev-parse", "HEAD")
    changed = _output("git", "-C", str(HERE), "status", "--porcelain", "--", "../src", ".") if commit else None
    return {
        "benchmark": "gpu",
        "tiny": arguments.tiny,
        "minutes": arguments.minutes,
        "parts_in_order": [part for part in MODULES if part in arguments.parts],
        "began_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "commit_reason": None if commit else "no git here, or no repository",
        "uncommitted_changes": None if changed is None else bool(changed),
        "hardware": {
            "name": torch.cuda.get_device_name(0) if cuda else machine["cpu"],
            "gpu": _gpu() if cuda else None,
            "gpu_reason": None if cuda else "--device cpu",
            "host": machine,
        },
        "versions": versions(),
    }


def _gpu() -> Found:
    import torch  # noqa: PLC0415

    properties = torch.cuda.get_device_properties(0)
    driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0")
    return {
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "driver_version": driver,
        "driver_version_reason": None if driver else "nvidia-smi gave none",
        "cuda_version": torch.version.cuda,
    }


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _save(text: str, hardware: str, arguments: argparse.Namespace) -> None:
    slug = re.sub(r"[^a-z0-9]+", "-", hardware.lower()).strip("-")
    real = arguments.device == "cuda" and not arguments.tiny
    path = arguments.out or (HERE / "results" / f"gpu-{slug}.json" if real else None)
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        _write(Path(path), json.loads(text))


def _write(path: Path, content: Found) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it wrote nothing"


def _refusal(arguments: argparse.Namespace) -> str | None:
    """Return in one line why nothing can be measured here."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return f"benchmarks/gpu.py needs {', '.join(missing)}, which cannot be imported here; install or carry a wheel"
    if arguments.device == "cuda":
        import torch  # noqa: PLC0415

        if not torch.cuda.is_available():
            return f"no CUDA device that torch {torch.__version__} can use; --device cpu --tiny tries the scripts only"
    elif not arguments.tiny:
        return "--device cpu measures nothing of interest; add --tiny to try the scripts"
    return None


def _parts(text: str) -> list[str]:
    unknown = [name for name in text.split(",") if name not in MODULES]
    if unknown:
        raise argparse.ArgumentTypeError(f"no part {unknown[0]!r}; there are {', '.join(MODULES)}")
    return text.split(",")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--worker", choices=tuple(MODULES), help=argparse.SUPPRESS)
    add("--answer", help=argparse.SUPPRESS)
    add("--until", type=float, help=argparse.SUPPRESS)
    add("--minutes", type=float, default=8.0, help="most time for all parts together (default 8)")
    add("--parts", type=_parts, default=list(MODULES), help=f"some of {','.join(MODULES)} (default all)")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only tries the scripts (default cuda)")
    add("--tiny", action="store_true", help="toy sizes, to try the scripts; figures mean nothing")
    add("--out", help="write the JSON to this file (default results/gpu-<hardware>.json, where it is a real run)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
