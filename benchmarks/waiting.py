"""What threads that wait for each other cost, alone and beside a busy process, by the waiting policy of OpenMP.

    python benchmarks/waiting.py
    python benchmarks/waiting.py --rounds 5 --layers 100

For each policy, `--rounds` new processes compute a layer of the shape of SmolLM2-135M over 512 tokens (matrix products
of 512 × 576 × 1536 and 512 × 576 × 576, norms, a softmax: about twenty parallel regions), alone and then beside as many
busy processes as are asked for. Printed are milliseconds a layer: the median of the rounds, and their range. Policies
take turns, so that a machine that changes its mind changes it for all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

POLICIES = {
    "libgomp's own": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "spin 1,000": {"GOMP_SPINCOUNT": "1000"},
    "spin 10,000": {"GOMP_SPINCOUNT": "10000"},
    "spin 100,000": {"GOMP_SPINCOUNT": "100000"},
}
WORK = """
import json, subprocess, sys, time, torch
num_busy, num = map(int, sys.argv[1:])
torch.set_grad_enabled(False)
x, norm, square = torch.randn(512, 576), torch.ones(576), torch.randn(576, 576) / 24
wide, back = torch.randn(576, 1536) / 24, torch.randn(1536, 576) / 39
def layer(x):
    y = torch.nn.functional.rms_norm(x, (576,), norm)
    q, k, v = ((y @ square).view(512, 9, 64).transpose(0, 1) for _ in range(3))
    x = x + (torch.softmax(q @ k.transpose(1, 2) / 8, -1) @ v).transpose(0, 1).reshape(512, 576) @ square
    y = torch.nn.functional.rms_norm(x, (576,), norm)
    return x + (torch.nn.functional.silu(y @ wide) * (y @ wide)) @ back
def layers():
    began = time.perf_counter()
    for _ in range(num):
        layer(x)
    return 1000 * (time.perf_counter() - began) / num
layers()
alone = layers()
others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(num_busy)]
time.sleep(0.5)
beside = layers()
for other in others:
    other.kill()
print(json.dumps([alone, beside]))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Milliseconds by waiting policy, alone and beside busy processes.")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each policy")
    parser.add_argument("--layers", type=int, default=30, help="layers of each measurement")
    parser.add_argument("--busy", type=int, default=1, help="busy processes beside it")
    options = parser.parse_args()
    plain = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    command = [sys.executable, "-c", WORK, str(options.busy), str(options.layers)]
    found: dict[str, list[list[float]]] = {name: [] for name in POLICIES}
    for _ in range(options.rounds):
        for name, policy in POLICIES.items():
            done = subprocess.run(command, env=plain | policy, capture_output=True, text=True, check=True)
            found[name].append(json.loads(done.stdout))
            print(name, found[name][-1], file=sys.stderr, flush=True)
    print(f"{'ms a layer':16}{'alone':>24}{f'beside {options.busy} busy':>24}")
    for name, rounds in found.items():
        sides = zip(*rounds, strict=True)
        print(f"{name:16}" + "".join(f"{statistics.median(s):>10.2f} ({min(s):.2f} … {max(s):.2f})" for s in sides))


if __name__ == "__main__":
    main()
