"""A conditional density of targets: its likelihood, its calibration, its likeliest modes."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent, MixtureSameFamily, MultivariateNormal

from harness.evaluation.mixtures import GaussianMixtures
from harness.keyed_random import seeded

LEVELS = (0.5, 0.8, 0.9, 0.95)
CURVE = tuple(level / 20 for level in range(1, 20))
_DRAWS = 100


def ranks(
    conditional: Distribution,
    targets: Tensor,  # shape: (B, d)
    *,
    seed: int,
) -> Tensor:  # shape: (B,)
    """Share of each conditional's mass that is denser than its target, by 100 draws.

    Uniform on [0, 1] if the densities are the targets' own: the region of highest density that
    holds a share p of the mass then holds the target with probability p.
    """
    draws = _draws(conditional, _DRAWS, seed=seed)
    denser = conditional.log_prob(draws) > conditional.log_prob(targets)
    return denser.double().mean(dim=0)


def coverage(ranks: Tensor) -> dict[str, float]:  # shape: (N,)
    """Share of targets inside the regions of highest density that should hold ``LEVELS``."""
    return {f"coverage_{level}": float((ranks <= level).double().mean()) for level in LEVELS}


def calibration(ranks: Tensor) -> list[float]:  # shape: (N,)
    """Shares as of ``coverage``, of the regions that should hold ``CURVE``."""
    return [float((ranks <= level).double().mean()) for level in CURVE]


def modes(conditional: Distribution, number: int, *, seed: int) -> Tensor:  # shape: (number, B, d)
    """The likeliest modes: the mean, or means of a mixture's heaviest components; then draws."""
    best: Tensor = conditional.mean[None]
    if isinstance(conditional, MixtureSameFamily):
        means = conditional.component_distribution.mean
        order = conditional.mixture_distribution.logits.argsort(dim=-1, descending=True)
        heaviest = order[..., :number, None].expand(*order.shape[:-1], -1, means.shape[-1])
        best = means.gather(-2, heaviest).movedim(-2, 0)
    if len(best) == number:
        return best
    return torch.cat([best, _draws(conditional, number - len(best), seed=seed)])


def best_of(
    predicted: Tensor,  # shape: (k, N)
    labels: Tensor,  # shape: (N,)
) -> list[float]:
    """For 1, ..., k modes, the share of targets whose class is among the modes' classes."""
    hits = (predicted == labels).cumsum(dim=0) > 0
    return hits.double().mean(dim=1).tolist()


def _draws(conditional: Distribution, number: int, *, seed: int) -> Tensor:  # shape: (number, B, d)
    if isinstance(conditional, MixtureSameFamily) and isinstance(
        conditional.component_distribution, MultivariateNormal | Independent
    ):
        generator = Generator().manual_seed(seed)
        return GaussianMixtures.of(conditional).sample(number, generator=generator)
    with seeded(seed):
        return conditional.sample(torch.Size([number]))
