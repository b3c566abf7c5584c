"""Shared fixtures: tiny models made here, real data and models only where they are."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from pathlib import Path

# Tiny arrays gain nothing from a second thread and spin while they wait for it: a busy machine takes twenty times as
# long. The libraries read this once, when numpy and torch are first imported; processes that tests start inherit it.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import hypothesis
import platformdirs
import pytest
import torch
from jaxtyping import install_import_hook

import plots
from bounds import LONG

# `make test` throws no dice: the same inputs each time, so that what passed here passes there. The long form draws anew
# and prints how a failure is repeated; what it finds becomes an @example of its test.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("anew", deadline=None, print_blob=True)
hypothesis.settings.load_profile("anew" if LONG else "same")

# Shapes in annotations are checked while tests run. It has to come before the first import of tiebreak.maths.
install_import_hook(["tiebreak.maths", "tiebreak.engine.head"], "beartype.beartype")

SHARED = Path(os.environ.get("TIEBREAK_SHARED", Path(__file__).parents[2] / "shared"))
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(autouse=True, scope="session")
def _interruptible():
    # A shell that runs tests in the background has them, and what they start, ignore Ctrl-C, and nohup a hangup.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _same_streams():
    # What a test draws depends neither on the tests before it nor on the process that it falls to.
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    assert torch.get_num_threads() == 1


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    # What tests compute of references stays theirs, and what a user has computed or asked for is never found by a test.
    models, cache = platformdirs.user_cache_path("tiebreak") / "models", tmp_path_factory.mktemp("cache")
    (cache / "tiebreak").mkdir()
    (cache / "tiebreak" / "models").symlink_to(models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setenv("XDG_STATE_HOME", str(cache / "state"))
        yield


@pytest.fixture(autouse=True, scope="session")
def _plots_left_empty():
    plots.leave_empty()


def _drawn_where_marked(request, _plots_left_empty):
    with plots.drawn() if request.node.get_closest_marker("plots") else contextlib.nullcontext():
        yield


# Of a module that is marked, what its own fixtures make is drawn, too.
_plots_of_a_module = pytest.fixture(autouse=True, scope="module")(_drawn_where_marked)
_plots_of_a_test = pytest.fixture(autouse=True)(_drawn_where_marked)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; tests that need it skip where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"real data not found in {SHARED} (set TIEBREAK_SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def stories(shared: Path) -> Path:
    """A real 260k-parameter Llama."""
    folder = shared / "models" / "stories260k"
    if not folder.is_dir():
        pytest.skip(f"stories260k not found in {folder}")
    return folder


@pytest.fixture(scope="session")
def tokenizer():
    """A byte-level BPE with ChatML control tokens, made from a few words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(
        ["the cat sat on the mat and the dog ran to the park", "user assistant system yes no"], trainer
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<|im_start|>"
    )
    made.chat_template = CHATML
    return made


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, tokenizer) -> Path:
    """A folder with a randomly initialised two-layer Llama and its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny") / "llama"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        initializer_range=0.2,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_gpt(tmp_path_factory, tokenizer) -> Path:
    """A folder with a randomly initialised two-layer GPT-2 of 64 learned positions, and its tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("tiny") / "gpt"
    torch.manual_seed(0)
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=64, **ids)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_adapter(tmp_path_factory, tiny_model) -> Path:
    """A folder with a LoRA adapter on the tiny model that changes what it says, as fine-tuning leaves one."""
    import peft
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = peft.LoraConfig(r=3, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM")
        adapter = peft.get_peft_model(base, config)
        for name, parameter in adapter.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("tiny") / "adapter"
    adapter.save_pretrained(folder)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working folder, so that whatever a command leaves behind is seen."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    return folder
