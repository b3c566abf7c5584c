"""How many preference pairs TRL trains on in a second, at the shapes and lengths of gpu_throughput.py.

TRL has 8 pairs a batch and 2 batches a step; its steps are timed from their first batch to the end of the update, and
the first is left out. `default`: gradient checkpointing and live reference. `tuned`: neither, and the reference's
values are computed before the clock starts. Base weights are bf16 and random, the adapter is that of tiebreak.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from typing import Any

import peft
import torch
from gpu_models import BETA, LENGTHS, SHAPES, Case, Found, Setting, UnmeasurableError, drawn_lengths, pairs_of, shaped
from gpu_throughput import Pairs, Timing, rates
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, TrainerCallback

BATCH, BATCHES_PER_STEP, STEPS = 8, 2, 3


def cases(part: str, setting: Setting) -> dict[str, Case]:
    """Return each shape with each data and both ways to set TRL up, the large model first."""
    assert part == "trl"
    return {
        f"{variant}/{shape}/{data}": partial(_trl, f"trl_{variant}", shape, data, setting)
        for shape in SHAPES
        for data in LENGTHS
        for variant in ("default", "tuned")
    }


def _contestant() -> Any:
    try:
        import contestant_trl  # noqa: PLC0415 - TRL is optional
    except ImportError as error:
        raise UnmeasurableError(f"trl cannot be imported: {error}") from None
    return contestant_trl


def _trained(trainer: Any) -> None:
    try:
        trainer.train()
    except torch.OutOfMemoryError:
        pairs = trainer.args.per_device_train_batch_size
        raise UnmeasurableError(f"out of memory with {pairs} pairs a batch") from None


def _trl(variant: str, shape: str, data: str, setting: Setting, seconds: float) -> Found:
    theirs = _contestant()
    setting.forget_peak()
    began = time.perf_counter()
    batch, batches = (2, 2) if setting.tiny else (BATCH, BATCHES_PER_STEP)
    num = batch * batches
    base = shaped(shape, setting)
    lengths = drawn_lengths(data, num * (1 + STEPS), setting)
    pairs = pairs_of(lengths, base.config.vocab_size)
    with tempfile.TemporaryDirectory(prefix="tiebreak-trl-") as folder:
        trainer = _trainer(theirs, variant, base, pairs, folder, (batch, batches), setting)
        clock = _clock(setting, began + seconds)
        trainer.add_callback(clock)
        setting.forget_peak()
        _trained(trainer)
    timing = Timing(clock.seconds[1:], setting.peak())
    if not timing.seconds:
        raise UnmeasurableError(f"no step after the first fitted into {seconds:.0f} s")
    asked = trainer.reference_seconds
    done = pairs[num : num * (1 + len(timing.seconds))]
    return {
        "pairs_per_step": num,
        "pairs_per_batch": batch,
        **rates(timing, done, num),
        "reference_seconds_per_pair": None if asked is None else asked / len(pairs),
        "reference_seconds_per_pair_reason": "asked anew in every step" if asked is None else None,
        "gradient_checkpointing": trainer.args.gradient_checkpointing,
        "losses_finite": all(bool(torch.isfinite(loss)) for loss in trainer.step_losses),
    }


def _clock(setting: Setting, until: float) -> Any:
    class Clock(TrainerCallback):
        """Times steps from their first batch to the end of the optimizer's update, and stops when time is up."""

        def __init__(self) -> None:
            self.seconds: list[float] = []
            self._began = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            setting.wait()
            self._began = time.perf_counter()

        def on_step_end(self, _args: Any, _state: Any, control: Any, **__: Any) -> Any:
            setting.wait()
            self.seconds.append(time.perf_counter() - self._began)
            control.should_training_stop = len(self.seconds) >= 2 and time.perf_counter() > until
            return control

    return Clock()


def _trainer(
    theirs: Any, variant: str, base: Any, pairs: Pairs, folder: str, sizes: tuple[int, int], setting: Setting
) -> Any:
    from datasets import Dataset  # noqa: PLC0415 - comes with trl
    from trl import DPOConfig  # noqa: PLC0415

    on_gpu = setting.device.type == "cuda"
    options = theirs.VARIANTS[variant]
    arguments = DPOConfig(
        output_dir=folder,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        max_length=None,  # the rows are cut already
        disable_dropout=True,
        num_train_epochs=1,
        per_device_train_batch_size=sizes[0],
        gradient_accumulation_steps=sizes[1],
        train_sampling_strategy="sequential",
        beta=BETA,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **options,
    )
    rows = [{key: list(getattr(pair, key)) for key in theirs.IDS} for pair in pairs]
    return theirs._Trainer(
        model=base,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=_tokenizer(),
        peft_config=peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )


def _tokenizer() -> Any:
    """Return a tokenizer that TRL's constructor accepts; the rows are ids and nothing is ever tokenised."""
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
