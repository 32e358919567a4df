"""Gaussians held by the factors of their covariances, as pure functions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from gmje_plugin.linalg import LOG_2PI, log_det, whiten

_ROWS = 32  # of a factor at a time in products with many points


def normal(
    mean: Tensor,  # shape: (..., D)
    factor: Tensor,  # shape: (..., D, D) | (..., D) | (..., 1)
    *,
    full: bool,
) -> Distribution:
    """A Gaussian of torch; unchecked, so that a NaN comes out as a NaN and no GPU has to wait."""
    if full:
        return MultivariateNormal(mean, scale_tril=factor, validate_args=False)
    return Independent(Normal(mean, factor, validate_args=False), 1, validate_args=False)


def log_density(
    mean: Tensor,  # shape: (..., D)
    factor: Tensor,  # shape: (..., D, D) | (..., D) | (..., 1)
    z: Tensor,  # shape: (..., D)
) -> Tensor:  # shape: (...)
    """Log-densities; where means share a full covariance, by a solve a point instead of a pair."""
    full = factor.ndim > mean.ndim
    if not full or factor.shape[:-2] == mean.shape[:-1]:
        return normal(mean, factor, full=full).log_prob(z)
    # |L^-1 (z - m)| is the distance of L^-1 z and L^-1 m, around an origin close to both.
    origin = centre(mean)
    factor = factor.reshape(factor.shape[-2:])
    z, mean = (
        whiten(factor, (points - origin).reshape(-1, len(origin))).reshape(points.shape)
        for points in (z, mean)
    )
    distances = (z - mean).square().sum(dim=-1)
    return -0.5 * (distances + log_det(factor) + len(origin) * LOG_2PI)


def log_density_of_many(
    mean: Tensor,  # shape: (K, D)
    factor: Tensor,  # shape: (K, D, D)
) -> Callable[[Tensor], Tensor]:
    """A function from points, shape (N, D), to their log-densities, shape (N, K).

    For more points than it costs to invert the factors once: instead of a triangular solve for each
    component, a product with some rows of all inverse factors at a time, as far as those rows have
    entries. That is half of the operations of whole products.
    """
    components, dim = mean.shape
    origin = centre(mean)
    inverse = torch.linalg.solve_triangular(
        factor, torch.eye(dim, dtype=factor.dtype, device=factor.device), upper=False
    )
    # [-L^-1 m, L^-1] [1, z] is L^-1 (z - m), around an origin close to both.
    shift = whiten(factor, (mean - origin)[:, None]).mT
    augmented = torch.cat([-shift, inverse], dim=2)
    ends = [*range(_ROWS, dim, _ROWS), dim]
    blocks = [
        augmented[:, start:end, : end + 1].reshape(-1, end + 1).mT
        for start, end in itertools.pairwise([0, *ends])
    ]
    constant = log_det(factor) + dim * LOG_2PI

    def log_densities(z: Tensor) -> Tensor:
        points = torch.cat([torch.ones_like(z[:, :1]), z - origin], dim=1)
        distances = z.new_zeros(len(z), components)
        for block in blocks:
            whitened = points[:, : len(block)] @ block
            distances = distances + whitened.square().reshape(len(z), components, -1).sum(dim=2)
        return -0.5 * (distances + constant)

    return log_densities


def centre(
    means: Tensor,  # shape: (..., D)
) -> Tensor:  # shape: (D,)
    """An origin close to the means, around which products do not cancel; without a gradient."""
    return means.detach().flatten(0, -2).mean(dim=0)


def categorical_mixture(
    logits: Tensor,  # shape: (..., K)
    components: Distribution,
) -> MixtureSameFamily:
    """A mixture of torch, of components of batch shape (..., K); unchecked, as ``normal`` is."""
    weights = Categorical(logits=logits, validate_args=False)
    return MixtureSameFamily(weights, components, validate_args=False)


def as_matrix(
    diagonal: Tensor,  # shape: (..., D, D) | (..., D) | (..., 1)
    mean: Tensor,  # shape: (..., D)
) -> Tensor:  # shape: (..., D, D)
    """Expands a diagonal to the matrix it stands for; a matrix stays as it is."""
    return diagonal if diagonal.ndim > mean.ndim else torch.diag_embed(diagonal.expand_as(mean))


def matvec(
    matrix: Tensor,  # shape: (..., I, J)
    vector: Tensor,  # shape: (..., J)
) -> Tensor:  # shape: (..., I)
    """Products of matrices and vectors, without expanding either to the other's batch shape."""
    with torch.autocast(device_type=matrix.device.type, enabled=False):
        return torch.einsum("...ij,...j->...i", matrix, vector)


def scale(
    factors: Tensor,  # shape: (K, D, D) | (K, D) | (K, 1), or 1 for K if shared
    noise: Tensor,  # shape: (N, D)
    counts: list[int],
) -> Tensor:  # shape: (N, D)
    """Products of the noise and factors, the first of which gets ``counts[0]`` rows, and so on.

    One product with each component's factor, instead of a factor for each row.
    """
    parts = torch.split(noise, counts if len(factors) > 1 else len(noise))
    scaled = [
        matvec(factor, rows) if factor.ndim == 2 else factor * rows
        for factor, rows in zip(factors, parts, strict=True)
    ]
    return torch.cat(scaled)


def standard_normal(shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
    """Standard normal noise of the dtype and on the device of ``like``, drawn where asked."""
    source = generator.device if generator is not None else torch.device("cpu")
    drawn = torch.randn(tuple(shape), dtype=like.dtype, device=source, generator=generator)
    return drawn.to(like.device)
