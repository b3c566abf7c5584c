from __future__ import annotations

import copy

import peft
import pytest
import torch
from peft.tuners.lora.layer import Linear
from torch import nn
from transformers.pytorch_utils import Conv1D

from families import DECODER, GPT, PACKABLE, build, plain
from tiebreak.engine import fused_lora
from tiebreak.engine.fused_lora import FusedLora, fuse, unfuse
from tiebreak.engine.loading import quietly
from tiny import disturb, load, scores, settings, token_pairs

PAIRS = token_pairs(4)


@pytest.fixture
def policy(tiny_model):
    return disturb(load(settings(tiny_model))).policy


def _fused(model):
    layers = (layer for layer in model.modules() if type(layer) is Linear)
    return [layer for layer in layers if any(isinstance(one, FusedLora) for one in layer.lora_variant.values())]


def _values_and_gradients(policy):
    policy.network.train().zero_grad()
    gap = scores(policy, PAIRS).gap
    gap.sum().backward()
    return gap.detach(), {name: p.grad.clone() for name, p in policy.trainable}


def test_values_and_gradients_are_peft_s_own(policy):
    assert _fused(policy.network)
    gap, gradients = _values_and_gradients(policy)
    unfuse(policy.network)
    assert not _fused(policy.network)
    expected, wanted = _values_and_gradients(policy)
    assert torch.allclose(gap, expected, rtol=1e-6)
    for name, gradient in gradients.items():
        assert (gradient - wanted[name]).abs().max() <= 1e-5 * wanted[name].abs().max(), name


def test_layers_with_dropout_and_other_variants_stay_as_they_are(tiny_model):
    policy = load(settings(tiny_model, adapter__dropout=0.1)).policy
    assert not _fused(policy.network)


def test_fusing_twice_is_fusing_once(policy):
    fuse(policy.network)
    assert all(len(layer.lora_variant) == 1 for layer in _fused(policy.network))


def test_a_fused_layer_merges_after_it_was_unfused(policy):
    policy.network.eval()
    expected = scores(policy, PAIRS)
    merged = copy.deepcopy(policy.network)
    unfuse(merged)
    found = scores(policy.with_network(merged.merge_and_unload()), PAIRS)
    assert torch.allclose(found.chosen, expected.chosen, rtol=1e-5)


def test_an_input_in_another_precision_takes_peft_s_form(policy):
    layer = _fused(policy.network)[0]
    x = torch.randn(1, 3, layer.in_features)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = layer(x)
    assert torch.allclose(narrow.float(), layer(x), rtol=0.05, atol=0.05)


def test_a_second_adapter_at_work_keeps_its_gradients(policy):
    first = next(iter(policy.network.peft_config))
    policy.network.add_adapter("second", policy.network.peft_config[first])
    fuse(policy.network)
    policy.network.base_model.set_adapter([first, "second"])
    for name, parameter in policy.network.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_B.second" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    trained = [(name, p) for name, p in policy.network.named_parameters() if p.requires_grad]
    found = []
    for change in (lambda _: None, unfuse):
        change(policy.network)
        policy.network.train().zero_grad()
        scores(policy, PAIRS).gap.sum().backward()
        found.append({name: p.grad.clone() for name, p in trained})
    assert any("second" in name for name in found[0])
    for name, gradient in found[0].items():
        assert (gradient - found[1][name]).abs().max() <= 1e-5 * found[1][name].abs().max(), name


def test_a_base_that_is_trained_as_well_keeps_its_gradient(policy):
    layer = _fused(policy.network)[0]
    layer.base_layer.weight.requires_grad_(True)
    x = torch.randn(1, 5, layer.in_features)
    found = []
    for change in (lambda _: None, unfuse):
        change(policy.network)
        layer.zero_grad()
        layer(x).square().sum().backward()
        found.append(layer.base_layer.weight.grad.clone())
    assert torch.allclose(*found, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------ every kind of layer, every choice


def _adapted(network, targets="all-linear", **settings):
    """A LoRA policy on its way: where B is still zero, gradients of A vanish and prove nothing."""
    kind = peft.LoraConfig(r=3, lora_alpha=6, target_modules=targets, task_type="CAUSAL_LM", **settings)
    with quietly():
        model = peft.get_peft_model(network.requires_grad_(False), kind)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def _learned(network):
    """The values of some pairs, and the gradient of every parameter that is trained."""
    network.train().zero_grad()
    gap = plain(network).tokens(PAIRS).summed().paired().gap
    gap.sum().backward()
    return {"gap": gap.detach()} | {n: p.grad.clone() for n, p in network.named_parameters() if p.requires_grad}


def _the_same_fused(network):
    """How many layers are fused, if values and gradients are those of peft's own forward pass."""
    wanted, said = _learned(network), []
    fuse(network, said.append)
    found = _learned(network)
    assert not said
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm(), name
    return len(_fused(network))


@pytest.mark.parametrize("targets", ["all-linear", ["c_attn"], ["c_proj"], ["c_fc"], ["c_attn", "c_fc"]], ids=str)
def test_layers_that_are_no_plain_linear_ones_keep_peft_s_gradients(targets):
    assert _the_same_fused(_adapted(build("gpt2", **GPT), targets)) == 0


FAMILIES = ["llama", "phi", "gpt_neox", "opt", "gemma2", "qwen3_moe", "deepseek_v3", "gpt_bigcode", "cohere"]


@pytest.mark.parametrize("kind", FAMILIES)
def test_an_adapter_of_a_family_learns_what_peft_s_own_does(kind):
    assert _the_same_fused(_adapted(build(kind, **PACKABLE[kind])))


KINDS = {
    "rank-stabilized": ({"use_rslora": True}, True),
    "with biases of its own": ({"lora_bias": True}, True),
    "with the biases that it targets": ({"bias": "lora_only"}, True),
    "with a whole module": ({"modules_to_save": ["lm_head"]}, True),
    "with ranks by layer": ({"rank_pattern": {"q_proj": 5}, "alpha_pattern": {"v_proj": 1}}, True),
    "with magnitudes": ({"use_dora": True}, False),
    "with dropout of nothing": ({"lora_dropout": 0.0}, True),
}


@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
@pytest.mark.parametrize("case", KINDS)
def test_every_kind_of_adapter_learns_what_peft_s_own_does(case):
    settings, fused = KINDS[case]
    network = build("qwen2", **DECODER)
    assert bool(_the_same_fused(_adapted(network, ["q_proj", "v_proj", "down_proj"], **settings))) is fused


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("kind", "fused"), [("gpt2", 0), ("llama", 14)])
def test_activations_that_are_computed_twice_change_no_gradient(kind, fused):
    network = _adapted(build(kind, **PACKABLE[kind]))
    network.enable_input_require_grads()
    network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert _the_same_fused(network) == fused


class _Halved(nn.Linear):
    def forward(self, rows):
        return super().forward(rows).view(rows.shape[0], -1).view(*rows.shape[:-1], -1) / 2


def test_a_subclass_of_a_linear_layer_keeps_peft_s_forward_pass():
    network = build("llama", **DECODER)
    for layer in network.model.layers:
        layer.mlp.up_proj.__class__ = _Halved
    model = _adapted(network, ["up_proj", "down_proj"])
    assert _the_same_fused(model) == 2
    assert all(type(layer.base_layer) is not _Halved for layer in _fused(model))


def test_layers_of_other_kinds_under_an_adapter_stay_peft_s():
    network = nn.Sequential(nn.Embedding(9, 8), Conv1D(6, 8), nn.Linear(6, 4))
    kind = peft.LoraConfig(r=2, target_modules=["0", "1", "2"])
    with quietly():
        model = peft.get_peft_model(network, kind)
    fuse(model)
    assert [type(layer.base_layer) for layer in _fused(model)] == [nn.Linear]


def test_an_expert_that_gets_no_token_learns_nothing_and_stops_nothing(policy):
    layer = _fused(policy.network)[0]
    rows = torch.zeros(0, layer.in_features, requires_grad=True)
    layer(rows).sum().backward()
    assert rows.grad.shape == rows.shape


@pytest.mark.parametrize(
    "made",
    [
        lambda x: x.view(2, 3, 4, -1),
        lambda x: x.view(6, 4, -1).transpose(0, 1),
        lambda x: x[:1].expand(8, -1),
        lambda x: x[::2],
        lambda x: x.view(4, 6, -1)[:, 1:4],
        lambda x: x[0],
    ],
    ids=["four axes", "turned", "one row again and again", "every second", "a part of each", "one axis"],
)
def test_a_fused_layer_takes_rows_as_they_lie_in_memory(policy, made):
    layer = _fused(policy.network)[0]
    results = []
    for _ in range(2):
        x = torch.linspace(-1, 1, 24 * layer.in_features).view(24, -1).requires_grad_()
        layer.zero_grad()
        out = layer(made(x))
        out.square().sum().backward()
        results.append([out.detach(), x.grad, *(p.grad for p in layer.parameters() if p.requires_grad)])
        unfuse(policy.network)
    for one, two in zip(*results, strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-5 * float(two.abs().max()))


def test_a_kind_that_is_not_proven_is_not_fused_and_named(monkeypatch):
    def wrong(*_, result, **__):
        return 2 * result

    said = []
    model = _adapted(build("llama", **DECODER), ["q_proj"])
    monkeypatch.setattr(FusedLora, "forward", staticmethod(wrong))
    fuse(model, said.append)
    assert not _fused(model)
    [line] = said
    assert "keeps peft's own forward pass" in line


def test_proving_moves_neither_weights_nor_random_streams():
    model = _adapted(build("llama", **DECODER))
    before, stream = {name: p.clone() for name, p in model.named_parameters()}, torch.get_rng_state()
    fuse(model)
    assert _fused(model)
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())


def test_narrow_weights_keep_peft_s_forward_pass_and_nothing_is_told_of_their_rounding():
    said = []
    model = _adapted(build("llama", **DECODER)).to(torch.bfloat16)
    fuse(model, said.append)
    assert not _fused(model)
    assert said == []


def _mixed(name="llama", **more):
    """fp32 factors, at work, on a frozen base in bf16; and the same weights all in fp32."""
    torch.manual_seed(1)
    network = build(name, **DECODER).to(torch.bfloat16)
    with quietly():
        model = peft.get_peft_model(
            network, peft.LoraConfig(r=4, target_modules=["q_proj", "up_proj", "down_proj"], **more)
        )
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    return model, copy.deepcopy(model).float()


def _learned_in(model, dtype):
    model.train().zero_grad()
    scorer = plain(model, dtype)
    values = scorer.tokens(PAIRS).values
    values.sum().backward()
    return [values.detach(), *(p.grad.clone() for p in model.parameters() if p.requires_grad)]


def _far(found, wanted):
    return torch.tensor(
        [float((one.float() - two).norm() / two.norm()) for one, two in zip(found, wanted, strict=True)]
    )


def test_in_bfloat16_values_and_gradients_are_as_near_the_exact_ones_as_peft_s():
    model, wide = _mixed()
    wanted, theirs = _learned_in(wide, torch.float32), _learned_in(model, torch.bfloat16)
    said = []
    fuse(model, said.append)
    assert len(_fused(model)) == 6
    assert said == []
    found = _learned_in(model, torch.bfloat16)
    assert all(one.dtype == two.dtype for one, two in zip(found, theirs, strict=True))
    # Rounding falls this way or that in one tensor; over all of them it has to be no worse.
    assert _far(found, wanted).mean() <= 1.1 * _far(theirs, wanted).mean()
    assert _far(theirs, wanted).max() < 0.05


def test_in_bfloat16_rows_are_not_widened_on_their_way():
    model, _ = _mixed()
    fuse(model)
    layer, seen = _fused(model)[0], []
    layer.lora_A["default"].register_forward_pre_hook(lambda _, rows: seen.append(rows))
    rows = torch.randn(3, layer.in_features).bfloat16()
    assert layer(rows).dtype == torch.bfloat16  # without autocast, as answers are made
    assert not seen
    assert not layer.cast_input_dtype_enabled
    unfuse(model)
    assert layer.cast_input_dtype_enabled
    assert layer(rows).dtype == torch.bfloat16
    assert seen[0][0].dtype == torch.float32


def test_in_bfloat16_rows_that_are_wide_take_a_form_that_is_right():
    model, wide = _mixed()
    fuse(model)
    rows = torch.randn(3, _fused(model)[0].in_features)
    with torch.autocast("cpu", torch.bfloat16):
        found = _fused(model)[0](rows)
    layers = [layer for layer in wide.modules() if type(layer) is Linear]
    assert torch.allclose(found.float(), layers[0](rows), rtol=0.05, atol=0.05)


def test_a_layer_with_another_adapter_that_is_not_fused_goes_on_widening_its_rows():
    model, _ = _mixed()
    with quietly():
        model.add_adapter("second", peft.LoraConfig(r=2, target_modules=["q_proj"], lora_dropout=0.5))
    model.base_model.set_adapter(["default"])
    fuse(model)
    casts = {layer.cast_input_dtype_enabled for layer in _fused(model) if "second" in layer.lora_A}
    assert casts == {True}


def test_an_adapter_that_is_added_later_works_without_autocast_as_peft_s_own():
    model, _ = _mixed()
    fuse(model)
    with quietly():
        model.add_adapter("later", peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"]))
    model.base_model.set_adapter(["later"])
    ids = torch.tensor([[5, 6, 7, 8]])
    found = model(input_ids=ids).logits
    fuse(model)
    assert all(len(layer._forward_pre_hooks) == 1 for layer in _fused(model))
    unfuse(model)
    assert torch.equal(found, model(input_ids=ids).logits)


@pytest.mark.parametrize("fault", ["value", "gradient of rows", "gradient of B"])
def test_in_bfloat16_a_fault_of_a_few_percent_is_seen(monkeypatch, fault):
    right_forward, right_backward = fused_lora._AddedInPlace.forward, fused_lora._AddedInPlace.backward

    def forward(ctx, x, result, base, down, up, scaling):
        return right_forward(ctx, x, result, base, down, up, scaling * (1.03 if fault == "value" else 1))

    def backward(ctx, gradient):
        found = list(right_backward(ctx, gradient))
        if fault == "gradient of rows":
            found[0] = found[0] * 1.03
        if fault == "gradient of B":
            found[4] = found[4] * 1.03
        return tuple(found)

    wrong = type(
        "_Wrong", (torch.autograd.Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    )
    monkeypatch.setattr(fused_lora, "_AddedInPlace", wrong)
    model, _ = _mixed()
    said = []
    fuse(model, said.append)
    assert not _fused(model)
    [line] = said
    assert "times as far from the exact result" in line
