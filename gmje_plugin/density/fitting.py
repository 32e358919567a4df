"""What the fits of a Gaussian and of a mixture share: data, covariances, the steps of EM."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from gmje_plugin.resampling import multinomial
from gmje_plugin.validation import check_embeddings, wide_dtype

COVARIANCES = ("full", "diagonal", "isotropic")


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


def weighted_covariance(
    centred: Tensor,  # shape: (N, D)
    weights: Tensor,  # shape: (N,)
    kind: str,
) -> Tensor:  # shape: (D, D) | (D,) | ()
    """Covariance around 0 under weights that sum to 1, of one of the ``COVARIANCES``."""
    if kind == "full":
        with torch.autocast(device_type=centred.device.type, enabled=False):
            return (weights[:, None] * centred).mT @ centred
    variances = (weights[:, None] * centred.square()).sum(dim=0)
    return variances if kind == "diagonal" else variances.mean()


def maximise(
    z: Tensor,  # shape: (N, D)
    shares: Tensor,  # shape: (N, K)
    kind: str,
    floor: Tensor,  # shape: ()
) -> tuple[Tensor, Tensor, Tensor]:  # shapes: (K,), (K, D), (K, D, D) | (K, D) | (K,)
    """M-step: the weights, means and covariances of highest likelihood, variances plus ``floor``.

    ``shares`` are the components' responsibilities for the rows. A component without any gets
    weight 0, mean 0 and the floor as its variance.
    """
    counts = shares.sum(dim=0)
    columns = (shares / counts.clamp_min(torch.finfo(z.dtype).tiny)).mT
    means = columns @ z
    return counts / z.shape[0], means, covariances_around(means, z, columns, kind, floor)


def covariances_around(
    means: Tensor,  # shape: (K, D)
    z: Tensor,  # shape: (N, D)
    columns: Tensor,  # shape: (K, N)
    kind: str,
    floor: Tensor,  # shape: ()
) -> Tensor:  # shape: (K, D, D) | (K, D) | (K,)
    """Covariances of the rows around each mean, variances plus ``floor``.

    ``columns`` are each component's weights of the rows, which sum to 1.
    """
    covariances = torch.stack(
        [
            weighted_covariance(z - mean, column, kind)
            for mean, column in zip(means, columns, strict=True)
        ]
    )
    if kind == "full":
        floor = floor * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    return covariances + floor


def nearest_seed(
    z: Tensor,  # shape: (N, D)
    num_seeds: int,
    generator: Generator | None,
) -> Tensor:  # shape: (N, K)
    """One-hot memberships of the rows in the cells of greedy k-means++ seeds.

    A seed is drawn with a probability proportional to its squared distance from the seeds before
    it; of a few such draws, the one that leaves the smallest distances is kept (Arthur and
    Vassilvitskii 2007; scikit-learn does so too).
    """
    tiny = torch.finfo(z.dtype).tiny
    draws = 2 + int(math.log(num_seeds))
    seeds = z[multinomial(z.new_zeros(z.shape[0]), 1, generator=generator)]
    nearest = _squared_distances(z, seeds)
    for _ in range(num_seeds - 1):
        # Clamped: where only copies of the seeds are left, any of them will do.
        log_weights = nearest[:, 0].clamp_min(tiny).log()
        drawn = z[multinomial(log_weights, draws, generator=generator, validate_args=False)]
        left = torch.minimum(nearest, _squared_distances(z, drawn))
        best = left.sum(dim=0).argmin(dim=0, keepdim=True)
        nearest = left[:, best]
        seeds = torch.cat([seeds, drawn[best]])
    return one_hot(_squared_distances(z, seeds).argmin(dim=1), num_seeds).to(z.dtype)


def _squared_distances(z: Tensor, points: Tensor) -> Tensor:
    # Not through z @ points.T, which loses small distances far from the origin.
    return torch.cdist(z, points, compute_mode="donot_use_mm_for_euclid_dist").square()
