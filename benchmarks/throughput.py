"""How fast tiebreak trains beside TRL 1.16, on real pairs, in one run, on a CPU.

    python benchmarks/throughput.py --data hh --json
    python benchmarks/throughput.py --data summedits --method full --rounds 5 --out result.json
    python benchmarks/throughput.py --data ultrafeedback --contestants tiebreak_cached,trl_tuned
    python benchmarks/throughput.py --data hh --dtype bfloat16 --contestants tiebreak,tiebreak_cached,trl_default
    python benchmarks/throughput.py --data hh --scaling 100,1000,10000

Contestants: `tiebreak` (live reference), `tiebreak_cached` (reference values known before the clock starts),
`trl_default` (DPOConfig's defaults: gradient checkpointing, live reference), `trl_tuned` (no checkpointing, reference
precomputed before the clock starts), `trl_tuned_grouped` (the same in batches of similar length). All have the same
weights, adapter, ids, order, pairs per step, rate, schedule, beta, decay and clipping, and compute in fp32, or all in
bfloat16 (--dtype; TRL then as by its own default bf16). Each runs alone in its own process, one after the other; the
order turns with every round and every round takes new pairs.

Timed are optimizer steps only: forward, backward, clipping, optimizer. Loading, tokenising and one small step before
the first are not. Memory is the most resident bytes of the process over its whole life. What the ratios are and how
operations are counted (forward 2 N, backward 4 N or 2 N with LoRA, live reference 2 N for each unique token, and 2 V d
for each scored position and product of the head) is in reckoning.py.

One JSON object on stdout with --json, else a table; progress on stderr. Exit code 1 where a loss of tiebreak is further
than 1e-4 (bfloat16: 0.05) from TRL's at the same step, or a contestant did not come through; 2 where nothing could be
measured. TRL comes with the test extra.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs import CONTESTANTS, HERE, JobError, Settings, work
from rounds import contest, growth

SHARED = Path(os.environ.get("TIEBREAK_SHARED", HERE.parents[1] / "shared"))
DATA = {
    "hh": ("hh_harmless_base_test.raw.jsonl.gz", 512),
    "ultrafeedback": ("ultrafeedback_binarized_1200.jsonl.gz", 1024),
    "summedits": ("summedits_pairs.jsonl.gz", 1024),
}
"""Name -> file in the data folder, most tokens of prompt plus completion."""
LONGEST = 1024
BUNDLED = "smollm2-135m-instruct"
TINY = SHARED / "models" / "stories260k"
LEARNING_RATES = {"lora": 5e-5, "full": 1e-6}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, or one job of it, and return the exit code."""
    arguments = _arguments(argv)
    if arguments.worker:
        work(Path(arguments.worker))
        return 0
    settings = settings_of(arguments)
    if fault := _fault(settings, arguments.out):
        print(f"error: {fault}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="tiebreak-benchmark-") as folder:
        try:
            if arguments.scaling:
                result = growth(settings, arguments.scaling, folder)
            else:
                result = contest(settings, arguments.contestants, folder)
        except JobError as error:
            print(error, file=sys.stderr)
            return 2
    text = json.dumps(result, indent=2)
    if arguments.out:
        Path(arguments.out).write_text(text + "\n", encoding="utf-8")
    if arguments.json:
        print(text)
    else:
        _show(result)
    return 0 if arguments.scaling or (result["trajectory"]["passed"] and not result["failures"]) else 1


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the settings with every default filled in."""
    file, longest = DATA.get(arguments.data, (arguments.data, LONGEST))
    tiny = arguments.scaling and TINY.is_dir()
    return Settings(
        data=str(Path(arguments.data_dir) / file if arguments.data in DATA else Path(file)),
        model=arguments.model or (str(TINY) if tiny else BUNDLED),
        method=arguments.method,
        max_length=arguments.max_length or longest,
        pairs_per_step=arguments.pairs_per_step,
        steps=arguments.steps,
        rounds=arguments.rounds,
        learning_rate=arguments.learning_rate or LEARNING_RATES[arguments.method],
        group_pool=arguments.group_pool,
        grouped_steps=arguments.grouped_steps,
        scaling_steps=arguments.scaling_steps,
        sgemm_sizes=tuple(arguments.sgemm),
        threads=arguments.threads,
        dtype=arguments.dtype,
    )


def _fault(settings: Settings, out: str | None) -> str | None:
    """Return what would end the benchmark only after minutes of work, or None."""
    if not Path(settings.data).is_file():
        return f"{settings.data}: no such file; --data names one, --data-dir the folder of {', '.join(DATA)}"
    if out and not Path(out).parent.is_dir():
        return f"{out}: its folder does not exist"
    return None


def _show(result: dict[str, Any]) -> None:
    from tables import show  # noqa: PLC0415 - jobs never draw

    show(result)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"wanted a number of at least 1, found {text}")
    return value


def _numbers(text: str) -> list[int]:
    return [_positive(part) for part in text.split(",")]


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in CONTESTANTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no contestant {unknown[0]!r}; there are {', '.join(CONTESTANTS)}")
    return list(dict.fromkeys(names))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--worker", help=argparse.SUPPRESS)
    add("--data", default="hh", help=f"{', '.join(DATA)}, or a file of pairs (default hh)")
    add("--data-dir", default=str(SHARED / "data" / "prefs"), help="folder of the named files")
    add("--model", help=f"hub id, folder or bundled name (default {BUNDLED}; with --scaling stories260k, where it is)")
    add("--method", choices=("lora", "full"), default="lora", help="what is trained (default lora)")
    add("--rounds", type=_positive, default=3, help="times that every contestant runs (default 3)")
    add("--steps", type=_positive, default=2, help="optimizer steps of a contestant in a round (default 2)")
    add("--pairs-per-step", type=_positive, default=8, help="pairs behind one optimizer step (default 8)")
    add("--max-length", type=_positive, help="most tokens of prompt plus completion (default 512 for hh, else 1024)")
    add("--learning-rate", type=float, help="peak rate (default 5e-5 for lora, 1e-6 for full)")
    add("--contestants", type=_names, default=list(CONTESTANTS), help=f"some of {','.join(CONTESTANTS)}")
    add("--group-pool", type=_positive, default=400, help="pairs that TRL groups by length (default 400)")
    add("--grouped-steps", type=_positive, default=4, help="steps taken of the grouped pool (default 4)")
    add("--sgemm", type=_numbers, default=[2048, 4096], help="sizes of the matrix products (default 2048,4096)")
    add("--threads", type=_positive, help="threads of every contestant (default: what torch takes)")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="arithmetic of all (default float32)")
    add("--scaling", type=_numbers, help="numbers of pairs, as 100,1000,10000: tiebreak's cost at each, no contest")
    add("--scaling-steps", type=_positive, default=20, help="optimizer steps at each number (default 20)")
    add("--json", action="store_true", help="print one JSON object instead of a table")
    add("--out", help="also write the JSON to this file")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
