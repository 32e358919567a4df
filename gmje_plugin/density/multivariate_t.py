"""The multivariate Student t as a torch distribution, which torch does not have."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Generator, Size, Tensor
from torch.distributions import Distribution, constraints

from gmje_plugin.density.covariance import Full
from gmje_plugin.density.monte_carlo import standard_normal
from gmje_plugin.linalg import log_det, whiten


class MultivariateStudentT(Distribution):
    """Student t of a location, a scale matrix (s L) (s L)^T and degrees of freedom.

    It checks no values, as the Gaussians here do not.

    Args:
        df: Degrees of freedom, shape (...) or one that broadcasts to it.
        loc: Locations, shape (..., D).
        scale_tril: Lower Cholesky factors L; their batch shape is that of ``loc`` or the last part
            of it. They are not expanded.
        scale: Numbers s on the factors, broadcasting as ``df``. Default: 1.
    """

    # Of the base class, which checks them only if asked to.
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        df: Tensor,  # shape: (...)
        loc: Tensor,  # shape: (..., D)
        scale_tril: Tensor,  # shape: (..., D, D)
        scale: Tensor | None = None,  # shape: (...)
    ) -> None:
        self.loc, self.scale_tril = loc, scale_tril
        self.df = df.expand(loc.shape[:-1])
        self.scale = torch.ones_like(self.df) if scale is None else scale.expand(loc.shape[:-1])
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    def expand(
        self,
        batch_shape: Size | list[int] | tuple[int, ...],
        _instance: object = None,
    ) -> MultivariateStudentT:
        """The same distributions for a larger batch shape, as of any distribution of torch."""
        batch, dim = Size(batch_shape), self.loc.shape[-1]
        loc = self.loc.expand(*batch, dim)
        last = batch[len(batch) + 2 - self.scale_tril.ndim :]
        factor = self.scale_tril.expand(*last, dim, dim)
        return MultivariateStudentT(self.df.expand(batch), loc, factor, self.scale.expand(batch))

    @property
    def mean(self) -> Tensor:  # shape: (..., D)
        """The location; NaN with 1 degree of freedom or fewer, as of torch's ``StudentT``."""
        return torch.where(self.df[..., None] > 1, self.loc, math.nan)

    @property
    def variance(self) -> Tensor:  # shape: (..., D)
        """Variances of the dimensions: infinite with 2 degrees of freedom or fewer, NaN with 1."""
        scales = self.scale_tril.square().sum(dim=-1) * self.scale.square()[..., None]
        df = self.df[..., None]
        found = torch.where(df > 2, df / (df - 2) * scales, math.inf)
        return torch.where(df > 1, found, math.nan)

    def log_prob(
        self,
        value: Tensor,  # shape: (*sample, ..., D)
    ) -> Tensor:  # shape: (*sample, ...)
        """Log-density."""
        dim = self.loc.shape[-1]
        return log_density(
            distances(self.loc, self.scale_tril, value) / self.scale.square(),
            log_det(self.scale_tril) + 2 * dim * self.scale.log(),
            self.df,
            dim,
        )

    def rsample(
        self,
        sample_shape: Size | list[int] | tuple[int, ...] = (),
    ) -> Tensor:  # shape: (*sample, ..., D)
        """Draws by torch's own generator, with a gradient to all parameters."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = standard_normal(shape, self.loc, None)
        scale = self.scale * heavy_tails(self.df.expand(shape[:-1]), None)
        return self.loc + scale[..., None] * Full(self.scale_tril).matvec(noise)


def distances(
    loc: Tensor,  # shape: (..., D)
    scale_tril: Tensor,  # shape: (..., D, D)
    value: Tensor,  # shape: (*sample, ..., D)
) -> Tensor:  # shape: (*sample, ...)
    """Squared Mahalanobis distances, by one solve for each factor with all points that it has."""
    batch = scale_tril.ndim - 2
    difference = value - loc
    rows = difference.reshape(-1, *scale_tril.shape[:-1]).movedim(0, batch)
    found = whiten(scale_tril, rows).square().sum(dim=-1).movedim(batch, 0)
    return found.reshape(difference.shape[:-1])


def log_density(
    distances: Tensor,  # shape: (...)
    log_det: Tensor,  # shape: (...)
    df: Tensor,  # shape: (...)
    dim: int | Tensor,
) -> Tensor:  # shape: (...)
    """Log-density of a t at squared Mahalanobis distances, by the log-determinant of its scale."""
    half = 0.5 * (df + dim)
    constant = half.lgamma() - (0.5 * df).lgamma() - 0.5 * dim * (math.pi * df).log()
    return constant - 0.5 * log_det - half * (distances / df).log1p()


def heavy_tails(
    df: Tensor,  # shape: (...)
    generator: Generator | None,
) -> Tensor:  # shape: (...)
    """Draws of what makes a t of a normal: 1 / sqrt(g / df), g of chi-square with df degrees."""
    half = 0.5 * df
    source = generator.device if generator is not None else torch.device("cpu")
    # What torch's Gamma calls, which takes no generator.
    gamma = torch._standard_gamma(half.to(source), generator=generator).to(df.device)
    return (half / gamma.clamp_min(torch.finfo(df.dtype).tiny)).sqrt()
