"""What the fits of a Gaussian and of a mixture share: data, covariances, the steps of EM."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from gmje_plugin.density.covariance import KINDS
from gmje_plugin.kernels import distances
from gmje_plugin.resampling import multinomial
from gmje_plugin.validation import (
    check_choice,
    check_count,
    check_embeddings,
    check_number,
    check_positive,
    wide_dtype,
)


@contextmanager
def ordinary_tensors() -> Iterator[None]:
    """Leaves inference mode, under which state is made that can be neither loaded nor trained.

    No gradient is recorded there, as in inference mode.
    """
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False), torch.no_grad():
            yield
    else:
        yield


def join_views(
    z_c: Tensor,  # shape: (N, split)
    z_t: Tensor,  # shape: (N, D - split)
) -> Tensor:  # shape: (N, D)
    """Joint embeddings in float32 or wider, or ``ValueError`` if no density can be fitted."""
    for name, view in (("z_c", z_c), ("z_t", z_t)):
        check_embeddings(name, view)
        if not bool(torch.isfinite(view).all()):
            raise ValueError(f"{name} must be finite, got NaN or infinite entries.")
    if z_c.shape[0] != z_t.shape[0] or z_c.shape[0] < 2:
        raise ValueError(
            f"z_c and z_t must have the same number of rows, at least 2, "
            f"got {z_c.shape[0]} and {z_t.shape[0]}."
        )
    dtype = wide_dtype(z_c, z_t)
    return torch.cat([z_c.to(dtype), z_t.to(dtype)], dim=1)


def check_options(kind: str, max_steps: int, tolerance: float, covariance_floor: float) -> None:
    """Raises ``ValueError`` unless the options of a mixture's fit are in their ranges."""
    check_choice("covariance", kind, tuple(KINDS))
    check_count("max_steps", max_steps)
    check_number("tolerance", tolerance, low=0.0)
    check_positive("covariance_floor", covariance_floor)


def check_enough(
    z: Tensor,  # shape: (N, D)
    num_components: int,
) -> None:
    """Raises ``ValueError`` unless a mixture of so many components can be fitted to the rows."""
    if check_count("num_components", num_components) > z.shape[0]:
        raise ValueError(
            f"num_components must be at most the number of rows, "
            f"got {num_components} for {z.shape[0]} rows."
        )
    variance = z.var(dim=0, correction=0).mean()
    if not bool((variance > 0) & variance.isfinite()):
        raise ValueError(
            "z_c and z_t must have a positive variance that does not overflow float64, "
            f"got {float(variance):g}."
        )


def weighted_covariance(
    centred: Tensor,  # shape: (N, D)
    weights: Tensor,  # shape: (N,)
    kind: str,
) -> Tensor:  # shape: (D, D) | (D,) | ()
    """Covariance around 0 under weights that sum to 1, of one of the ``KINDS``."""
    if kind == "full":
        with torch.autocast(device_type=centred.device.type, enabled=False):
            return (weights[:, None] * centred).mT @ centred
    variances = (weights[:, None] * centred.square()).sum(dim=0)
    return variances if kind == "diagonal" else variances.mean()


def rounding(
    z: Tensor,  # shape: (N, D)
    dtype: torch.dtype,
) -> Tensor:  # shape: (D,)
    """What the columns cannot tell from 0 in ``dtype``: its epsilon times their largest entry."""
    return torch.finfo(dtype).eps * z.detach().abs().amax(dim=0)


def covariance_floor(
    z: Tensor,  # shape: (N, D)
    share: float,
    kind: str,
    dtype: torch.dtype,
) -> Tensor:  # shape: (D, D) | (D,) | ()
    """``share`` of the rows' own covariance, plus what they are rounded by in ``dtype``.

    As a share of the covariance and not of the mean variance it leaves alone what is small for
    all rows, the difference of two views that nearly agree, say. Where the rows do not vary at
    all, beyond rounding, it is that share of the mean variance (of the columns scaled to
    variance 1, if only a combination of them is constant).
    """
    variances = z.var(dim=0, correction=0)
    typical, lost = variances.mean(), rounding(z, dtype).square()
    if kind == "isotropic":
        return share * typical + lost.mean()
    variances = torch.where(variances > lost, variances, typical)
    if kind == "diagonal":
        return share * variances + lost
    scale = variances.sqrt()
    scaled = (z - z.mean(dim=0)) / scale
    correlation = weighted_covariance(scaled, z.new_full(z.shape[:1], 1 / z.shape[0]), kind)
    values, directions = torch.linalg.eigh(correlation)
    unseen = directions.square().mT @ (lost / scale.square())
    unseen = unseen.clamp_min(z.shape[1] * torch.finfo(z.dtype).eps * values[-1])
    root = scale[:, None] * directions * torch.where(values > unseen, values, 1.0).sqrt()
    floor: Tensor = share * root @ root.mT + torch.diag(lost)
    return floor


def m_step(
    z: Tensor,  # shape: (N, D)
    responsibilities: Tensor,  # shape: (N, K)
    kind: str,
    floor: Tensor,  # shape: (D, D) | (D,) | ()
) -> tuple[Tensor, Tensor, Tensor]:  # shapes: (K,), (K, D), (K, D, D) | (K, D) | (K,)
    """The weights, means and covariances of highest likelihood, the last plus ``floor``.

    A component without responsibilities gets weight 0, mean 0 and the floor as its covariance.
    """
    counts = responsibilities.sum(dim=0)
    columns = (responsibilities / counts.clamp_min(torch.finfo(z.dtype).tiny)).mT
    means = columns @ z
    return counts / z.shape[0], means, covariances_around(means, z, columns, kind, floor)


def covariances_around(
    means: Tensor,  # shape: (K, D)
    z: Tensor,  # shape: (N, D)
    columns: Tensor,  # shape: (K, N)
    kind: str,
    floor: Tensor,  # shape: (D, D) | (D,) | ()
) -> Tensor:  # shape: (K, D, D) | (K, D) | (K,)
    """Covariances of the rows around each mean, plus ``floor``.

    ``columns`` are each component's weights of the rows, which sum to 1.
    """
    return torch.stack(
        [
            weighted_covariance(z - mean, column, kind) + floor
            for mean, column in zip(means, columns, strict=True)
        ]
    )


def kmeans_plus_plus(
    z: Tensor,  # shape: (N, D)
    num_seeds: int,
    generator: Generator | None,
) -> Tensor:  # shape: (K, D)
    """Greedy k-means++ seeds, rows of ``z`` far from each other.

    A seed is drawn with a probability proportional to its squared distance from the seeds before
    it; of a few such draws, the one that leaves the smallest distances is kept (Arthur and
    Vassilvitskii 2007; scikit-learn does so too).
    """
    tiny = torch.finfo(z.dtype).tiny
    draws = 2 + int(math.log(num_seeds))
    seeds = z[multinomial(z.new_zeros(z.shape[0]), 1, generator=generator)]
    nearest = distances(z, seeds).square()
    for _ in range(num_seeds - 1):
        # Clamped: where only copies of the seeds are left, any of them will do.
        log_weights = nearest[:, 0].clamp_min(tiny).log()
        drawn = z[multinomial(log_weights, draws, generator=generator, validate_args=False)]
        left = torch.minimum(nearest, distances(z, drawn).square())
        best = left.sum(dim=0).argmin(dim=0, keepdim=True)
        nearest = left[:, best]
        seeds = torch.cat([seeds, drawn[best]])
    return seeds


def assign_to_nearest(
    z: Tensor,  # shape: (N, D)
    points: Tensor,  # shape: (K, D)
) -> Tensor:  # shape: (N, K)
    """Responsibilities, 1 for the nearest point of each row and 0 for the others."""
    return one_hot(distances(z, points).argmin(dim=1), len(points)).to(z.dtype)
