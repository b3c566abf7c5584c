"""examples/diffusion_dpo.py runs as it stands, shortened: the true reward rises, and samples stay digits."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("sklearn", reason="the example trains on scikit-learn's digits, and scikit-learn is not installed")

PATH = Path(__file__).parents[1] / "examples" / "diffusion_dpo.py"
SHORT = ["--pretraining-steps", "500", "--pairs", "300", "--steps", "100", "--samples", "100"]


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("diffusion_dpo_example", PATH)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_its_help_names_every_setting(example, capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        example.main(["--help"])
    shown = capsys.readouterr().out
    for option in ("--prefer", "--beta", "--pretraining-steps", "--pairs", "--steps", "--samples", "--seed", "--out"):
        assert option in shown


@pytest.mark.parametrize("prefer", ["bold", "thin"])
def test_the_true_reward_rises_whichever_is_preferred_and_samples_stay_digits(example, prefer, tmp_path, capsys):
    picture = tmp_path / "samples.png"
    before, after = example.main([*SHORT, "--prefer", prefer, *(["--out", str(picture)] if prefer == "bold" else [])])
    rise = after.rewards - before.rewards
    assert after.reward.low > before.reward.high
    assert rise.mean() > 0.01
    # 500 steps make a poor draughtsman: what is held here is that alignment costs it little.
    assert after.read.mean > before.read.mean - 0.1
    assert after.error.mean < 1.2 * before.error.mean
    assert after.variety > 0.8 * before.variety
    assert picture.exists() == (prefer == "bold")
    printed = capsys.readouterr().out
    assert f"{after.reward.mean:.3f} ({after.reward.low:.3f} … {after.reward.high:.3f})" in printed
    assert len(printed.splitlines()) == 7 + 2 + 2 * (2 + 8)


def test_the_same_seed_gives_the_same_samples(example):
    few = ["--pretraining-steps", "20", "--pairs", "20", "--steps", "5", "--samples", "20"]
    (_, one), (_, two), (_, other) = (example.main([*few, "--seed", seed]) for seed in "001")
    assert torch.equal(one.samples, two.samples)
    assert not torch.equal(one.samples, other.samples)
