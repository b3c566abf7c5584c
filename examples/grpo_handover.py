"""From preferences to rewards: a model that tiebreak exported goes into TRL's GRPOTrainer as it is.

    tiebreak export runs/two/2-dpo --form merged --out aligned
    python examples/grpo_handover.py aligned    # two steps, to see that it goes
    python examples/grpo_handover.py aligned --prompts pairs.jsonl --pattern please --steps 200 --out rewarded

An example, not a part of tiebreak, of which it imports nothing: the folder holds weights, tokenizer and chat template
as transformers reads them. GRPO (Shao et al. 2024, 2402.03300) draws several answers to a prompt and raises those whose
reward is above their mean. The reward here is 1 where an answer matches a regular expression. Wants `pip install trl`.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoTokenizer
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

PROMPTS = ("Who are you?", "Tell me a short story about a cat.", "How do I boil an egg?", "Write a line about the sea.")


@dataclass(frozen=True)
class Handed:
    """What became of the model, step by step."""

    rewards: tuple[float, ...]
    """Mean over the answers of each step."""
    ended: tuple[float, ...]
    """Share of the answers that ended by themselves, with the EOS that tiebreak scored."""
    moved: float
    """Largest change of a weight."""
    rendered: str
    """The first prompt as the model saw it."""


def main(arguments: Sequence[str] | None = None) -> Handed:
    """Train for a few steps, print what happened, and return it."""
    options = _options(arguments)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    if tokenizer.chat_template is None:
        raise SystemExit(f"error: {options.model}: has no chat template; train it with model.chat_template")
    prompts = [{"prompt": _chat(prompt)} for prompt in _prompts(options.prompts)]
    pattern = re.compile(options.pattern)

    def reward(completions: list[list[dict[str, str]]], **_: object) -> list[float]:
        return [float(bool(pattern.search(answer[-1]["content"]))) for answer in completions]

    with tempfile.TemporaryDirectory() as scratch:
        trainer = GRPOTrainer(
            model=str(options.model),  # the folder and nothing else: TRL loads weights, tokenizer and template from it
            reward_funcs=reward,
            train_dataset=Dataset.from_list(prompts),
            args=_settings(options, scratch),
        )
        trainer.remove_callback(PrinterCallback)  # what it would print is told below
        start = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
        trainer.train()
        steps = [row for row in trainer.state.log_history if "reward" in row]
        moved = max((weight - start[name]).abs().max().item() for name, weight in trainer.model.named_parameters())
        if options.out:
            trainer.save_model(str(options.out))
    rendered = tokenizer.apply_chat_template(prompts[0]["prompt"], tokenize=False, add_generation_prompt=True)
    found = Handed(
        tuple(row["reward"] for row in steps),
        tuple(1 - row["completions/clipped_ratio"] for row in steps),
        moved,
        rendered,
    )
    print(f"the first prompt, as the model saw it: {found.rendered!r}")
    for number, (mean, ended) in enumerate(zip(found.rewards, found.ended, strict=True), start=1):
        print(f"step {number}: reward {mean:.3f}, {ended:.0%} of the answers ended by themselves")
    print(f"largest change of a weight: {moved:.1e}" + (f"; written to {options.out}" if options.out else ""))
    if not moved:
        print("all answers had one reward: take a --pattern that some match and others do not")
    return found


def _settings(options: argparse.Namespace, scratch: str) -> GRPOConfig:
    on_gpu = torch.cuda.is_available()
    return GRPOConfig(
        output_dir=scratch,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        max_steps=options.steps,
        per_device_train_batch_size=options.answers * options.prompts_per_step,
        num_generations=options.answers,
        max_completion_length=options.max_new_tokens,
        learning_rate=options.learning_rate,
        lr_scheduler_type="constant",
        seed=options.seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _prompts(path: Path | None) -> list[str]:
    """The prompts of a JSONL file, each once: rows of pairs do, whose other columns are left alone."""
    if path is None:
        return list(PROMPTS)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return list(dict.fromkeys(row["prompt"] for row in rows))


def _chat(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder that 'tiebreak export --form merged' wrote")
    parser.add_argument("--prompts", type=Path, help="JSONL file whose rows have a prompt; four are built in")
    parser.add_argument("--pattern", default="[aeiou]{2}", help="what a good answer matches (%(default)s)")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps (%(default)s)")
    parser.add_argument("--prompts-per-step", type=int, default=2, help="prompts behind one step (%(default)s)")
    parser.add_argument("--answers", type=int, default=4, help="answers drawn to a prompt (%(default)s)")
    parser.add_argument("--max-new-tokens", type=int, default=32, help="most tokens of an answer (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=1e-5, help="of AdamW, constant (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (%(default)s)")
    parser.add_argument("--out", type=Path, help="folder to write the trained model to")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
