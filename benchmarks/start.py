"""How long a newcomer waits: seconds to the first line of `tiebreak train`, and to each line that follows.

    python benchmarks/start.py
    python benchmarks/start.py --rounds 5 --until records
    python -X importtime -c "import tiebreak.cli.app; import tiebreak.verbs.train"

Each round starts the quickstart in a new interpreter and a new folder, takes the time of each line on standard error,
and ends it once a line holds the word `--until`. Median and range of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Seconds to each line of the first ones of tiebreak train.")
    parser.add_argument("--rounds", type=int, default=3, help="how often it is started")
    parser.add_argument("--until", default="parameters train", help="the round ends with a line that holds this")
    options = parser.parse_args()
    found: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for line, seconds in lines(options.until):
            found.setdefault(line, []).append(seconds)
    for line, times in found.items():
        print(f"{statistics.median(times):6.2f} s ({min(times):.2f} … {max(times):.2f})  {line}")


def lines(until: str) -> list[tuple[str, float]]:
    """Return the first lines that training prints, up to one that holds `until`, with the seconds to each."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "tiebreak", "train", "--set", f"output.dir={folder}/run"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        found: list[tuple[str, float]] = []
        assert process.stderr is not None
        for line in process.stderr:
            found.append((line.strip()[:80], time.perf_counter() - began))
            if until in line:
                break
        process.kill()
        process.wait()
    return found


if __name__ == "__main__":
    main()
