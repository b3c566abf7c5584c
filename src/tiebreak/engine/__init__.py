"""The only floor that knows transformers and peft.

model          a model with all that is needed to use it      models         from a name to a policy
building       what every way to load a model shares          artefact       what is handed on, and loaded again
sources        what a model name means                        loading        weights into a model, all or none
bundled        the model that comes with tiebreak             weights        weights by content
scorer         what a model says about pairs                  head           hidden states to log-probabilities
attention      attention over packed rows                     compatibility  which models may be packed
quantization   a base model in four bits                     beside         how files say that it was
fused_lora     a LoRA layer without intermediate results      products       matrix products on a CPU: which library
planner        what fits in memory                            memory         how much is in use
probes         which of two ways is faster here               arithmetic     in which numbers a model computes
shapes         a model by its config.json alone               lora_kinds     which adapters can be taken up again
allocation     how freed memory is handed back                since          what became of a recorded model
ranks          the processes of a run, or the only one        together       several: who takes part, and who is lost
strategy       which of them holds what, and why              tasks          what all do when one asks
outline        a model on paper                               cluster        a plan for GPUs that are not here
pulse          signs of life of processes                  tokenizer      loaded, and what ends a turn
adapters       which layers of a model get a new one          positions      how many tokens a model can see
stretching     positions that hang on the longest row         noise          of a base model, off where it is noise
placing        where weights lie: here, everywhere, in shares
merging        an adapter added into its base model, proven
provenance     what a base model says of itself: hub name, licence
baseline       what was gained on other prompts               comparison     policy and reference, asked of the same
sharding       weights over several processes                 shares         a tensor of which each holds a part
lockstep       passes of weights in shares, as many for all
features       hidden states of completions           classifier     a reward model: one number for a conversation
reference/     the frozen side                                answers/       answers to prompts
"""

import logging
import resource
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec

from tiebreak.errors import ModelError

_MAPPED_BYTES = 2560 * 2**20
"""What torch, transformers and peft map before any weight is loaded, with a little to compute in."""

_limit = resource.getrlimit(resource.RLIMIT_AS)[0]
# Before they are imported: with less, libraries under them try again for ever, or abort the process.
if 0 <= _limit < _MAPPED_BYTES:
    raise ModelError(
        f"this process may map {_limit // 2**20} MiB of memory (ulimit -v), and the libraries that compute models need "
        f"{_MAPPED_BYTES // 2**20}; raise the limit"
    )

with warnings.catch_warnings():
    # In a notebook without ipywidgets tqdm asks for them when a library first loads it; none of its bars is ever shown.
    warnings.filterwarnings("ignore", message="IProgress not found")
    import_module("tqdm.auto")

# peft loads it with itself. On processors with AVX512-BF16 bitsandbytes 0.50 then fetches compiled code from a hub if
# the package `kernels` is installed, and warns where it is not; neither is wanted (see quantization.settle).
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
if "bitsandbytes" not in sys.modules and find_spec("bitsandbytes") and find_spec("kernels"):
    _kernels = sys.modules.get("kernels")
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        import_module("bitsandbytes")
    except (ImportError, OSError, RuntimeError):  # told where it is asked for
        pass
    finally:
        if _kernels is None:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = _kernels
