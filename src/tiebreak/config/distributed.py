"""The settings of a run over several processes: what each of them holds, and how long they wait for each other.

Owns the names of strategies. How many processes there are is the launcher's business (torchrun, accelerate launch), and
no result depends on it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tiebreak.config.section import Section

Strategy = Literal["auto", "single", "ddp", "fsdp", "hsdp"]


class DistributedConfig(Section):
    """Several processes that train one policy; a run of one process reads none of it."""

    strategy: Strategy = Field(
        "auto",
        description="ddp: each process holds all weights; fsdp: a share of them; hsdp: shares within a machine, copies "
        "between machines; auto: ddp where the model fits, else fsdp; single: refuse more than one process.",
    )
    reshard_after_forward: bool = Field(
        True,
        description="With fsdp, let go of others' weights after the forward pass (DeepSpeed's ZeRO stage 3); false "
        "keeps them until the backward pass is over (stage 2): faster, more memory.",
    )
    cpu_offload: bool = Field(
        False, description="With fsdp, keep weights, gradients and moments in main memory between uses: slow, small."
    )
    timeout_seconds: float = Field(
        1800, ge=1, le=86_400, description="How long a process waits for another before the job ends and names it."
    )
