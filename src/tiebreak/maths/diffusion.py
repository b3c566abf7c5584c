"""Diffusion-DPO: a preference between two images, learned by a model that predicts their noise.

Owns the formula, what a squared error is (a sum over an image, in fp32 or better), and that neither overflows. Knows no
model, no schedule of noise, no file: tiebreak trains text, and examples/diffusion_dpo.py shows how a loop calls this.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tiebreak.maths.losses import Losses
from tiebreak.maths.objectives.links import logistic

Errors = Float[Tensor, " pairs"]


def squared_errors(
    noise: Float[Tensor, "images ..."], predicted: Float[Tensor, "images ..."]
) -> Float[Tensor, " images"]:
    """‖ε − ε̂‖² of each image: summed over all of its dimensions (unit: squared noise), in fp32 or better.

    Half precision is widened first: the loss lives on differences of these sums, which are far smaller than their last
    bit would be. Raises ValueError where the two differ in shape.
    """
    if noise.shape != predicted.shape:
        raise ValueError(f"noise is of shape {tuple(noise.shape)}, what was predicted of {tuple(predicted.shape)}")
    dtype = torch.promote_types(torch.promote_types(noise.dtype, predicted.dtype), torch.float32)
    return (noise.to(dtype) - predicted.to(dtype)).square().flatten(1).sum(1)


def diffusion_dpo(
    chosen: Errors,
    rejected: Errors,
    reference_chosen: Errors,
    reference_rejected: Errors,
    *,
    beta: float | Errors,
) -> Losses:
    """−log σ(−β [(e_w − e_ref,w) − (e_l − e_ref,l)]), e = ‖ε − ε_θ(x_t, t)‖² of an image noised to the time t.

    Wallace et al. 2023 (2311.12908), Eq. 14; w and l are chosen and rejected. `beta` is their β T ω(λ_t), per unit of
    squared error: one number, or one a pair where ω differs by time. Errors are [pairs].

    By the evidence lower bound −β (e − e_ref) stands where DPO of text has β log π/π_ref: it is the reward that is
    returned of each image. All four errors of a pair are of one time and one draw of noise: policy and reference see
    the same x_t, and both images the same ε, as in the authors' code. The equation has ε^w and ε^l; sharing them leaves
    the expectation of each error as it is, and makes the gap between them less noisy.

    Published settings are of errors that are means over the d numbers of an image, not sums: `beta_dpo` 2000 to 5000
    (Stable Diffusion 1.5 and XL), which the authors' train.py and diffusers' train_diffusion_dpo_sdxl.py halve, while
    diffusers' train_diffusion_dpo.py takes it whole. So beta is beta_dpo / 2d here, or beta_dpo / d: 5000, halved, is
    0.15 over the 4 × 64 × 64 latents of 512 pixels. Means may be given as well; beta is then theirs.

    Where policy and reference are one model, the loss is ln 2. It grows no faster than β times the gap and never
    overflows before the gap does. Costs one forward pass of the reference beside the policy's, for both images.
    Raises ValueError where beta is no positive, finite number (or one a pair), where errors are not of the same pairs,
    and where they are in half precision (see `squared_errors`).
    """
    shapes = [tuple(one.shape) for one in (chosen, rejected, reference_chosen, reference_rejected)]
    if len({*shapes}) > 1 or len(shapes[0]) != 1:
        raise ValueError(f"squared errors are one number a pair, of the same pairs; found the shapes {shapes}")
    betas = torch.as_tensor(beta).detach()
    if betas.shape not in ((), chosen.shape):
        raise ValueError(f"beta is one number, or one for each of {len(chosen)} pairs; found {tuple(betas.shape)}")
    if not bool(((betas > 0) & betas.isfinite()).all()):
        raise ValueError(f"beta is a positive number: the minus of the equation is applied here; found {beta}")
    if small := [one.dtype for one in (chosen, rejected, reference_chosen, reference_rejected) if one.itemsize < 4]:
        raise ValueError(
            f"squared errors are taken in fp32 or better, found {small[0]}: their differences are lost there"
        )
    # First within an image, where both errors are nearly the same and their difference is exact, then across the pair.
    chosen_reward, rejected_reward = -beta * (chosen - reference_chosen), -beta * (rejected - reference_rejected)
    return Losses.of_pairs(logistic(chosen_reward - rejected_reward), chosen_reward, rejected_reward)
