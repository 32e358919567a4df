"""The data with their truth: targets that lie on one of several branches over their context."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from harness.evaluation.mixtures import GaussianMixtures

# Lengths and ranges of Bishop (1994, Sec. 4.2), whose second joint turns by pi - elbow.
UPPER_ARM, FOREARM = 0.8, 0.2
_SHOULDER, _ELBOW = (0.3, 1.2), (-math.pi / 2, math.pi / 2)


@dataclass(frozen=True)
class Dataset:
    """Pairs (context, target): a branch, equally likely, plus Gaussian noise on the target only.

    Attributes:
        title: What tables and figures call it.
        contexts: From uniform numbers in [0, 1], shape (N, d_c), to contexts of the same shape.
        branches: From contexts to the branches' positions there, shape (N, K, d).
        grid: Test points a side of [0, 1] x ..., evenly spaced.
    """

    title: str
    contexts: Callable[[Tensor], Tensor]
    branches: Callable[[Tensor], Tensor]
    grid: tuple[int, ...]

    def sample(
        self, num_pairs: int, noise: float, *, generator: Generator
    ) -> tuple[Tensor, Tensor]:  # shapes: (N, d_c), (N, d)
        """Draws N pairs in float64; ``noise`` is the standard deviation in each dimension."""
        uniform = torch.rand(num_pairs, len(self.grid), dtype=torch.float64, generator=generator)
        z_c = self.contexts(uniform)
        z_t = self.truth(z_c, noise).sample(1, generator=generator)[0]
        return z_c, z_t

    def test_contexts(self) -> Tensor:  # shape: (N, d_c)
        """The grid of test points as contexts."""
        sides = [torch.linspace(0.0, 1.0, points, dtype=torch.float64) for points in self.grid]
        return self.contexts(torch.cartesian_prod(*sides).reshape(-1, len(sides)))

    def truth(
        self,
        z_c: Tensor,  # shape: (N, d_c)
        noise: float,
    ) -> GaussianMixtures:
        """The density that the targets are drawn from."""
        means = self.branches(z_c)
        num, count, dim = means.shape
        factors = noise * torch.eye(dim, dtype=torch.float64)
        weights = means.new_full((num, count), 1.0 / count)
        return GaussianMixtures(weights, means, factors.expand(num, count, dim, dim))


def joints(
    angles: Tensor,  # shape: (..., 2): shoulder, elbow, in radians
) -> tuple[Tensor, Tensor]:  # shapes: (..., 2), (..., 2)
    """Where the elbow and the hand of the arm are, the shoulder being at the origin."""
    upper, fore = angles[..., 0], angles.sum(dim=-1)
    elbow = UPPER_ARM * torch.stack([upper.cos(), upper.sin()], dim=-1)
    return elbow, elbow + FOREARM * torch.stack([fore.cos(), fore.sin()], dim=-1)


def arm_solutions(
    hand: Tensor,  # shape: (N, 2)
) -> Tensor:  # shape: (N, 2, 2)
    """The angles (shoulder, elbow) that reach a position, elbow to the right and to the left."""
    squared = hand.square().sum(dim=1)
    cosine = (squared - UPPER_ARM**2 - FOREARM**2) / (2 * UPPER_ARM * FOREARM)
    elbow = cosine.clamp(-1.0, 1.0).acos()
    inner = torch.atan2(FOREARM * elbow.sin(), UPPER_ARM + FOREARM * elbow.cos())
    towards = torch.atan2(hand[:, 1], hand[:, 0])
    solutions = [torch.stack([towards - s * inner, s * elbow], dim=1) for s in (1.0, -1.0)]
    return torch.stack(solutions, dim=1)


def _line(uniform: Tensor) -> Tensor:
    return 2.0 * uniform - 1.0


def _reached(uniform: Tensor) -> Tensor:
    low, high = torch.tensor([_SHOULDER, _ELBOW], dtype=torch.float64).mT
    return joints(low + uniform * (high - low))[1]


def _separated(x: Tensor) -> Tensor:
    branches = 2.0 + 0.4 * (2 * x).sin(), 1.0 + 0.2 * (3 * x).cos(), -1.0 - 0.5 * x.square()
    return torch.stack(branches, dim=1)


def _intersecting(x: Tensor) -> Tensor:
    return torch.stack([(1.5 * x).sin(), -(1.5 * x).sin(), 0.3 * x.pow(3)], dim=1)


# The paper's A and B (Huang 2026, Sec. 5.1, functions reconstructed) and Bishop's arm.
DATASETS = {
    "separated": Dataset("separated branches", _line, _separated, (300,)),
    "intersecting": Dataset("intersecting branches", _line, _intersecting, (300,)),
    "arm": Dataset("two-joint arm", _reached, arm_solutions, (16, 12)),
}
