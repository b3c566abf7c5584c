"""Whatever library computes a product, values and gradients are those of torch's own linear layer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from tiebreak.engine import products
from tiebreak.engine.products import BLOCK, FastLinear, filling, speed_up, times_weight
from tiny import disturb, load, scores, settings, token_pairs

CPU = torch.device("cpu")


@pytest.fixture
def onednn(monkeypatch):
    """As on a processor where it is faster for weights of any size, on any whose torch has the operator."""
    if not products._agrees():
        pytest.skip("this build of torch has no such operator")
    calls = []
    kept = products._onednn
    monkeypatch.setattr(products, "LEAST_WEIGHT", 1)
    monkeypatch.setattr(products, "is_faster", lambda *_: True)
    monkeypatch.setattr(products, "onednn_is_faster", lambda *_: True)
    monkeypatch.setattr(products, "_onednn", lambda *given: calls.append(given[0].shape) or kept(*given))
    return calls


@pytest.fixture
def fresh_choice():
    products._agrees.cache_clear()
    yield
    products._agrees.cache_clear()


def _close(found, wanted):
    return torch.allclose(found, wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max().item())


@pytest.mark.parametrize("num_rows", [1, BLOCK - 1, BLOCK, 3 * BLOCK, 3 * BLOCK + 7])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_product_is_torch_s_linear(onednn, num_rows, turned, with_bias):
    generator = torch.Generator().manual_seed(num_rows)
    rows, bias = torch.randn(num_rows, 40, generator=generator), torch.randn(56, generator=generator)
    weight = torch.randn(40, 56, generator=generator).T if turned else torch.randn(56, 40, generator=generator)
    found = times_weight(rows, weight, bias if with_bias else None)
    assert _close(found, linear(rows, weight, bias if with_bias else None))
    assert bool(onednn) == (num_rows % BLOCK == 0)


@pytest.mark.parametrize("trained", [(), ("weight",), ("bias",), ("weight", "bias")])
@pytest.mark.parametrize("shape", [(1, 2 * BLOCK), (2, BLOCK // 2), (BLOCK,)])
def test_a_layer_has_torch_s_gradients(onednn, trained, shape):
    torch.manual_seed(0)
    plain = nn.Linear(24, 36)
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(name in trained)
    fast = copy.deepcopy(plain)
    speed_up(fast, None)
    assert type(fast) is FastLinear
    found, wanted = [], []
    for layer, results in ((fast, found), (plain, wanted)):
        x = torch.linspace(-1, 1, 24 * torch.Size(shape).numel()).view(*shape, 24).requires_grad_()
        out = layer(x)
        out.square().sum().backward()
        results += [out.detach(), x.grad, *(parameter.grad for _, parameter in layer.named_parameters())]
    assert onednn
    assert len(found) == len(wanted) == 4
    for one, two in zip(found, wanted, strict=True):
        assert (one is None and two is None) or _close(one, two)


@pytest.mark.parametrize(
    "made",
    [
        lambda x: x.view(2, 2, BLOCK // 2, 24),
        lambda x: x.view(BLOCK, 2, 24).transpose(0, 1),
        lambda x: x[:1].expand(BLOCK, 24),
        lambda x: x[::2],
        lambda x: x.view(4, -1, 24)[:, :0],
        lambda x: x[0],
    ],
    ids=["four axes", "turned", "one row again and again", "every second", "none", "one axis"],
)
def test_a_layer_takes_rows_as_they_lie_in_memory(onednn, made):
    torch.manual_seed(0)
    plain = nn.Linear(24, 36)
    fast = copy.deepcopy(plain)
    speed_up(fast, None)
    results = []
    for layer in (fast, plain):
        x = torch.linspace(-1, 1, 24 * 2 * BLOCK).view(-1, 24).requires_grad_()
        out = layer(made(x))
        out.square().sum().backward()
        results.append([out.detach(), x.grad, layer.weight.grad, layer.bias.grad])
    for one, two in zip(*results, strict=True):
        assert one.shape == two.shape
        assert one.numel() == 0 or _close(one, two)


def test_other_precisions_and_autocast_stay_torch_s(onednn):
    narrow, layer = nn.Linear(8, 8).bfloat16(), nn.Linear(8, 8)
    speed_up(narrow, None)
    speed_up(layer, None)
    assert type(narrow) is nn.Linear
    x = torch.randn(BLOCK, 8)
    assert layer.double()(x.double()).dtype == torch.float64
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float()(x).dtype == torch.bfloat16
    assert not onednn


def test_where_it_is_no_faster_nothing_changes(monkeypatch):
    monkeypatch.setattr(products, "onednn_is_faster", lambda *_: False)
    model = nn.Sequential(nn.Linear(4, 4))
    speed_up(model, None)
    assert type(model[0]) is nn.Linear
    assert filling(1000, model, CPU, torch.float32) == 0


def _gone(*_):
    raise AttributeError("no such operator")


@pytest.mark.parametrize("broken", [_gone, lambda rows, weight, bias: linear(rows, weight, bias) * 1.01])
def test_an_operator_that_is_gone_or_computes_otherwise_is_not_used(monkeypatch, fresh_choice, broken):
    monkeypatch.setattr(products, "known", lambda _: True)
    monkeypatch.setattr(products, "_onednn", broken)
    assert not products.onednn_is_faster(1024, 1024)
    assert not products.ask(torch.zeros(1024, 1024))


@pytest.mark.parametrize("faster", [False, True])
def test_the_machine_is_asked_for_each_size_of_weight_and_a_weight_that_is_turned_is_of_its_size(monkeypatch, faster):
    if not products._agrees():
        pytest.skip("this build of torch has no such operator")
    asked = []
    monkeypatch.setattr(products, "is_faster", lambda question, *_: asked.append(question))
    monkeypatch.setattr(products, "known", lambda question: faster and question in asked)
    model = nn.Sequential(nn.Linear(96, 192), nn.Linear(192, 96), nn.Linear(8, 8), nn.Linear(96, 300))
    speed_up(model, model[-1])
    assert [type(layer) is FastLinear for layer in model] == [faster, faster, False, False]
    assert [question.rpartition(" of ")[2] for question in asked] == ["192 x 96", "96 x 192", "300 x 96"]
    calls, kept = [], products._onednn
    monkeypatch.setattr(products, "_onednn", lambda *given: calls.append(given) or kept(*given))
    times_weight(torch.randn(BLOCK, 192), model[0].weight.T)
    times_weight(torch.randn(BLOCK, 96), model[-1].weight)
    assert len(calls) == (2 if faster else 0)
    times_weight(torch.randn(BLOCK, 500), torch.randn(600, 500))  # nobody asked, and a run has kept its answers
    assert len(calls) == (2 if faster else 0)
    assert len(asked) == 3


@pytest.mark.parametrize("before", [True, False])
def test_another_default_dtype_or_device_changes_nothing(fresh_choice, monkeypatch, before):
    monkeypatch.setattr(products, "is_faster", lambda _, ways, __: [way() for way in ways()])
    agrees = products._agrees() if before else None
    kept = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        products.ask(torch.zeros(128, 128, dtype=torch.float32))
        with torch.device("meta"):
            products.ask(torch.zeros(128, 128, dtype=torch.float32, device="cpu"))
        assert products._agrees() in ((True, False) if agrees is None else (agrees,))
    finally:
        torch.set_default_dtype(kept)


def test_both_ways_that_are_measured_are_the_same_products():
    if not products._agrees():
        pytest.skip("this build of torch has no such operator")
    one, usual = products._ways(96, 160)
    for found, wanted in zip(one(), usual(), strict=True):
        assert _close(found, wanted)


@pytest.mark.parametrize(("num_rows", "wanted"), [(1530, 6), (1536, 0), (970, 0), (1000, 24), (63, 1), (61, 0), (1, 0)])
def test_rows_are_filled_up_where_that_is_cheap(onednn, num_rows, wanted):
    model = nn.Sequential(nn.Linear(8, 8))
    speed_up(model, None)
    assert filling(num_rows, model, CPU, torch.float32) == wanted
    assert filling(num_rows, model, CPU, torch.bfloat16) == 0
    assert filling(num_rows, model, torch.device("cuda"), torch.float32) == 0


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_a_filled_row_of_fast_products_trains_as_a_plain_one(tiny_model, monkeypatch, onednn, adapter):
    pairs = token_pairs(6)
    monkeypatch.setattr(products, "DEAREST_FILLING", 1e9)  # a short row is filled up, too
    policy = disturb(load(settings(tiny_model, adapter))).policy
    assert any(type(module) is FastLinear for module in policy.network.modules())
    found = _values_and_gradients(policy, pairs)
    assert any(shape[0] % BLOCK == 0 for shape in onednn)
    monkeypatch.setattr(products, "onednn_is_faster", lambda *_: False)
    num = len(onednn)
    plain = disturb(load(settings(tiny_model, adapter, model__layout="plain"))).policy
    wanted = _values_and_gradients(plain, pairs)
    assert len(onednn) == num
    assert found.keys() == wanted.keys()
    for name, one in found.items():
        assert (one - wanted[name]).abs().max() <= 2e-5 * wanted[name].abs().max(), name


def _values_and_gradients(policy, pairs):
    policy.network.train().zero_grad()
    gap = scores(policy, pairs).gap
    gap.sum().backward()
    return {"gap": gap.detach()} | {name: p.grad.clone() for name, p in policy.trainable}
