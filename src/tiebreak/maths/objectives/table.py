"""The table of objectives: what each is computed by, what it learns from, and what it asks for.

Whoever needs to know something of an objective asks its row; no name of an objective stands anywhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tiebreak.maths.logps import Logps
from tiebreak.maths.losses import Losses
from tiebreak.maths.metrics import Metrics, pair_metrics, thumb_metrics
from tiebreak.maths.objectives import gaps, sides, steps, sums, thumbs
from tiebreak.maths.objectives.said import Pairs, Stated
from tiebreak.maths.objectives.thumbs import Thumbs
from tiebreak.records import TokenizedPair, TokenizedThumb


@dataclass(frozen=True)
class Formula:
    """A row of the table."""

    losses: Callable[..., Losses]
    """Takes what is said of examples, and the settings as keywords. Its first line of help is the formula."""
    source: str
    """Paper and equation."""
    use: str
    """When to take it, in one sentence."""
    learns_from: type = TokenizedPair
    """The kind of example; one that `records` calls an `Example`."""
    view: Callable[[Logps, Logps | None, Stated], Any] = Pairs.of
    """What the formula sees of log-probabilities: their sides, where its examples have any."""
    metrics: Callable[[Losses, Logps, Stated], Metrics] = pair_metrics
    """What a step tells about itself."""
    asks_reference: bool = True
    learns_good_alone: bool = False
    """Whether bad completions teach it nothing."""
    asks_baseline: bool = False
    """Whether it compares with what the policy gained on completions of other prompts of the step."""
    is_coupled: Callable[[Mapping[str, Any]], bool] = lambda _: False
    """Whether, by these settings, the loss of one example depends on the others of its step."""


def _always(_: Mapping[str, Any]) -> bool:
    return True


def _by_step(settings: Mapping[str, Any]) -> bool:
    return bool(settings["delta"] == "step")


_OF_THUMBS: Mapping[str, Any] = {"learns_from": TokenizedThumb, "view": Thumbs.of, "metrics": thumb_metrics}


OBJECTIVES: dict[str, Formula] = {
    "dpo": Formula(
        gaps.dpo,
        "Rafailov et al. 2023 (2305.18290), Eq. 7; smoothing: Mitchell 2023, Eq. 3",
        "To start with. soft_labels where votes say how sure the label is; label_smoothing where labels are noisy.",
    ),
    "dpo_norm": Formula(
        gaps.dpo_norm,
        "Lambert et al. 2024 (Tülu 3, 2411.15124), Eq. 6",
        "Where the lengths of chosen and rejected differ much, or answers grow.",
    ),
    "robust": Formula(
        gaps.robust,
        "Chowdhury et al. 2024 (2403.00409)",
        "Where the share of flipped labels was measured; its gap grows without bound.",
    ),
    "ipo": Formula(
        gaps.ipo,
        "Azar et al. 2023 (2310.12036), Eq. 17 (of sums)",
        "Few, clear-cut pairs that would be overfitted: the gap has a target.",
    ),
    "hinge": Formula(
        gaps.hinge,
        "Liu et al. 2023 (RSO, 2309.06657), hinge-norm",
        "Like dpo, with no pull at all once a pair is 1/beta nats apart.",
    ),
    "slic": Formula(
        gaps.slic,
        "Zhao et al. 2023 (2305.10425)",
        "No memory for a reference, and sums of log-probabilities are wanted.",
        asks_reference=False,
    ),
    "exo": Formula(
        gaps.exo,
        "Ji et al. 2024 (2402.00856), Eq. 16",
        "A finite target with the reverse divergence; start near the reference, since far from it nothing pulls.",
    ),
    "discopop": Formula(
        gaps.discopop,
        "Lu et al. 2024 (2406.08414), Eq. 5",
        "For comparison: its first steps lower the margin.",
    ),
    "odpo": Formula(
        gaps.odpo,
        "Amini et al. 2024 (2402.10571)",
        "Scores are there, and a clear win should be a wide one.",
    ),
    "rpo_backward": Formula(
        gaps.rpo_backward,
        "Adler et al. 2024 (Nemotron-4, 2406.11704); Sun et al. 2025 (2502.00203)",
        "Scores are there: they become soft labels. Scale them by eta first.",
    ),
    "rpo_forward": Formula(
        gaps.rpo_forward,
        "Sun et al. 2025 (2502.00203)",
        "Scores are there, and the model's own certainty is measured against them.",
    ),
    "rpo_square": Formula(
        gaps.rpo_square,
        "Sun et al. 2025 (2502.00203); Gao et al. 2024 (REBEL, 2404.16767)",
        "Scores are there, and the gap is to be their difference.",
    ),
    "r_dpo": Formula(
        gaps.r_dpo,
        "Park et al. 2024 (2403.19159)",
        "Answers grow: a longer winner is learned from less.",
    ),
    "dpop": Formula(
        gaps.dpop,
        "Pal et al. 2024 (2402.13228), Eq. 3",
        "Chosen loses likelihood: near-identical pairs, mathematics, code.",
    ),
    "dpo_shift": Formula(
        gaps.dpo_shift,
        "Yang et al. 2025 (2502.07599)",
        "Chosen loses likelihood, and a smaller margin is a fair price.",
    ),
    "simpo": Formula(
        gaps.simpo,
        "Meng et al. 2024 (2405.14734), Eq. 6",
        "No memory for a reference; a learning rate of 1e-6 or less for full fine-tuning, and an eye on repetition.",
        asks_reference=False,
    ),
    "alpha_dpo": Formula(
        gaps.alpha_dpo,
        "Wu et al. 2024 (2410.10148)",
        "simpo whose margin is wider for pairs that already moved apart against the reference.",
    ),
    "alphapo": Formula(
        gaps.alphapo,
        "Gupta et al. 2025 (2501.03884)",
        "simpo, with a reward that slows down (alpha above 0) or speeds up.",
        asks_reference=False,
    ),
    "repo": Formula(
        gaps.repo,
        "Wu et al. 2025 (2503.07426)",
        "simpo with one setting: no pull once a pair is gamma apart.",
        asks_reference=False,
    ),
    "nca": Formula(
        sides.nca,
        "Chen et al. 2024 (2402.05369)",
        "Chosen may not lose likelihood for long.",
    ),
    "bco": Formula(
        sides.bco,
        "Jung et al. 2024 (2404.04656)",
        "A classifier of good and bad; for thumbs where prompts of both differ little.",
        is_coupled=_by_step,
    ),
    "apo_zero": Formula(
        sides.apo_zero,
        "D'Oosterlinck et al. 2024 (2408.06266), Eq. 7",
        "Chosen answers are better than the model's own.",
    ),
    "apo_down": Formula(
        sides.apo_down,
        "D'Oosterlinck et al. 2024 (2408.06266), Eq. 8",
        "Chosen answers are worse than the model's own.",
    ),
    "sppo_hard": Formula(
        sides.sppo_hard,
        "Wu et al. 2024 (2405.00675), Eq. 4.7 with wins of 1 and 0",
        "Rounds on the policy's own samples without win rates. Its gradient is always clipped at the start.",
    ),
    "sppo_soft": Formula(
        sides.sppo_soft,
        "Wu et al. 2024 (2405.00675), Eq. 4.7",
        "Rounds on the policy's own samples with win rates.",
    ),
    "cal_dpo": Formula(
        sides.cal_dpo,
        "Xiao et al. 2024 (2412.14516)",
        "Log-ratios are to have a known size, and not only a difference.",
    ),
    "simper": Formula(
        sides.simper,
        "Xiao et al. 2025 (2502.00883)",
        "No reference and nothing to tune; nearly no pull on unlikely completions.",
        asks_reference=False,
    ),
    "sft": Formula(
        sides.sft,
        "maximum likelihood",
        "Before preferences: the chosen completions alone.",
        asks_reference=False,
    ),
    "aot": Formula(
        steps.aot,
        "Melnyk et al. 2024 (2406.05882)",
        "The distribution of margins is to move, not each margin.",
        is_coupled=_always,
    ),
    "aot_unpaired": Formula(
        steps.aot_unpaired,
        "Melnyk et al. 2024 (2406.05882)",
        "The distribution of chosen is to lie above that of rejected, whatever the pairs.",
        is_coupled=_always,
    ),
    "dr_dpo": Formula(
        steps.dr_dpo,
        "Wu et al. 2024 (2407.07880)",
        "Labels are noisy, and nobody knows how much.",
        is_coupled=_always,
    ),
    "kto": Formula(
        thumbs.kto,
        "Ethayarajh et al. 2024 (2402.01306), Eqs. 7 and 8",
        "Completions were judged one at a time, good or bad, and have no partner.",
        asks_baseline=True,
        **_OF_THUMBS,
    ),
    "bco_unpaired": Formula(
        thumbs.bco_unpaired,
        "Jung et al. 2024 (2404.04656)",
        "Completions without a partner, and the prompts of good and bad ones differ little.",
        is_coupled=_by_step,
        **_OF_THUMBS,
    ),
    "apo_zero_unpaired": Formula(
        thumbs.apo_zero_unpaired,
        "D'Oosterlinck et al. 2024 (2408.06266), Eq. 7",
        "Completions without a partner, and the good ones are better than the model's own.",
        **_OF_THUMBS,
    ),
    "beta_dpo": Formula(
        steps.beta_dpo,
        "Wu et al. 2024 (2407.08639), without its filter of pairs",
        "Pairs of unlike quality: a step whose gaps are wide is held nearer to the reference.",
        is_coupled=_always,
    ),
    "sft_unpaired": Formula(
        thumbs.sft_unpaired,
        "maximum likelihood",
        "Before preferences: demonstrations, or the good completions of what was judged.",
        asks_reference=False,
        learns_good_alone=True,
        **_OF_THUMBS,
    ),
    "orpo": Formula(
        sums.orpo,
        "Hong et al. 2024 (2403.07691), Eqs. 3, 4 and 7",
        "From a base model in one stage, without a reference.",
        asks_reference=False,
    ),
    "cpo": Formula(
        sums.cpo,
        "Xu et al. 2024 (2401.08417)",
        "No memory for a reference, and chosen answers are worth imitating.",
        asks_reference=False,
    ),
    "cpo_simpo": Formula(
        sums.cpo_simpo,
        "Xu et al. 2024 (2401.08417) with Meng et al. 2024 (2405.14734)",
        "simpo that may not lose the likelihood of chosen.",
        asks_reference=False,
    ),
    "iterative_rpo": Formula(
        sums.iterative_rpo,
        "Pang et al. 2024 (2404.19733), Eq. 1",
        "Reasoning: the likelihood of chosen steps may not fall.",
    ),
    "regularised_po": Formula(
        sums.regularised_po,
        "Liu et al. 2024 (2405.16436)",
        "Against over-optimisation: dpo that stays near chosen completions.",
    ),
    "mpo": Formula(
        sums.mpo,
        "Wang et al. 2024 (2411.10442), section 3.2",
        "Reasoning of vision-language models, where it was found; likelihood, classifier and preference at once.",
        is_coupled=_by_step,
    ),
}
