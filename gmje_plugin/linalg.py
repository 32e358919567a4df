"""Linear algebra of covariances: the only place that factorises or adds jitter.

A covariance is held by its lower Cholesky factor; determinants and quadratic forms go through
it, and no matrix is inverted.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from gmje_plugin.validation import moves_state

LOG_2PI = math.log(2.0 * math.pi)
_INVERSE_SOFTPLUS_OF_ONE = math.log(math.expm1(1.0))

# Multiples of the mean diagonal, tried in this order on the matrices that fail, as
# linear_operator does: the first is about the rounding error of a float32 (float64) product.
_JITTER = {torch.float32: (1e-6, 1e-5, 1e-4, 1e-3), torch.float64: (1e-10, 1e-8, 1e-6, 1e-4)}


def cholesky(
    matrix: Tensor,  # shape: (..., D, D)
    *,
    name: str = "matrix",
    dtype: torch.dtype | None = None,
    smallest: Tensor | None = None,  # shape: (D,)
) -> Tensor:  # shape: (..., D, D)
    """Lower Cholesky factor of symmetric matrices, with jitter on those that need it.

    Args:
        matrix: Symmetric positive semi-definite matrices of shape (..., D, D), float32 or float64.
        name: What the matrices are called in messages.
        dtype: Dtype of the factor, and of the jitter. Default: that of the matrix.
        smallest: Bound on the factor's diagonal, shape (D,), at or below which a matrix counts as
            not positive definite: what ``dtype`` tells from 0, where that is the narrower.

    Returns:
        The factors, shape (..., D, D). A matrix with a non-finite entry gets a factor of NaN, so
        that a loss built on it is visibly NaN. A matrix that is not positive definite gets the
        smallest jitter of a fixed ladder (multiples of its mean diagonal) that lets it through,
        with a warning; the other matrices of the batch are left as they are.

    Raises:
        ValueError: If a finite matrix stays indefinite under the largest jitter.
    """
    finite = torch.isfinite(matrix).all(dim=-1).all(dim=-1)[..., None, None]
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    safe = torch.where(finite, matrix, eye)
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(safe)
    if smallest is not None:
        lost = (factor.diagonal(dim1=-2, dim2=-1) <= smallest).any(dim=-1)
        info = torch.where(lost & finite[..., 0, 0], 1, info)
    if bool(info.any()):
        factor = _cholesky_with_jitter(safe, info, eye, name, dtype or matrix.dtype)
    return torch.where(finite, factor, math.nan).to(dtype or matrix.dtype)


def _cholesky_with_jitter(
    matrix: Tensor, info: Tensor, eye: Tensor, name: str, dtype: torch.dtype
) -> Tensor:
    scale = matrix.diagonal(dim1=-2, dim2=-1).detach().mean(dim=-1)
    scale = scale.clamp_min(torch.finfo(matrix.dtype).tiny ** 0.5)
    jitter = torch.zeros_like(scale)
    factor: Tensor
    for step in _JITTER[dtype]:
        jitter = torch.where(info > 0, step * scale, jitter)
        factor, info = torch.linalg.cholesky_ex(matrix + jitter[..., None, None] * eye)
        if not bool(info.any()):
            break
    else:
        raise ValueError(
            f"{name} must be positive semi-definite: {int((info > 0).sum())} of {info.numel()} "
            f"stay indefinite with {_JITTER[dtype][-1]:g} of the mean diagonal added."
        )
    warnings.warn(
        f"{int((jitter > 0).sum())} of {jitter.numel()} matrices were not positive definite; "
        f"up to {float(jitter.max()):.1e} was added to their diagonal.",
        RuntimeWarning,
        stacklevel=3,
    )
    return factor


def triangular(
    root: Tensor,  # shape: (..., D, M), M >= D
) -> Tensor:  # shape: (..., D, D)
    """Lower Cholesky factor of A A^T from the root A, by a QR decomposition.

    The product, whose condition number is that of A squared, is never formed.
    """
    upper: Tensor = torch.linalg.qr(root.mT).R
    signs = torch.where(upper.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(upper.dtype)
    return (signs[..., None] * upper).mT


def log_det(
    factor: Tensor,  # shape: (..., D, D)
) -> Tensor:  # shape: (...)
    """log|L L^T| from the Cholesky factor L."""
    return 2.0 * factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)


def mahalanobis(
    factor: Tensor,  # shape: (..., D, D)
    difference: Tensor,  # shape: (..., N, D)
) -> Tensor:  # shape: (..., N)
    """Squared Mahalanobis norms x^T (L L^T)^-1 x of the rows of ``difference``."""
    return whiten(factor, difference).square().sum(dim=-1)


def whiten(
    factor: Tensor,  # shape: (..., D, D)
    rows: Tensor,  # shape: (..., N, D)
) -> Tensor:  # shape: (..., N, D)
    """L^-1 x of the rows x: distances between the results are Mahalanobis distances."""
    columns: Tensor = torch.linalg.solve_triangular(factor, rows.mT, upper=False)
    return columns.mT


def learned_factor(
    raw: Tensor,  # shape: (..., D, D)
) -> Tensor:  # shape: (..., D, D)
    """Cholesky factor of a learned covariance: any square ``raw`` gives one, zeros the identity.

    The factor is the lower triangle of ``raw`` with softplus(raw_ii + log(e - 1)) as its diagonal.
    """
    diagonal = softplus(raw.diagonal(dim1=-2, dim2=-1) + _INVERSE_SOFTPLUS_OF_ONE)
    return raw.tril(-1) + torch.diag_embed(diagonal)


def second_moment(
    samples: Tensor,  # shape: (N, D)
) -> Tensor:  # shape: (D, D)
    """Z^T Z / N, the zero-mean covariance of the paper (Huang 2026, Eq. 7-8)."""
    return samples.mT @ samples / samples.shape[0]


def entropy_log_det(
    moment: Tensor,  # shape: (D, D)
    eps: float,
) -> Tensor:  # shape: ()
    """H' = 1/2 log|S + eps I|, the part of a Gaussian's entropy that S decides (Eq. 38).

    ``eps`` is a share of the mean diagonal of S, so that H' has no preferred scale.
    """
    floor = eps * moment.diagonal().mean()
    eye = torch.eye(moment.shape[0], dtype=moment.dtype, device=moment.device)
    return 0.5 * log_det(cholesky(moment + floor * eye))


class EMASecondMoment(nn.Module):
    """Exponential moving average of Z^T Z / N, through which the current batch has a gradient.

    It starts at the first batch's moment and is updated in training mode with gradients enabled.
    State: ``moment`` (D, D) and ``initialized`` in ``state_dict``,
    the latter 0 before the first batch and 1 after it, in floating point: what averages a model's
    buffers (torch's ``AveragedModel``, Lightning's ``WeightAveraging``) cannot average others. An
    average of both is right as well, as the moment is taken by its share of 1.

    Args:
        dim: D.
        momentum: Share of the history in each update, in [0, 1).
    """

    moment: Tensor
    initialized: Tensor

    @torch.inference_mode(False)  # what is made under it cannot be loaded into later
    def __init__(self, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("moment", torch.zeros(dim, dim))
        self.register_buffer("initialized", torch.zeros(()))

    def forward(
        self,
        batch_moment: Tensor,  # shape: (D, D)
        *,
        full_gradient: bool = False,
    ) -> Tensor:  # shape: (D, D)
        """Mixes the batch's moment in and returns the average.

        Args:
            batch_moment: Moment of the current batch, shape (D, D).
            full_gradient: The batch holds only (1 - momentum) of the average, and of its gradient.
                True scales the gradient (not the value) back to the batch's own.

        Returns:
            The average including the current batch, shape (D, D), in the dtype of the batch.
        """
        batch = batch_moment.detach()
        # Stock training code never calls .to on a criterion: the state follows the batch.
        moment, initialized = self.moment.to(batch), self.initialized.to(batch)
        seen = initialized.clamp_min(torch.finfo(batch.dtype).tiny)
        history = torch.where(initialized > 0, moment / seen, batch)
        average = self.momentum * history + (1.0 - self.momentum) * batch
        if moves_state(self):
            # A batch with a non-finite entry makes the loss NaN; the average outlives it.
            keep = torch.isfinite(average).all()
            self._store("moment", torch.where(keep, average, moment))
            self._store("initialized", torch.where(keep, 1.0, initialized))
        share = 1.0 if full_gradient else 1.0 - self.momentum
        return average + share * (batch_moment - batch)

    def _store(self, name: str, value: Tensor) -> None:
        buffer: Tensor = getattr(self, name)
        if (buffer.dtype, buffer.device) != (value.dtype, value.device):
            buffer = torch.empty_like(buffer, dtype=value.dtype, device=value.device)
        # In place, so that a tensor of torch.vmap is refused here and cannot escape.
        buffer.copy_(value)
        setattr(self, name, buffer)
