"""Getting a million pairs ready to train on: tiebreak beside `datasets` and TRL 1.16, in time and in memory.

    python benchmarks/preparation.py                                 # 1,000,000 pairs; TRL on its first 20,000
    python benchmarks/preparation.py --data hh --pairs 20000 --trl-pairs 20000 --rounds 3 --json

A real file is made large: its pairs over and over, each with a number of its own at the end of the prompt, so that no
two are the same pair or the same prompt. Rows are in TRL's own explicit conversational form, the one that costs TRL
the fewest passes. Both get the same tokenizer, chat template and `max_length`.

tiebreak reads, detects the form, checks every record, splits by prompt, renders and accounts for what it drops, in two
processes by default; `tiebreak_audit` looks at every pair beforehand, as `tiebreak check` does; `tiebreak_again` is
the second of two starts with the same file that keep tokens and findings (`data.store`) in an empty folder, each in a
process of its own: its parts say what the first one took, writing included, and how many bytes were kept. TRL's part is
`load_dataset("json")` and then `DPOTrainer._prepare_dataset` itself, as the trainer calls it: by default in one
process, and with `dataset_num_proc=2`. Seconds are wall clock within the contestant, after its imports and after its
tokenizer is there. Memory is the most that the contestant and its children held together, sampled ten times a second:
resident (files that are mapped, and may be dropped at any time, included) and anonymous (what only swap could take).

Every contestant is a process of its own with an empty cache; the order turns around from round to round. Ratios are of
pairs per second, of the same round, and their median is told. Two things to know when reading them: TRL's rate is taken
from fewer pairs, which is to its benefit if anything (its memory and its Arrow files grow), and pairs that repeat have
no new words, which is to the benefit of the tokenizer's own memory of words on both sides: `--pairs` of no more than
the file holds is the case without any repetition.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("TIEBREAK_SHARED", HERE.parents[1] / "shared"))
DATA = {"hh": "hh_harmless_base_test.raw.jsonl.gz", "ultrafeedback": "ultrafeedback_binarized_1200.jsonl.gz"}
CONTESTANTS = ("tiebreak", "tiebreak_audit", "tiebreak_again", "trl_default", "trl_two")
SAMPLE_SECONDS = 0.1
Result = dict[str, Any]


# ---------------------------------------------------------------------------------------------------------- contestants


def prepare_with_tiebreak(path: Path, model: str, max_length: int, workers: int, audit: bool, store: str) -> Result:
    """Return what tiebreak takes for a file, from its path to both sides of the split as tokens."""
    from transformers import AutoTokenizer  # noqa: PLC0415 - a contestant loads what it needs, and no more

    from tiebreak.config import DataConfig  # noqa: PLC0415
    from tiebreak.data.ready_made import ready_made  # noqa: PLC0415
    from tiebreak.data.render import Renderer  # noqa: PLC0415
    from tiebreak.doctor.remembered import remembered  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(model)
    data = DataConfig(train=str(path), max_length=max_length, max_dropped_share=1.0, store=store)
    began = time.perf_counter()
    if audit:
        remembered(data, num_workers=workers)
    audited = time.perf_counter()
    found = ready_made(data, Renderer(tokenizer, (tokenizer.eos_token_id,), data), num_workers=workers)
    done = time.perf_counter()
    return {
        "num_records": found.report["num_records"],
        "num_kept": found.report["num_train_pairs"] + found.report["num_heldout_pairs"],
        "num_tokens": int(found.train.num_unique_tokens.sum()),
        "seconds": done - began,
        "parts": {"audit": audited - began, "prepare": done - audited},
    }


def prepare_with_trl(path: Path, model: str, max_length: int, num_proc: int | None) -> Result:
    """Return what `datasets` and TRL take for a file, from its path to the columns that DPOTrainer trains on."""
    from datasets import load_dataset  # noqa: PLC0415
    from transformers import AutoTokenizer  # noqa: PLC0415
    from trl import DPOConfig, DPOTrainer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(model)
    with tempfile.TemporaryDirectory() as folder:
        arguments = DPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,  # TRL's default is True
            max_length=max_length,
            dataset_num_proc=num_proc,
            report_to="none",
        )
        began = time.perf_counter()
        dataset = load_dataset("json", data_files=str(path), split="train", cache_dir=folder)
        loaded = time.perf_counter()
        num_records = len(dataset)
        # The method asks its trainer for nothing but the tokenizer.
        trainer: Any = SimpleNamespace(_tokenizer=tokenizer)
        dataset = DPOTrainer._prepare_dataset(trainer, dataset, tokenizer, arguments, "train")
        done = time.perf_counter()
        return {
            "num_records": num_records,
            "num_kept": len(dataset),
            "seconds": done - began,
            "parts": {"load": loaded - began, "prepare": done - loaded},
        }


def contest(arguments: argparse.Namespace) -> Result:
    """Do the work of one contestant in this process."""
    path, kind = Path(arguments.file), arguments.contestant
    if kind.startswith("tiebreak"):
        limits = arguments.max_length, arguments.workers
        return prepare_with_tiebreak(path, arguments.model, *limits, kind != "tiebreak", arguments.store)
    return prepare_with_trl(path, arguments.model, arguments.max_length, 2 if kind == "trl_two" else None)


# ---------------------------------------------------------------------------------------------------------- the contest


def compare(arguments: argparse.Namespace) -> Result:
    """Return every contestant's results, and their medians and ratios."""
    with tempfile.TemporaryDirectory(prefix="tiebreak-benchmark-", dir=arguments.scratch) as folder:
        files = {num: write_rows(arguments, num, Path(folder)) for num in {arguments.pairs, arguments.trl_pairs}}
        rounds = []
        for index in range(arguments.rounds):
            order = arguments.contestants[:: -1 if index % 2 else 1]
            rounds.append({kind: _started(arguments, kind, files[_num(arguments, kind)], folder) for kind in order})
    return {
        "settings": _named(vars(arguments)),
        "machine": {"logical_cpus": os.cpu_count(), "load_average": list(os.getloadavg())},
        "rounds": rounds,
        "summary": summary(rounds),
    }


def _named(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with file names in place of the paths of this machine."""
    left_out = ("contestant", "file", "store", "out", "data_dir", "scratch")
    told = {key: value for key, value in arguments.items() if key not in left_out}
    return told | {key: Path(str(told[key])).name for key in ("data", "model") if told.get(key)}


def write_rows(arguments: argparse.Namespace, num: int, folder: Path) -> Path:
    """Write `num` different pairs in TRL's explicit conversational form."""
    path = folder / f"{num}.jsonl"
    with path.open("w", encoding="utf-8") as sink:
        for row in islice(_numbered(arguments), num):
            sink.write(json.dumps(row) + "\n")
    return path


def _numbered(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from tiebreak.data.whole import read_pairs  # noqa: PLC0415

    named = Path(arguments.data_dir) / DATA[arguments.data] if arguments.data in DATA else Path(arguments.data)
    for index, pair in enumerate(cycle(read_pairs(str(named)).pairs)):
        prompt = [message.as_dict() for message in pair.prompt]
        prompt[-1]["content"] += f" #{index:07}"
        yield {"prompt": prompt, "chosen": [pair.chosen.as_dict()], "rejected": [pair.rejected.as_dict()]}


def summary(rounds: Sequence[dict[str, Result]]) -> Result:
    """Return medians over rounds, and the ratio of rates to each contestant of the same round."""
    kinds = list(rounds[0])
    medians = {
        kind: {
            key: statistics.median(done[kind][key] for done in rounds)
            for key in ("seconds", "pairs_per_second", "peak_rss_bytes", "peak_anonymous_bytes")
        }
        for kind in kinds
    }
    rates = [{kind: done[kind]["pairs_per_second"] for kind in kinds} for done in rounds]
    ratios = {
        f"{one}/{other}": statistics.median(found[one] / found[other] for found in rates)
        for one in kinds
        for other in kinds
        if one.startswith("tiebreak") and other.startswith("trl")
    }
    return {"medians": medians, "rate_ratios": ratios}


def _num(arguments: argparse.Namespace, kind: str) -> int:
    return arguments.trl_pairs if kind.startswith("trl") else arguments.pairs


def _started(arguments: argparse.Namespace, kind: str, path: Path, scratch: str) -> Result:
    """Return a contestant's result: of one start, or of the second of two."""
    if kind != "tiebreak_again":
        return _run(arguments, kind, path, scratch, "off")
    with tempfile.TemporaryDirectory(dir=scratch) as store:
        first, second = (_run(arguments, kind, path, scratch, store) for _ in range(2))
        kept = sum(file.stat().st_size for file in Path(store).rglob("*") if file.is_file())
    taken = {"first_start": first["seconds"], "first_parts": first["parts"], "first_rss": first["peak_rss_bytes"]}
    return second | {"parts": second["parts"] | taken | {"kept_bytes": kept}}


def _run(arguments: argparse.Namespace, kind: str, path: Path, scratch: str, store: str) -> Result:
    """Return a contestant's result and the most memory of its process and all its children."""
    passed = ("model", "max_length", "workers")
    settings = [word for name in passed for word in (f"--{name.replace('_', '-')}", str(getattr(arguments, name)))]
    settings += ["--store", store]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": f"{scratch}/hub", "TMPDIR": scratch}
    process = subprocess.Popen(
        [sys.executable, __file__, "--contestant", kind, "--file", str(path), *settings],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if not arguments.verbose else None,
    )
    peaks = {"peak_rss_bytes": 0, "peak_anonymous_bytes": 0}
    while process.poll() is None:
        for key, found in zip(peaks, _memory(process.pid), strict=True):
            peaks[key] = max(peaks[key], found)
        time.sleep(SAMPLE_SECONDS)
    said = process.stdout.read() if process.stdout else b""
    if process.returncode:
        raise SystemExit(f"{kind} ended with status {process.returncode}; --verbose shows why")
    result: Result = json.loads(said.splitlines()[-1])
    return result | peaks | {"pairs_per_second": result["num_records"] / result["seconds"]}


def _memory(pid: int) -> tuple[int, int]:
    """Return resident and anonymous bytes of a process and its children."""
    try:
        parent = psutil.Process(pid)
        pids = [pid, *(child.pid for child in parent.children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0, 0
    found = [_status(one) for one in pids]
    return sum(fields.get("VmRSS", 0) for fields in found), sum(fields.get("RssAnon", 0) for fields in found)


def _status(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # it has just ended
        return {}
    return {
        line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS:", "RssAnon:"))
    }


# ----------------------------------------------------------------------------------------------------------------- edge


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, or one contestant of it, and return the exit code."""
    arguments = _arguments(argv)
    if arguments.contestant:
        print(json.dumps(contest(arguments)))
        return 0
    result = compare(arguments)
    text = json.dumps(result, indent=2)
    if arguments.out:
        Path(arguments.out).write_text(text + "\n", encoding="utf-8")
    print(text if arguments.json else _table(result))
    return 0


def _table(result: Result) -> str:
    lines = [
        f"{'contestant':16}{'pairs':>10}{'seconds':>10}{'pairs/s':>10}{'µs/pair':>9}{'peak RSS':>11}{'anonymous':>11}"
    ]
    for kind, found in result["summary"]["medians"].items():
        num, rate = result["rounds"][0][kind]["num_records"], found["pairs_per_second"]
        memory = "".join(f"{found[key] / 2**20:>7.0f} MiB" for key in ("peak_rss_bytes", "peak_anonymous_bytes"))
        lines.append(f"{kind:16}{num:>10}{found['seconds']:>10.1f}{rate:>10.0f}{1e6 / rate:>9.0f}{memory}")
    ratios = result["summary"]["rate_ratios"].items()
    return "\n".join([*lines, *(f"{names}: {ratio:.2f} times the pairs per second" for names, ratio in ratios)])


def _names(text: str) -> list[str]:
    unknown = [name for name in text.split(",") if name not in CONTESTANTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no contestant {unknown[0]!r}; there are {', '.join(CONTESTANTS)}")
    return text.split(",")


def _bundled() -> str:
    from tiebreak.config import BUNDLED_MODEL  # noqa: PLC0415
    from tiebreak.engine.bundled import bundled_folder  # noqa: PLC0415 - brings torch, which no contestant needs

    return str(bundled_folder(BUNDLED_MODEL))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    add("--file", help=argparse.SUPPRESS)
    add("--store", default="off", help=argparse.SUPPRESS)
    add("--data", default="ultrafeedback", help=f"{', '.join(DATA)}, or a file of pairs (default ultrafeedback)")
    add("--data-dir", default=str(SHARED / "data" / "prefs"), help="folder of the named files")
    add("--model", help="folder of a tokenizer with a chat template (default the bundled model)")
    add("--pairs", type=int, default=1_000_000, help="pairs for tiebreak (default 1000000)")
    add("--trl-pairs", type=int, default=20_000, help="pairs for TRL (default 20000)")
    add("--workers", type=int, default=2, help="processes of tiebreak (default 2)")
    add("--max-length", type=int, default=1024, help="most tokens of prompt plus completion (default 1024)")
    add("--rounds", type=int, default=3, help="times that every contestant runs (default 3)")
    add("--contestants", type=_names, default=list(CONTESTANTS), help=f"some of {','.join(CONTESTANTS)}")
    add("--scratch", help="folder for temporary files (default the system's)")
    add("--verbose", action="store_true", help="show what contestants write to stderr")
    add("--json", action="store_true", help="print one JSON object instead of a table")
    add("--out", help="also write the JSON to this file")
    arguments = parser.parse_args(argv)
    arguments.model = arguments.model or _bundled()
    return arguments


if __name__ == "__main__":
    sys.exit(main())
