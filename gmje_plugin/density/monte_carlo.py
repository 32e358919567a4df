"""Draws, and means over them where a mixture has no closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor


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


def standard_normal(shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
    """Standard normal noise of the dtype and on the device of ``like``, drawn where asked."""
    source = generator.device if generator is not None else torch.device("cpu")
    drawn = torch.randn(tuple(shape), dtype=like.dtype, device=source, generator=generator)
    return drawn.to(like.device)
