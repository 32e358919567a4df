"""Metrics that tell whether features have collapsed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

_DEAD = 1e-3  # of the largest dimension's standard deviation


def effective_rank(
    features: Tensor,  # shape: (N, D)
) -> float:
    """Exponential of the entropy of the normalised singular values (Roy and Vetterli 2007).

    Of the centred features: 1 if they lie on a line, D if they spread equally in all directions,
    and 0 if they are all the same.
    """
    centred = features.double() - features.double().mean(dim=0)
    singular_values = torch.linalg.svdvals(centred)
    # What is left of equal rows after centring is rounding, not a direction.
    if singular_values[0] <= 1e-9 * features.double().norm():
        return 0.0
    shares = singular_values / singular_values.sum()
    return float(torch.special.entr(shares).sum().exp())


def dead_dimensions(
    features: Tensor,  # shape: (N, D)
) -> float:
    """Share of dimensions that hardly vary: at most a thousandth of what the liveliest does."""
    deviations = features.double().std(dim=0)
    return float((deviations <= _DEAD * deviations.max()).double().mean())


def uniformity(
    features: Tensor,  # shape: (N, D)
) -> float:
    """Log mean exp(-2 |f - f'|^2) over pairs of unit-norm features (Wang and Isola 2020).

    0 if all are the same, -4 at the most in high dimensions, where none attract another.
    """
    unit = normalize(features.double(), dim=1)
    return float(torch.pdist(unit).square().mul(-2.0).exp().mean().log())


def alignment(
    features0: Tensor,  # shape: (N, D)
    features1: Tensor,  # shape: (N, D)
) -> float:
    """Mean squared distance of unit-norm features of two views (Wang and Isola 2020): 0 to 4."""
    first, second = normalize(features0.double(), dim=1), normalize(features1.double(), dim=1)
    return float((first - second).square().sum(dim=1).mean())
