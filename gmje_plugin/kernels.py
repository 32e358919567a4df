"""Kernels between embeddings, and the random features that approximate them."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Generator, Tensor

from gmje_plugin.validation import check_choice

KERNELS = ("rbf", "linear")


def check_kernel(kernel: str) -> str:
    """Returns ``kernel`` if it is the name of one, else raises ``ValueError``."""
    check_choice("kernel", kernel, KERNELS)
    return kernel


def gram(
    x: Tensor,  # shape: (N, D)
    y: Tensor,  # shape: (M, D)
    *,
    kernel: str,
    length_scale: float | Tensor = 1.0,  # shape: ()
) -> Tensor:  # shape: (N, M)
    """Kernel values of all pairs of rows (Huang 2026, Sec. 3.1).

    Args:
        x: Points, shape (N, D).
        y: Points, shape (M, D).
        kernel: "rbf", exp(-||x - y||^2 / (2 length_scale^2)), or "linear", x . y.
        length_scale: Of "rbf".

    Returns:
        The values, shape (N, M).
    """
    if kernel == "linear":
        return x @ y.mT
    return (-0.5 * squared_distances(x, y) / length_scale**2).exp()


def gram_diagonal(
    x: Tensor,  # shape: (N, D)
    *,
    kernel: str,
) -> Tensor:  # shape: (N,)
    """Kernel values of the rows with themselves: 1 for "rbf", the squared norms for "linear"."""
    return x.square().sum(dim=1) if kernel == "linear" else x.new_ones(x.shape[0])


def squared_distances(
    x: Tensor,  # shape: (N, D)
    y: Tensor,  # shape: (M, D)
    precisions: Tensor | None = None,  # shape: (1 | M, D)
) -> Tensor:  # shape: (N, M)
    """Squared distances by matrix products alone, at least 0, with a gradient at distance 0.

    Args:
        x: Points, shape (N, D).
        y: Points, shape (M, D).
        precisions: Factors on the squares of each y's dimensions, shape (M, D), or (1, D) for the
            same ones everywhere. Default: 1.

    Returns:
        The squared distances, shape (N, M).
    """
    # The products cancel badly far from the origin, so bring the origin to the points.
    origin = y.detach().mean(dim=0)
    x, y = x - origin, y - origin
    weighted = y if precisions is None else precisions * y
    if precisions is None:
        squares = x.square().sum(dim=1, keepdim=True)
    else:
        squares = x.square() @ precisions.mT
    return (squares + (y * weighted).sum(dim=1) - 2.0 * x @ weighted.mT).clamp_min(0.0)


def distances(
    x: Tensor,  # shape: (N, D)
    y: Tensor,  # shape: (M, D)
) -> Tensor:  # shape: (N, M)
    """Distances without the matrix product, which loses small ones far from the origin."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def median_distance(
    x: Tensor,  # shape: (N, D)
) -> Tensor:  # shape: ()
    """Median distance of different rows, without gradient: the usual width of an RBF kernel.

    The lower of the two in the middle for an even number of pairs. Where half of the pairs
    coincide, the smallest width whose square is a normal number of the dtype.
    """
    distances = torch.pdist(x.detach())
    return distances.median().clamp_min(torch.finfo(x.dtype).tiny ** 0.5)


@lru_cache(maxsize=8)  # a loss asks at every step
@torch.inference_mode(False)  # what is made under it takes no part in a later backward pass
def random_fourier_frequencies(
    dim: int,
    num_features: int,
    *,
    seed: int,
) -> tuple[Tensor, Tensor]:  # shapes: (num_features, dim), (num_features,)
    """Frequencies of length-scale 1 and phases for ``random_fourier_features``, in float64."""
    generator = Generator("cpu").manual_seed(seed)
    # On the CPU whatever the default device is, as the generator is there.
    frequencies = torch.empty(num_features, dim, dtype=torch.float64, device="cpu")
    phases = torch.empty(num_features, dtype=torch.float64, device="cpu")
    return (
        frequencies.normal_(generator=generator),
        phases.uniform_(0.0, 2.0 * math.pi, generator=generator),
    )


def random_fourier_features(
    x: Tensor,  # shape: (N, dim)
    frequencies: Tensor,  # shape: (num_features, dim)
    phases: Tensor,  # shape: (num_features,)
    *,
    length_scale: float | Tensor = 1.0,  # shape: ()
) -> Tensor:  # shape: (N, num_features)
    """Features whose products approximate the RBF kernel (Rahimi and Recht 2007; Eq. 66-67).

    phi(x) = sqrt(2 / num_features) cos(frequencies x / length_scale + phases). The error of a
    kernel value falls as 1 / sqrt(num_features).
    """
    angles = (x / length_scale) @ frequencies.mT + phases
    return math.sqrt(2.0 / frequencies.shape[0]) * angles.cos()
