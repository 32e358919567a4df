"""Means over draws, where a mixture has no closed form."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class MonteCarloEstimate(NamedTuple):
    """A mean over draws and its standard error, 0-d tensors."""

    value: Tensor
    standard_error: Tensor


def stratified_mean(
    weights: Tensor,  # shape: (K,)
    values: Tensor,  # shape: (N, K)
) -> MonteCarloEstimate:
    """The weighted sum of the means of N draws from each of K components."""
    variances = weights.square() * values.var(dim=0) / values.shape[0]
    return MonteCarloEstimate((weights * values.mean(dim=0)).sum(), variances.sum().detach().sqrt())
