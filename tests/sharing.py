"""What several processes do together in tests of weights in shares: each check is a function that all of them call."""

from __future__ import annotations

import contextlib
import json
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor
from torch.nn.functional import logsigmoid

from tiebreak.config import ReferenceConfig
from tiebreak.engine.adapters import add_twin
from tiebreak.engine.answers.answerer import Chat, Sampling
from tiebreak.engine.lockstep import idle
from tiebreak.engine.model import Model
from tiebreak.engine.models import load, load_alone
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.sharding import mesh_of, replicate, require_sharded, shard
from tiebreak.engine.shares import clip, full, local_of, put
from tiebreak.engine.weights import gathered_from
from tiebreak.errors import TrainingError
from tiebreak.records import Message
from tiny import scores, settings, token_pairs

CPU = torch.device("cpu")
Found = dict[str, Any]
Check = Callable[[Path], Found]


def together(size: int, checks: Mapping[str, Check], folder: Path) -> dict[str, Found]:
    """Carry out checks in so many processes; return what the first found in each, or how one of them failed."""
    torch.multiprocessing.spawn(_process, (size, list(checks), str(folder)), nprocs=size)
    failed = sorted(folder.glob("failed *.txt"), key=lambda file: file.stat().st_mtime)
    assert not failed, failed[0].read_text()
    return json.loads((folder / "found.json").read_text())


def _process(rank: int, size: int, names: Sequence[str], folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=100))
    found = {}
    for name in names:
        try:
            found[name] = CHECKS[name](Path(folder))
        except BaseException:  # noqa: BLE001 - told by whoever started the processes
            Path(folder, f"failed {rank}.txt").write_text(f"{name}, rank {rank}: {traceback.format_exc()}")
            os._exit(0)  # the others wait for this one, and end with it
    if rank == 0:
        Path(folder, "found.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def alone(folder: Path, name: str, adapter: str, **changes: Any) -> Model:
    """A policy as one process has it, moved so far that no factor of an adapter is zero."""
    config = settings(folder / name, adapter, **changes)
    policy, _, _ = load(config.model, config.adapter, ReferenceConfig(store="off"), seed=0)
    return _moved(policy)


def _moved(policy: Model) -> Model:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        for _, parameter in policy.trainable:
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return policy


def in_shares(read: Callable[[], Model], *, reshard: bool = True, offload: bool = False, copies: int = 1) -> Model:
    """A policy in shares, which the first process alone reads."""
    found = read() if dist.get_rank() == 0 else None
    found = shard(found, mesh_of(CPU, copies), reshard_after_forward=reshard, cpu_offload=offload)
    found.ranks.kept[found.key] = found
    return found


# ---------------------------------------------------------------------------------------------------- optimizer steps

STEPS, BETA, NUM = 3, 0.3, 9


def pairs() -> list[Any]:
    return token_pairs(NUM, num_prompts=4)


def cut(examples: Sequence[Any]) -> list[Sequence[Any]]:
    """Micro-batches of two pairs: of nine, two processes get three and two of them."""
    return [examples[at : at + 2] for at in range(0, len(examples), 2)]


def base_says(policy: Model, group: Sequence[Any]) -> Tensor | float:
    """What the policy says without its adapter, where it has one."""
    if not policy.is_adapter:
        return 0.0
    with evaluation_mode(policy.network), policy.network.disable_adapter(), torch.no_grad():
        return scores(policy, group).gap


def trajectory(policy: Model, groups: Sequence[Sequence[Any]], num_passes: int, *, by_one: bool) -> Found:
    """Three steps of AdamW down a DPO loss: losses, norms, the first gradient; weights and moments at the end."""
    # A wide eps: where a gradient is zero but for rounding (the bias of keys), steps would be of its noise.
    optimizer = torch.optim.AdamW([p for _, p in policy.trainable], lr=1e-2, eps=1e-4)
    held = [p for _, p in policy.trainable]
    losses, norms, gradients = [], [], dict[str, Tensor]()
    policy.network.train()
    for step in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros(())
        for group in groups:
            ours = scores(policy, group).gap
            each = -logsigmoid(BETA * (ours - base_says(policy, group))).sum() / NUM
            each.backward()
            loss += each.detach()
        for _ in range(num_passes - len(groups)):
            idle(policy, lambda probe: (policy.scorer.tokens(probe), base_says(policy, probe)))
        if not by_one:
            dist.all_reduce(loss)
        losses.append(float(loss))
        if step == 0:
            gradients = {name: full(p.grad).clone() for name, p in policy.trainable}
        norms.append(float(torch.nn.utils.clip_grad_norm_(held, 0.5) if by_one else clip(held, 0.5)))
        optimizer.step()
    moments = {(name, key): at for name, p in policy.trainable for key, at in optimizer.state[p].items()}
    return {
        "losses": losses,
        "norms": norms,
        "gradients": gradients,
        "weights": {name: full(p).clone() for name, p in policy.trainable},
        "moments": {key: full(moment).clone() for key, moment in moments.items()},
    }


def apart(one: Any, two: Any) -> float:
    """How far two trajectories are apart, each number or tensor relative to its size."""
    if isinstance(one, dict):
        assert one.keys() == two.keys(), one.keys() ^ two.keys()
        return max(apart(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return max(map(apart, one, two))
    one, two = torch.as_tensor(one).double(), torch.as_tensor(two).double()
    return float((one - two).norm() / one.norm().clamp(min=1e-3))


def steps(
    name: str,
    adapter: str,
    *,
    reshard: bool = True,
    checkpointing: bool = False,
    offload: bool = False,
    copies: int = 1,
    **changes: Any,
) -> Check:
    """The check that a trajectory is that of one process."""

    def check(folder: Path) -> Found:
        read = lambda: alone(folder, name, adapter, **changes)  # noqa: E731
        policy = in_shares(read, reshard=reshard, offload=offload, copies=copies)
        require_sharded(policy)
        if checkpointing:
            policy.checkpoint_activations()
        own = cut(pairs()[dist.get_rank() :: dist.get_world_size()])
        most = len(cut(pairs()[:: dist.get_world_size()]))
        found = trajectory(policy, own, most, by_one=False)
        require_sharded(policy)
        if dist.get_rank():
            return {}
        wanted = trajectory(read(), cut(pairs()), 0, by_one=True)
        return {key: apart(wanted[key], found[key]) for key in wanted} | {"layout": policy.scorer.layout}

    return check


# ------------------------------------------------------------------------------------------------- without a gradient


def digests(folder: Path) -> Found:
    """Of an adapter, of the base below it, of all weights, tied and not."""
    found = []
    for name, adapter in (("llama", "lora"), ("gpt", "none"), ("qwen", "none")):
        one, many = alone(folder, name, adapter), in_shares(lambda: alone(folder, name, adapter))  # noqa: B023
        found.append([one.digest(), many.digest()])
    read = lambda: alone(folder, "llama", "lora")  # noqa: E731
    base, below = (replace(model, adapter=None) for model in (read(), in_shares(read)))
    return {"digests": [*found, [base.digest(), below.digest()]]}


def asked(folder: Path) -> Found:
    """Answers and scores, a different number in each process; then a gradient, whose memory was made before."""
    found: Found = {"answers": [], "scores": 0.0, "gradient": 0.0}
    rank = dist.get_rank()
    for name, adapter, layout in (("llama", "lora", "auto"), ("qwen", "none", "plain"), ("gpt", "none", "auto")):
        read = lambda: alone(folder, name, adapter, model__layout=layout)  # noqa: E731, B023
        one, many = read(), in_shares(read, reshard=name != "qwen")
        sampling = Sampling(5 + 4 * rank, temperature=0.7, num=2)
        chats = [Chat((Message("user", text),)) for text in ("the cat sat", "yes")][: 1 + rank]
        wanted = one.answer(chats, sampling)
        with many.asked():
            given = many.answer(chats, sampling)
        found["answers"].append(_all([a.ids for a in wanted] == [a.ids for a in given]))
        with evaluation_mode(many.network), evaluation_mode(one.network), torch.no_grad(), many.asked():
            for pair in pairs()[: 3 + 2 * rank]:
                found["scores"] = max(found["scores"], apart(scores(one, [pair]).gap, scores(many, [pair]).gap))
        for model in (one, many):
            model.network.train()
            scores(model, pairs()[:2]).gap.sum().backward()
        # Each process has learnt from the same pairs, and gradients are sums.
        by_one = {n: p.grad * dist.get_world_size() for n, p in one.trainable}
        found["gradient"] = max(found["gradient"], apart(by_one, gradients_of(many)))
    return found


def _all(flag: bool) -> bool:
    told = torch.tensor(int(flag))
    dist.all_reduce(told)
    return int(told) == dist.get_world_size()


def gradients_of(policy: Model) -> dict[str, Tensor]:
    return {name: full(p.grad).clone() for name, p in policy.trainable if p.grad is not None}


def others(folder: Path) -> Found:
    """A second adapter; a reference in shares of its own, whose whole distributions a loss compares with."""
    found: Found = {}

    def twins() -> Model:
        policy = alone(folder, "llama", "lora")
        add_twin(policy.network, "moving")
        with torch.no_grad():
            for name, parameter in policy.network.named_parameters():
                parameter.mul_(1.5 if ".moving." in name else 1)
        return policy

    one, many = twins(), in_shares(twins, reshard=False)
    for model in (one, many):
        model.network.train()
        # Switched while layers lie in shares, and back while they are whole.
        with model.asked(), torch.no_grad(), _other(model):
            scores(model, pairs()[:1])
    said = []
    for model in (one, many):
        ours = model.score(pairs()[:2])
        with _other(model), torch.no_grad():
            said.append(scores(model, pairs()[:2]).gap)
        ours.values.sum().backward()
    found["second adapter"] = apart(said[0], said[1])
    found["unlike"] = float(apart(said[0], scores(one, pairs()[:2]).gap.detach()) < 1e-3)
    found["first adapter"] = apart({n: p.grad * dist.get_world_size() for n, p in one.trainable}, gradients_of(many))
    frozen = lambda: alone(folder, "qwen", "none")  # noqa: E731
    wanted, copied = frozen(), in_shares(frozen)
    for model in (one, many):
        for _, parameter in model.trainable:
            parameter.grad = None
    for model, reference in ((one, wanted), (many, copied)):
        model.score(pairs()[:2], against=reference.whole(pairs()[:2])).divergences.sum().backward()
    found["whole distributions"] = apart(
        {n: p.grad * dist.get_world_size() for n, p in one.trainable}, gradients_of(many)
    )
    with torch.no_grad():
        (_, states), (_, shown) = (model.scorer.read(pairs()[:2]) for model in (wanted, copied))
    found["states"] = apart(states, shown)
    return found


@contextlib.contextmanager
def _other(model: Model) -> Iterator[None]:
    with evaluation_mode(model.network):
        model.network.set_adapter("moving")
        yield
        model.network.set_adapter("default")


def kept(folder: Path) -> Found:
    """What is saved, loaded by a stranger; and a state put back, moments included."""
    found: Found = {}
    for name, adapter in (("llama", "lora"), ("qwen", "none"), ("gpt", "none")):
        policy = in_shares(lambda: alone(folder, name, adapter))  # noqa: B023
        with torch.no_grad():
            said = scores(policy, pairs()).gap
        if dist.get_rank():
            gathered_from(policy.network, policy.adapter)
        else:
            policy.save(folder / f"saved {name}")
            config = settings(folder / f"saved {name}").model
            with torch.no_grad():
                found[name] = apart(said, scores(load_alone(config, policy), pairs()).gap)
        dist.barrier()
        optimizer = torch.optim.AdamW([p for _, p in policy.trainable], lr=1e-2)
        scores(policy, pairs()).gap.sum().backward()
        optimizer.step()
        state = dict[str, Tensor](policy.trainable)
        state |= {f"{n} {k}": at for n, p in policy.trainable for k, at in optimizer.state[p].items() if at.dim()}
        before = {key: full(one).clone() for key, one in state.items()}
        kept = before if dist.get_rank() == 0 else {}
        optimizer.step()
        moved = all(not torch.equal(before[key], full(one)) for key, one in state.items() if "lora_A" in key)
        for key in sorted(state):
            put(state[key], kept.get(key))
        now = {key: full(one) for key, one in state.items()}
        found[f"{name} put back"] = moved and all(torch.equal(before[key], now[key]) for key in state)
        again = scores(policy, pairs()).gap
        found[f"{name} at work"] = bool(again.isfinite().all()) and not torch.equal(again, said)
    return found


def refused(folder: Path) -> Found:
    """What no process may go on with, told in all of them."""
    read = lambda: alone(folder, "llama", "none")  # noqa: E731
    told = []
    with pytest.raises(TrainingError) as error:
        require_sharded(read())
    told.append(str(error.value))
    with pytest.raises(TrainingError) as error:
        mesh_of(CPU, dist.get_world_size())
    told.append(str(error.value))
    policy = in_shares(read)
    with pytest.raises(ValueError, match="another shape") as error:
        put(policy.trainable[0][1], torch.zeros(3) if dist.get_rank() == 0 else None)
    held = sum(local_of(p).numel() for p in policy.network.parameters())
    return {"told": told, "share": held / policy.num_parameters[1]}


def replicated(folder: Path) -> Found:
    """All weights in each process, read by the first."""
    found: Found = {}
    for name, adapter in (("llama", "lora"), ("qwen", "none")):
        one = alone(folder, name, adapter)
        many = replicate(alone(folder, name, adapter) if dist.get_rank() == 0 else None, CPU)
        with torch.no_grad():
            found[name] = _all(torch.equal(scores(one, pairs()).gap, scores(many, pairs()).gap))
        same = [a.data_ptr() for _, a in many.network.named_parameters(remove_duplicate=False)]
        found[f"{name} tied"] = _all(len({*same}) == len([*one.network.parameters()]))
        found[f"{name} digest"] = _all(one.digest() == many.digest())
        found[f"{name} trains"] = _all([n for n, _ in one.trainable] == [n for n, _ in many.trainable])
    return found


PAIRWISE: dict[str, Check] = {
    "llama, lora, packed": steps("llama", "lora"),
    "llama, full, plain": steps("llama", "none", model__layout="plain"),
    "llama, lora, plain, kept, checkpointed": steps(
        "llama", "lora", model__layout="plain", reshard=False, checkpointing=True
    ),
    "tied qwen, full, packed, kept": steps("qwen", "none", reshard=False),
    "tied qwen, full, plain, checkpointed": steps("qwen", "none", model__layout="plain", checkpointing=True),
    "tied gpt, full, packed, checkpointed": steps("gpt", "none", checkpointing=True),
    "tied gpt, lora, plain, kept": steps("gpt", "lora", model__layout="plain", reshard=False),
    "llama, full, packed, offloaded": steps("llama", "none", offload=True),
}
NARROW: dict[str, Check] = {
    "llama, lora": steps("llama", "lora", model__dtype="bfloat16"),
    "tied qwen, full": steps("qwen", "none", model__dtype="bfloat16", checkpointing=True),
}
OTHERS: dict[str, Check] = {
    "digests": digests,
    "asked": asked,
    "others": others,
    "kept": kept,
    "refused": refused,
    "replicated": replicated,
}
COPIES: dict[str, Check] = {
    "llama, lora, two copies": steps("llama", "lora", copies=2),
    "tied qwen, full, two copies": steps("qwen", "none", copies=2, model__layout="plain"),
}
CHECKS = PAIRWISE | NARROW | OTHERS | COPIES
