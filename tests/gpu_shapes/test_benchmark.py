"""A dry run of benchmarks/gpu.py: every case that a GPU would measure goes through, on tensors without numbers."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import gpu
from gpu_models import Setting

from fake_card import CARD, TOTAL

UNTRIED = {"flex": "is compiled, for which there has to be a device"}


@pytest.fixture
def setting(monkeypatch, waits):
    told = SimpleNamespace(total_memory=TOTAL, name="a card that is not there", major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: told)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: told.name)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "Event", _Event)
    monkeypatch.setattr(torch.nn.Module, "_apply", _anew)
    return Setting(CARD, tiny=True)


class _Event:
    """A moment; a millisecond lies between any two."""

    def __init__(self, **_):
        pass

    def record(self):
        pass

    def synchronize(self):
        pass

    def elapsed_time(self, _):
        return 1.0


def _anew(network, change, recurse=True):
    """What `to` and `float` do, by other parameters: fake ones cannot be exchanged where they are."""
    known = {}
    for module in network.modules():
        for name, one in module._parameters.items():
            if one is not None:
                known.setdefault(id(one), torch.nn.Parameter(change(one.detach()), one.requires_grad))
                module._parameters[name] = known[id(one)]
        module._buffers |= {name: change(one) for name, one in module._buffers.items() if one is not None}
    return network


@pytest.mark.parametrize("part", ["parity", "attention", "throughput"])
def test_every_case_of_a_part_goes_through(part, setting):
    module = __import__(gpu.MODULES[part])
    found = {
        name: gpu._outcome(measure, 1.0)
        for name, measure in module.cases(part, setting).items()
        if not any(word in name for word in UNTRIED)
    }
    wrong = {name: one["reason"] for name, one in found.items() if one["status"] != "measured"}
    assert found and not wrong, "\n".join(f"{name}: {reason}" for name, reason in wrong.items())
