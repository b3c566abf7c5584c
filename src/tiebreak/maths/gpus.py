"""Kinds of GPUs as their makers sell them: memory, arithmetic, and how fast they reach each other.

Owns these rows, each with its source. Decimal units, one direction of a link, dense products in bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass

GB = 10**9


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU in the machine that it is usually sold in."""

    name: str
    memory_bytes: int
    operations: float
    """Of bfloat16 products in a second, at most."""
    link: float
    """Bytes a second from one GPU to the others of its machine: NVLink, or PCIe where there is none."""
    network: float
    """Bytes a second from one GPU to other machines."""
    source: str
    per_machine: int = 8


_HOPPER = "SXM data sheet (1979 Tflop/s are of sparse products); NVLink 4: 900 GB/s both ways; 8 ConnectX-7 of 400 Gb/s"
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("a100-40", 40 * GB, 312e12, 300e9, 25e9, "A100 data sheet; NVLink 3: 600 GB/s both ways; DGX A100: 8 HDR "
            "adapters of 200 Gb/s"),
        Gpu("a100", 80 * GB, 312e12, 300e9, 25e9, "A100 data sheet; NVLink 3: 600 GB/s both ways; DGX A100: 8 HDR "
            "adapters of 200 Gb/s"),
        Gpu("h100", 80 * GB, 989e12, 450e9, 50e9, f"H100 {_HOPPER}"),
        Gpu("h200", 141 * GB, 989e12, 450e9, 50e9, f"H200 {_HOPPER}"),
        Gpu("b200", 180 * GB, 2250e12, 900e9, 50e9, "DGX B200 data sheet: 1440 GB in 8; 72 Pflop/s of FP8 in 8, half "
            "of that in bfloat16, half of that dense; NVLink 5: 1800 GB/s both ways; 8 ConnectX-7 of 400 Gb/s"),
        Gpu("l40s", 48 * GB, 362e12, 32e9, 12.5e9, "L40S data sheet; no NVLink, PCIe 4 ×16: 64 GB/s both ways; "
            "100 Gb/s a GPU assumed"),
        Gpu("rtx4090", 24 * GB, 165e12, 32e9, 1.25e9, "Ada white paper, products summed in fp32; no NVLink, PCIe 4 "
            "×16: 64 GB/s both ways; 10 Gb/s a GPU assumed"),
    )
}  # fmt: skip
