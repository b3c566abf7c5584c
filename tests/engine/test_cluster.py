"""Plans for GPUs that are not here: what is chosen, what breaks first, and what each part of the answer hangs on."""

from __future__ import annotations

import json

import pytest

from tiebreak.config import build_config
from tiebreak.engine.cluster import plan_cluster
from tiebreak.engine.outline import outline_of
from tiebreak.engine.planner import USABLE
from tiebreak.errors import ConfigError
from tiebreak.maths.gpus import GPUS

OUTLINES = {}


def planned(model="llama-8b", kind="lora", gpus=64, gpu="h200", pair_tokens=None, **settings):
    told = {"model": {"name": model}, "adapter": kind, "training": {"pairs_per_step": 512}, "output": {"dir": "x"}}
    told["training"] |= {
        key: settings.pop(key) for key in ("pairs_per_step", "gradient_checkpointing") if key in settings
    }
    config = build_config({**told, "data": {"max_length": settings.pop("max_length", 1024)}, "distributed": settings})
    outline = OUTLINES.setdefault((model, kind), outline_of(config.model, config.adapter))
    return plan_cluster(
        outline, config.training, config.distributed,
        gpus=gpus, gpu=gpu, max_length=config.data.max_length, pair_tokens=pair_tokens,
    )  # fmt: skip


def test_a_model_that_fits_is_not_sharded():
    found = planned()
    assert (found.chosen.strategy, found.case.fits) == ("ddp", True)
    assert found.chosen.why.endswith("a model that fits is not sharded")
    assert [one.strategy for one in found.others] == ["fsdp", "hsdp"]


def test_one_that_does_not_is_and_the_parts_are_all_that_a_process_holds():
    found = planned("llama-70b")
    assert (found.chosen.strategy, found.chosen.shares, found.case.fits) == ("fsdp", 64, True)
    assert sum(dict(found.parts()).values()) == found.case.peak_bytes <= found.usable_bytes
    assert found.usable_bytes == int(GPUS["h200"].memory_bytes * USABLE)


def test_what_does_not_fit_says_by_how_much_and_on_how_many_it_would():
    found = planned("llama-405b", "none")
    assert not found.case.fits
    assert found.breaks[0].startswith("memory, by ")
    [enough] = [int(word) for word in found.breaks[0].split() if word.isdigit()]
    assert enough % 8 == 0
    assert planned("llama-405b", "none", gpus=enough).case.fits
    assert not planned("llama-405b", "none", gpus=enough - 8).case.fits


def test_a_layer_that_is_too_large_is_not_mended_by_more_of_the_same():
    assert "too large for any number" in planned("llama-405b", "none", gpu="rtx4090", gpus=4096).breaks[0]


def test_gpus_without_a_pair_are_told():
    told = "work: 8 pairs a step leave 56 of 64 GPUs without any (training.pairs_per_step)"
    assert planned(pairs_per_step=8).breaks[0] == told
    assert not any(one.startswith("work") for one in planned(pairs_per_step=64).breaks)


def test_a_network_that_is_too_slow_says_what_would_help():
    found = planned("llama-70b", "none", max_length=256, pair_tokens=400)
    assert found.breaks[0].startswith("the network: sending takes ")
    assert found.case.step_seconds == found.case.sending_seconds > found.case.computing_seconds
    larger = planned("llama-70b", "none", max_length=256, pair_tokens=400, gradient_checkpointing=True)
    assert f"about {larger.case.step_seconds:.2f} s a step" in found.breaks[1]
    assert larger.case.micro_batches < found.case.micro_batches


def test_the_longest_pair_that_fits_fits_and_one_token_more_does_not():
    most = planned("llama-70b").case.longest_that_fits
    assert planned("llama-70b", max_length=most // 2).case.fits
    assert not planned("llama-70b", max_length=most // 2 + 1).case.fits


def test_weights_that_stay_take_memory_and_spare_sending():
    let_go, kept = planned("llama-70b"), planned("llama-70b", reshard_after_forward=False)
    assert kept.case.held.gathered > let_go.case.held.gathered
    assert 2 * kept.case.sent[0].num_bytes // kept.case.micro_batches == pytest.approx(
        let_go.case.sent[0].num_bytes // let_go.case.micro_batches
    )


def test_offloaded_weights_leave_the_gpu_to_activations():
    found = planned("llama-70b", "none", cpu_offload=True)
    assert (found.case.held.weights, found.case.held.host > 0) == (0, True)
    assert [one.strategy for one in found.others] == ["hsdp"]


def test_what_would_be_refused_at_a_start_is_refused_on_paper():
    with pytest.raises(ConfigError, match="hsdp: wanted several machines"):
        planned(gpus=8, strategy="hsdp")
    with pytest.raises(ConfigError, match="gpu 'tpu': is not known; wanted one of a100-40, a100, h100, h200"):
        planned(gpu="tpu")
    with pytest.raises(ConfigError, match="gpus: wanted at least 1"):
        planned(gpus=0)


def test_a_plan_is_told_in_lines_and_in_json():
    found = planned("llama-70b")
    told = json.loads(json.dumps(found.as_dict()))
    assert (told["strategy"], told["shares"], told["num_parameters"]) == ("fsdp", 64, found.num_parameters)
    assert told["parts"]["weights"] == found.case.held.weights
    assert told["instead"].keys() == {"ddp", "hsdp"}
    first, second, *_ = found.lines()
    assert first.startswith("llama-70b: 70.76 billion weights, 0.207 billion trained; 64 × h200 in 8 machines")
    assert second.startswith("strategy fsdp: not all fits into a process")
    assert any(line.startswith("breaks first: ") for line in found.lines())
