"""Answers of the bundled model: tokens a second beside transformers' own `generate`, in alternation.

    python benchmarks/generation.py                       # 64 prompts × 1 greedily, 16 × 8 at temperature 1
    python benchmarks/generation.py --rounds 5 --max-new-tokens 256 --json
    python benchmarks/generation.py --cases 16x8 --profile

Both sides hold the same weights and get the same rendered prompts, a third of them with the wish for one sentence, a
third with the wish for details, so that answers are of very different lengths. transformers runs with every batch size
of `--plain-batch` (rows, answers included), left-padded, and its fastest counts. Tokens are those of answers, without
EOS and padding. A machine that others use as well tells little by the clock: tokens for each second of processor time
stand beside, and are only worth something with `--threads 1`, since threads that wait for each other count as at work.
Greedy answers of both sides are compared; drawn ones are other draws from the same distribution, so
their number of tokens differs a little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from machine import description, versions
from transformers import AutoModelForCausalLM

from tiebreak.config import BUNDLED_MODEL, BUNDLED_PAIRS, load_config
from tiebreak.data.preparation import prepare
from tiebreak.engine.answers import local, seating
from tiebreak.engine.answers.answerer import Sampling
from tiebreak.engine.bundled import bundled_folder
from tiebreak.engine.loading import quiet
from tiebreak.engine.model import Model
from tiebreak.records import Message
from tiebreak.training.trained import load

WISHES = ("", " Answer in one short sentence.", " Explain it in detail.")
Ids = tuple[int, ...]
Side = Callable[[], list[Ids]]


def main() -> None:
    """Measure, and print a table or JSON."""
    options = _arguments()
    quiet()
    if options.threads:
        torch.set_num_threads(options.threads)
    config = load_config(
        None,
        {"model.name": BUNDLED_MODEL, "adapter.kind": "none", "data.train": BUNDLED_PAIRS, "data.heldout_share": 0.5},
    )
    policy = load(config).policy
    policy.network.eval()
    plain = AutoModelForCausalLM.from_pretrained(bundled_folder(BUNDLED_MODEL)).eval()
    asked = [pair.prompt for pair in prepare(config.data, policy.renderer(config.data)).heldout.pairs]
    settings = {
        "max_new_tokens": options.max_new_tokens,
        "rows_of_tiebreak": seating.MAX_BATCH,
        "rounds": options.rounds,
    }
    found = {"settings": settings, "machine": description(), "versions": versions(), "cases": {}}
    for case in options.cases:
        num_prompts, num = map(int, case.split("x"))
        chosen = list(dict.fromkeys(asked))[:num_prompts]
        prompts = [_rendered(policy, messages, WISHES[index % 3]) for index, messages in enumerate(chosen)]
        sampling = Sampling(options.max_new_tokens, 0.0 if num == 1 else 1.0, num)
        sides: dict[str, Side] = {"tiebreak": lambda p=prompts, s=sampling: _ours(policy, p, s)}
        for rows in options.plain_batch:
            sides[f"transformers, {rows} rows"] = lambda p=prompts, s=sampling, r=rows: _plain(plain, policy, p, s, r)
        if options.profile:
            _profile(sides["tiebreak"])
            continue
        found["cases"][case] = contest(sides, options.rounds, compare=num == 1)
        if not options.json:
            _show(case, found["cases"][case])
    if options.json:
        print(json.dumps(found, indent=2))
    elif not options.profile:
        print(json.dumps({key: found[key] for key in ("settings", "machine", "versions")}))


def contest(sides: dict[str, Side], rounds: int, *, compare: bool) -> dict[str, Any]:
    """Let all sides run one after the other, so often; return medians, lengths, and the ratio to the fastest other."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    by_cpu: dict[str, list[float]] = {name: [] for name in sides}
    answers: dict[str, list[Ids]] = {}
    for _ in range(rounds):
        for name, side in sides.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            answers[name] = side()
            num_tokens = sum(map(len, answers[name]))
            rates[name].append(num_tokens / (time.perf_counter() - began))
            by_cpu[name].append(num_tokens / (time.process_time() - cpu_began))
    medians, cpu_medians = ({n: statistics.median(v) for n, v in some.items()} for some in (rates, by_cpu))
    own, *others = answers
    lengths = sorted(map(len, answers[own]))
    result: dict[str, Any] = {
        "tokens_per_second": rates,
        "medians": medians,
        "ratio": medians[own] / max(medians[name] for name in others),
        "tokens_per_cpu_second": by_cpu,
        "cpu_ratio": cpu_medians[own] / max(cpu_medians[name] for name in others),
        "lengths": [lengths[round(share * (len(lengths) - 1))] for share in (0, 0.25, 0.5, 0.75, 1)],
        "num_tokens": {name: sum(map(len, some)) for name, some in answers.items()},
    }
    if compare:
        result["same_answers"] = {
            name: sum(map(tuple.__eq__, answers[own], answers[name])) / len(lengths) for name in others
        }
    return result


def _rendered(policy: Model, messages: Sequence[Message], wish: str) -> Ids:
    *before, last = messages
    asked = (*before, Message(last.role, last.content + wish))
    return policy.renderer(load_config(None, {}).data).prompt(asked)


def _ours(policy: Model, prompts: Sequence[Ids], sampling: Sampling) -> list[Ids]:
    found = local.generate(policy.network, prompts, sampling, policy.eos_ids, policy.pad_id)
    return [ids for ids, _ in found]


def _plain(network: Any, policy: Model, prompts: Sequence[Ids], sampling: Sampling, rows: int) -> list[Ids]:
    """Return the answers of transformers' `generate`; prompts of similar length share a batch."""
    drawn: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        drawn = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    found: dict[int, list[Ids]] = {}
    size = max(1, rows // sampling.num)
    for start in range(0, len(order), size):
        some = order[start : start + size]
        width = max(len(prompts[index]) for index in some)
        ids = torch.full((len(some), width), policy.pad_id)
        mask = torch.zeros_like(ids)
        for row, index in enumerate(some):
            ids[row, width - len(prompts[index]) :] = torch.tensor(prompts[index])
            mask[row, width - len(prompts[index]) :] = 1
        with torch.inference_mode():
            made = network.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=sampling.max_new_tokens,
                num_return_sequences=sampling.num,
                eos_token_id=list(policy.eos_ids),
                pad_token_id=policy.pad_id,
                **drawn,
            )
        cut = [_until(row, policy.eos_ids) for row in made[:, width:].tolist()]
        found |= {index: cut[at * sampling.num : (at + 1) * sampling.num] for at, index in enumerate(some)}
    return [answer for index in range(len(prompts)) for answer in found[index]]


def _until(row: list[int], eos_ids: Sequence[int]) -> Ids:
    return tuple(row[: next((place for place, token in enumerate(row) if token in eos_ids), len(row))])


def _profile(side: Side) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        side()
    print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60))


def _show(case: str, found: dict[str, Any]) -> None:
    ratios = f"{found['ratio']:.2f} × the fastest other by the clock, {found['cpu_ratio']:.2f} × by processor time"
    print(f"{case}: {ratios}; lengths (quartiles) {found['lengths']}")
    for name, rate in found["medians"].items():
        each = ", ".join(f"{value:.1f}" for value in found["tokens_per_second"][name])
        same = found.get("same_answers", {}).get(name)
        told = "" if same is None else f"; the same answer to {same:.0%} of prompts"
        cpu = ", ".join(f"{value:.1f}" for value in found["tokens_per_cpu_second"][name])
        told = f"{found['num_tokens'][name]} tokens{told}"
        print(f"  {name:<24}{rate:8.1f} tokens/s  ({each}); by processor time {cpu}; {told}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--cases", nargs="+", default=["64x1", "16x8"], help="prompts x answers to each (default 64x1 16x8)")
    add("--max-new-tokens", type=int, default=192, help="most tokens of an answer (default 192)")
    add("--rounds", type=int, default=3, help="times that every side runs (default 3)")
    add("--plain-batch", type=int, nargs="+", default=[32, 64, 128], help="rows of a batch of transformers")
    add("--threads", type=int, help="threads (default: what torch takes)")
    add("--profile", action="store_true", help="print where tiebreak's time goes, and measure nothing")
    add("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    main()
