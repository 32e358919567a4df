"""Subsets of training images: what is held out, and fewer of some classes than of others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from harness.settings import SettingsError

_SPLIT_SEED = 0  # one split for every run: seeds vary the training, not the test images
_MOST_HELD_OUT = 5000
_SHARE_HELD_OUT = 0.2


def held_out_size(num_images: int) -> int:
    """How many training images are held out for choosing settings: 5,000, or a fifth if fewer."""
    return min(_MOST_HELD_OUT, math.ceil(num_images * _SHARE_HELD_OUT))


def split(
    labels: Tensor,  # shape: (N,)
    *,
    second: int,
) -> tuple[Tensor, Tensor]:  # shapes: (N - second,), (second,)
    """Indices of two parts with the classes in equal shares, the same in every run.

    Raises:
        SettingsError: If a class has too few images to be in both.
    """
    try:
        parts = train_test_split(
            range(len(labels)), test_size=second, stratify=labels.numpy(), random_state=_SPLIT_SEED
        )
    except ValueError as error:
        raise SettingsError(
            f"data.split=validation: {len(labels)} training images cannot be split ({error})"
        ) from error
    first, held_out = (torch.tensor(part) for part in parts)
    return first, held_out


def imbalanced(
    labels: Tensor,  # shape: (N,)
    *,
    ratio: float,
    seed: int,
) -> Tensor:  # shape: (M,)
    """Indices of a long-tailed subset (Cui et al. 2019, "Class-balanced loss").

    Class k of K keeps n ratio^(-k / (K - 1)) images, rounded, n the size of the smallest class,
    so that ``ratio`` is that of the first class to the last; at least one image a class.

    Args:
        labels: Classes, from 0 to K - 1.
        ratio: At least 1, which keeps n of every class.
        seed: Chooses the images.
    """
    counts = labels.bincount()
    last = max(len(counts) - 1, 1)
    kept = [max(1, round(int(counts.min()) * ratio ** (-k / last))) for k in range(len(counts))]
    return some_per_class(labels, kept, seed=seed).sort().values


def some_per_class(
    labels: Tensor,  # shape: (N,)
    counts: Sequence[int],
    *,
    seed: int,
) -> Tensor:  # shape: (M,)
    """Indices of random images of each class, as many as its count, or all if it has fewer."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    classes = zip(torch.unique(labels), counts, strict=True)
    return torch.cat([order[labels[order] == label][:count] for label, count in classes])
