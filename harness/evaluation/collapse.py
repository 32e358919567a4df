"""Figures that tell whether features have collapsed."""

from __future__ import annotations

import torch
from torch import Tensor


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
