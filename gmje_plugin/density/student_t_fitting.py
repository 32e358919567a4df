"""The steps of a Student t mixture's fit, as pure functions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gmje_plugin.density.fitting import weighted_covariance
from gmje_plugin.density.multivariate_t import log_density
from gmje_plugin.linalg import cholesky

_HALVINGS = 60  # of the interval of log df in which an update is searched
_START_DF, _LARGEST_DF = 10.0, 200.0  # of a calibration; the smallest is 1
_ITERATIONS = 100  # of its optimiser at most; some 20 are needed


def log_distance(
    squared: Tensor,  # shape: (...)
    split: int | Tensor,
) -> Tensor:  # shape: (...)
    """Logarithm of a context's squared distance beside that of a usual one, bounded below."""
    return squared.log1p() - math.log1p(split)


def joint_log_density(
    distances: Tensor,  # shape: (N, K, 1) | (N, K, 2)
    log_dets: Tensor,  # shape: (K, 1) | (K, 2)
    df: Tensor,  # shape: (K, 1) | (K, 2)
    dims: Tensor,  # shape: (1,) | (2,)
    power: Tensor,  # shape: ()
) -> Tensor:  # shape: (N, K)
    """Log-densities of both views from distances of the parts that have a scale of their own."""
    if distances.shape[-1] > 1:
        squared = power * log_distance(distances[..., 0], dims[0])
        widths = torch.stack([torch.zeros_like(squared), squared], dim=-1)
        distances, log_dets = distances * (-widths).exp(), log_dets + dims * widths
    return log_density(distances, log_dets, df, dims).sum(dim=-1)


def calibration(
    distances: Tensor,  # shape: (N, K, 2)
    log_weights: Tensor,  # shape: (K,)
    log_dets: Tensor,  # shape: (K, 2)
    df: Tensor,  # shape: (K, 2)
    dims: Tensor,  # shape: (2,)
) -> tuple[Tensor, Tensor, Tensor]:  # shapes: (), (), ()
    """The factor on residuals' scales, their degrees of freedom and power of highest likelihood."""
    # Logarithm of the factor, where df is between its bounds, power.
    start = math.log(_START_DF) / math.log(_LARGEST_DF)
    free = distances.new_tensor([0.0, math.log(start / (1 - start)), 0.0]).requires_grad_()
    residual = torch.tensor([0.0, 1.0]).to(distances)
    optimizer: Any = torch.optim.LBFGS([free], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def degrees() -> Tensor:
        return (free[1].sigmoid() * math.log(_LARGEST_DF)).exp()

    def loss() -> Tensor:
        optimizer.zero_grad()
        found: Tensor = (
            -(
                log_weights
                + joint_log_density(
                    distances * (-2 * free[0] * residual).exp(),
                    log_dets + 2 * free[0] * residual * dims,
                    torch.where(residual > 0, degrees(), df),
                    dims,
                    free[2],
                )
            )
            .logsumexp(dim=1)
            .mean()
        )
        torch.autograd.backward(found)
        return found

    with torch.enable_grad():
        optimizer.step(loss)
    free.requires_grad_(False)
    return free[0].exp(), degrees(), free[2]


def m_step(
    z: Tensor,  # shape: (N, D)
    responsibilities: Tensor,  # shape: (N, K)
    precisions: Tensor,  # shape: (N, K, 1) | (N, K, 2)
    floor: Tensor,  # shape: (D, D)
    split: int,
) -> tuple[Tensor, Tensor]:  # shapes: (K, D), (K, D, D)
    """Locations of highest expected likelihood, and factors of such scale matrices plus ``floor``.

    ``precisions`` are the expected inverses of the rows' scales (Peel and McLachlan 2000, Eq. 19 to
    28). With two, the residual's are the weights of the regression on the context.
    """
    tiny = torch.finfo(z.dtype).tiny
    counts = responsibilities.sum(dim=0).clamp_min(tiny)

    def moments(rows: Tensor, weights: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        total = weights.sum().clamp_min(tiny)
        mean = weights / total @ rows
        scale = weighted_covariance(rows - mean, weights / count, "full")
        dim = rows.shape[1]
        return mean, cholesky(scale + floor[:dim, :dim], name="scales")

    found = []
    for responsibility, precision, count in zip(
        responsibilities.mT, precisions.unbind(1), counts, strict=True
    ):
        mean, factor = moments(z, responsibility * precision[:, -1], count)
        if precision.shape[1] > 1:
            mean_c, factor_c = moments(z[:, :split], responsibility * precision[:, 0], count)
            predictor = torch.linalg.solve_triangular(
                factor[:split, :split], factor[split:, :split], upper=False, left=False
            )
            mean = torch.cat([mean_c, mean[split:] + predictor @ (mean_c - mean[:split])])
            factor = factor.clone()
            factor[:split, :split], factor[split:, :split] = factor_c, predictor @ factor_c
        found.append((mean, factor))
    means, factors = map(torch.stack, zip(*found, strict=True))
    return means, factors


def updated_df(
    df: Tensor,  # shape: (K, P)
    dims: Tensor,  # shape: (P,)
    responsibilities: Tensor,  # shape: (N, K)
    precisions: Tensor,  # shape: (N, K, P)
    bounds: tuple[float, float],
) -> Tensor:  # shape: (K, P)
    """Degrees of freedom of highest expected likelihood (Peel and McLachlan 2000, Eq. 30).

    Where the derivative, which falls with them, is 0, by bisection of their logarithm.
    """
    half = 0.5 * (df + dims)
    columns = responsibilities / responsibilities.sum(dim=0).clamp_min(
        torch.finfo(responsibilities.dtype).tiny
    )
    terms = torch.einsum("nk,nkp->kp", columns, precisions.log() - precisions)
    known = 1.0 + terms + half.digamma() - half.log()
    low, high = (torch.full_like(df, bound).log() for bound in bounds)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        nu = 0.5 * middle.exp()
        rises = nu.log() - nu.digamma() + known > 0
        low, high = torch.where(rises, middle, low), torch.where(rises, high, middle)
    return (0.5 * (low + high)).exp()
