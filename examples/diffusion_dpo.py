"""Diffusion-DPO on handwritten digits of 8 by 8 pixels: what tiebreak's formula does to a model of images.

    python examples/diffusion_dpo.py                                  # bold strokes are preferred; one CPU core
    python examples/diffusion_dpo.py --prefer thin --out samples.png  # thin ones; and a picture of before and after

An example, not a part of tiebreak, which trains text. A denoiser is trained on scikit-learn's digits; it draws pairs of
one digit, of which the bolder image is chosen, and is trained on them by `tiebreak.maths.diffusion`. The reward is
known (how dark an image is), so what became of it can be measured on new samples, and whether they are still digits.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor, nn

from tiebreak.maths.diffusion import diffusion_dpo, squared_errors
from tiebreak.maths.stats import Estimate, clustered_mean

NUM_PIXELS, NUM_DIGITS, NUM_TIMES = 64, 10, 100
NUM_TRAIN = 1500
"""Of 1797 digits; the others are held out."""
TIMES = torch.arange(1, NUM_TIMES + 1) / NUM_TIMES
KEPT = torch.cos((TIMES + 0.008) / 1.008 * math.pi / 2).square().clamp(1e-4, 0.9999)
"""ᾱ_t, how much of an image's variance is left at a time: the cosine of Nichol & Dhariwal 2021, Eq. 17."""


class Denoiser(nn.Module):
    """Predicts the noise in an image, given the time and the digit: residual layers, 125 thousand weights."""

    def __init__(self, width: int = 128, num_layers: int = 3) -> None:
        super().__init__()
        self.digit = nn.Embedding(NUM_DIGITS, 32)
        self.enter = nn.Linear(NUM_PIXELS + 32 + 32, width)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(num_layers)
        )
        self.leave = nn.Linear(width, NUM_PIXELS)

    def forward(self, images: Tensor, times: Tensor, digits: Tensor) -> Tensor:
        """Return the predicted noise, [images, pixels]."""
        angles = (times / NUM_TIMES)[:, None] * torch.logspace(0, math.log10(200), 16)
        hidden = self.enter(torch.cat([images, angles.sin(), angles.cos(), self.digit(digits)], dim=1))
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        return self.leave(nn.functional.silu(hidden))


@dataclass(frozen=True)
class Digits:
    """Images [images, pixels] from −1 (paper) to 1 (ink), and what they show."""

    images: Tensor
    digits: Tensor


@dataclass(frozen=True)
class Measured:
    """What is true of a model; 95 % intervals over samples, of one training run."""

    reward: Estimate
    """0 to 1."""
    read: Estimate
    """Share of samples that a classifier of real digits reads as the digit asked for."""
    error: Estimate
    """(ε − ε̂)² a pixel, on held-out digits."""
    variety: float
    """Mean distance of two samples of one digit."""
    rewards: Tensor
    errors: Tensor
    samples: Tensor


def noised(images: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε."""
    kept = KEPT[times][:, None]
    return kept.sqrt() * images + (1 - kept).sqrt() * noise


def pretrained(train: Digits, steps: int, batch: int = 128) -> Denoiser:
    """Return a denoiser of real digits. Ho et al. 2020, Algorithm 1."""
    model = Denoiser()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        drawn, times = torch.randint(len(train.images), (batch,)), torch.randint(NUM_TIMES, (batch,))
        noise = torch.randn(batch, NUM_PIXELS)
        predicted = model(noised(train.images[drawn], noise, times), times, train.digits[drawn])
        optimizer.zero_grad()
        squared_errors(noise, predicted).mean().backward()
        optimizer.step()
        schedule.step()
    return model


@torch.no_grad()
def sampled(model: Denoiser, digits: Tensor, seed: int) -> Tensor:
    """Return an image of each digit; one seed gives two models the same noise. Ho et al. 2020, Algorithm 2."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(len(digits), NUM_PIXELS, generator=draw)
    for time in reversed(range(NUM_TIMES)):
        kept, before = KEPT[time], KEPT[time - 1] if time else torch.tensor(1.0)
        predicted = model(images, torch.full((len(digits),), time), digits)
        clean = ((images - (1 - kept).sqrt() * predicted) / kept.sqrt()).clamp(-1, 1)
        step = kept / before
        mean = (before.sqrt() * (1 - step) * clean + step.sqrt() * (1 - before) * images) / (1 - kept)
        spread = ((1 - before) / (1 - kept) * (1 - step)).sqrt()
        images = mean + spread * torch.randn(images.shape, generator=draw)
    return images.clamp(-1, 1)


def rewards_of(images: Tensor, prefer: str) -> Tensor:
    """The true reward: how much of an image is ink, or paper where thin strokes are preferred; 0 to 1."""
    ink = (images.mean(dim=1) + 1) / 2
    return ink if prefer == "bold" else 1 - ink


def aligned(
    reference: Denoiser, prefer: str, num_pairs: int, steps: int, beta: float, seed: int
) -> tuple[Denoiser, list[float]]:
    """Return a copy of the reference, trained by Diffusion-DPO on pairs of its own samples, and what they say of it.

    That is the loss, the share of pairs that are won, and how far the error of chosen and of rejected images rose above
    the reference's; means of the last hundred steps.
    """
    batch, rate = 64, 1e-5
    digits = torch.arange(num_pairs) % NUM_DIGITS
    one, other = (sampled(reference, digits, seed + number) for number in (1, 2))
    wins = (rewards_of(one, prefer) > rewards_of(other, prefer))[:, None]
    chosen, rejected = torch.where(wins, one, other), torch.where(wins, other, one)

    policy = copy.deepcopy(reference).requires_grad_(True)
    optimizer, told_by_pairs = torch.optim.Adam(policy.parameters(), lr=rate), []
    for _ in range(steps):
        drawn = torch.randint(num_pairs, (batch,))
        # Both images of a pair, and both models, see one time and one noise: all that differs is what is compared.
        times, noise = torch.randint(NUM_TIMES, (batch,)).repeat(2), torch.randn(batch, NUM_PIXELS).repeat(2, 1)
        seen = noised(torch.cat([chosen[drawn], rejected[drawn]]), noise, times), times, digits[drawn].repeat(2)
        with torch.no_grad():
            expected = squared_errors(noise, reference(*seen)).chunk(2)
        found = squared_errors(noise, policy(*seen)).chunk(2)
        optimizer.zero_grad()
        said = diffusion_dpo(*found, *expected, beta=beta)
        said.losses.mean().backward()
        optimizer.step()
        won = (said.rewards[0::2] > said.rewards[1::2]).float()
        rises = (ours.detach() - theirs for ours, theirs in zip(found, expected, strict=True))
        told_by_pairs.append(torch.stack([one.mean() for one in (said.losses.detach(), won, *rises)]))
    return policy, torch.stack(told_by_pairs[-100:]).mean(0).tolist()


@torch.no_grad()
def measured(model: Denoiser, train: Digits, heldout: Digits, prefer: str, num_samples: int, seed: int) -> Measured:
    """Return what is true of new samples of a model, and of its predictions on digits that it never saw."""
    digits = torch.arange(num_samples) % NUM_DIGITS
    samples = sampled(model, digits, seed)
    rewards = rewards_of(samples, prefer)
    reader = SVC(gamma=0.05, C=10).fit(train.images.numpy(), train.digits.numpy())
    read = torch.from_numpy(reader.predict(samples.numpy())) == digits

    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(heldout.images.shape, generator=draw)
    times = torch.randint(NUM_TIMES, (len(noise),), generator=draw)
    predicted = model(noised(heldout.images, noise, times), times, heldout.digits)
    errors = squared_errors(noise, predicted) / NUM_PIXELS
    variety = [torch.pdist(samples[digits == digit]).mean().item() for digit in range(NUM_DIGITS)]
    reward, share, error = (_mean(values.tolist()) for values in (rewards, read.float(), errors))
    return Measured(reward, share, error, sum(variety) / NUM_DIGITS, rewards, errors, samples)


def _mean(values: Sequence[float]) -> Estimate:
    return clustered_mean(values, [str(place) for place in range(len(values))], seed=0)


def told(before: Measured, after: Measured, of_pairs: Sequence[float]) -> str:
    """Return the table of before and after, what the pairs say, and one sample of each digit."""
    show = lambda one: f"{one.mean:+.3f} ({one.low:+.3f} … {one.high:+.3f})"  # noqa: E731
    plain = lambda one: show(one).replace("+", "")  # noqa: E731
    rows = [
        ("true reward", plain(before.reward), plain(after.reward)),
        ("  change, sample by sample", "", show(_mean((after.rewards - before.rewards).tolist()))),
        ("read as the digit asked for", plain(before.read), plain(after.read)),
        ("noise error on held-out digits", plain(before.error), plain(after.error)),
        ("  change, image by image", "", show(_mean((after.errors - before.errors).tolist()))),
        ("distance of samples of a digit", f"{before.variety:.2f}", f"{after.variety:.2f}"),
    ]
    lines = [f"{name:32}{one:26}{two}".rstrip() for name, one, two in [("", "before", "after"), *rows]]
    loss, won, chosen, rejected = of_pairs
    rises = f"error of chosen {chosen:+.2f}, of rejected {rejected:+.2f}"
    lines += ["", f"on the pairs, last steps: loss {loss:.2f}, {won:.0%} won; {rises}"]
    for name, found in (("before", before), ("after", after)):
        lines += ["", f"{name}:"]
        grid = found.samples[:NUM_DIGITS].reshape(NUM_DIGITS, 8, 8)
        shades = ((grid + 1) / 2 * 5).round().long()
        lines += [
            "  ".join("".join(" .:+#@"[shade] for shade in row) for row in shades[:, y].tolist()) for y in range(8)
        ]
    return "\n".join(lines)


def drawn_to(path: Path, before: Measured, after: Measured) -> None:
    """Write a picture: ten samples of each digit, before on the left, after on the right."""
    import matplotlib  # noqa: PLC0415  only where a picture is asked for

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, sides = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
    for side, name, found in zip(sides, ("before", "after"), (before, after), strict=True):
        tiles = nn.functional.pad(found.samples[:100].reshape(-1, 8, 8), (1, 1, 1, 1), value=-1)
        tiles = nn.functional.pad(tiles, (0, 0, 0, 0, 0, 100 - len(tiles)), value=-1)
        sheet = tiles.reshape(10, 10, 10, 10).permute(0, 2, 1, 3).reshape(100, 100)
        side.imshow(sheet.numpy(), cmap="gray_r", vmin=-1, vmax=1)
        side.set_title(name)
        side.axis("off")
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> tuple[Measured, Measured]:
    """Train, align, measure and print; return what is true before and after."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prefer", choices=("bold", "thin"), default="bold", help="which strokes are chosen (bold)")
    parser.add_argument("--beta", type=float, default=20.0, help="of a summed squared error; published betas / 2d (20)")
    parser.add_argument("--pretraining-steps", type=int, default=3000, help="of 128 real digits (3000)")
    parser.add_argument("--pairs", type=int, default=2000, help="drawn by the pretrained model (2000)")
    parser.add_argument("--steps", type=int, default=400, help="of 64 pairs (400)")
    parser.add_argument("--samples", type=int, default=500, help="measured before and after (500)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and noise (0)")
    parser.add_argument("--out", type=Path, help="a PNG of samples before and after; none without it")
    options = parser.parse_args(arguments)
    if options.samples < 2 * NUM_DIGITS:
        parser.error(f"--samples: at least two of each digit, {2 * NUM_DIGITS}, found {options.samples}")

    torch.manual_seed(options.seed)
    torch.set_num_threads(1)  # so small are the matrices; and the numbers are the same on any number of cores
    loaded = load_digits()
    order = torch.randperm(len(loaded.target))
    images, digits = torch.tensor(loaded.data, dtype=torch.float32) / 8 - 1, torch.tensor(loaded.target)
    train, heldout = (Digits(images[part], digits[part]) for part in (order[:NUM_TRAIN], order[NUM_TRAIN:]))
    reference = pretrained(train, options.pretraining_steps).eval().requires_grad_(False)
    policy, of_pairs = aligned(reference, options.prefer, options.pairs, options.steps, options.beta, options.seed)
    before, after = (
        measured(model, train, heldout, options.prefer, options.samples, seed=options.seed + 1000)
        for model in (reference, policy)
    )
    print(told(before, after, of_pairs))
    if options.out:
        drawn_to(options.out, before, after)
    return before, after


if __name__ == "__main__":
    main()
