"""Tensors written one after the other are the file that safetensors writes of all of them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiebreak.engine.streaming import write

KINDS = (torch.int64, torch.float64, torch.float32, torch.int32, torch.bfloat16, torch.float16, torch.uint8, torch.bool)


@pytest.mark.parametrize("num", [0, 1, 2, len(KINDS)])
def test_a_file_is_to_the_byte_what_safetensors_writes(tmp_path, num):
    tensors = {
        f"{chr(ord('z') - at)}.{kind} é": torch.arange(6).view(2, 3).to(kind) for at, kind in enumerate(KINDS[:num])
    }
    if num:
        tensors |= {
            "number": torch.tensor(7),
            "none": torch.ones(0, 4),
            "b": torch.rand(3),
            "a": torch.rand(5).bfloat16(),
        }
    write(tmp_path / "ours", tensors)
    save_file(tensors, tmp_path / "theirs")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_what_was_written_is_read_as_it_was(tmp_path):
    tensors = {"turned": torch.arange(6.0).view(2, 3).T, "part": torch.arange(10)[2:4]}
    write(tmp_path / "file", tensors)
    found = load_file(tmp_path / "file")
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_who_only_hands_over_writes_nothing(tmp_path):
    write(None, {"a": torch.ones(2)})
    assert list(tmp_path.iterdir()) == []
