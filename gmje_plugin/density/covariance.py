"""The kinds of covariance, full, diagonal and isotropic, as classes: what differs between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from gmje_plugin.linalg import LOG_2PI, cholesky, log_det, triangular, whiten

_ROWS = 32  # of a factor at a time in products with many points


class Covariance:
    """Covariances S = L L^T of D dimensions, after a batch shape, held by their factors L.

    Ones in the place of the means' batch shape are a covariance that all means share. Neither that
    nor a diagonal is expanded, but by ``as_matrix``. What is written here is for independent
    dimensions, whose factor is a vector of standard deviations; ``Full`` has its own.
    """

    event_dims: int  # a covariance is given in the shape event_dims * (D,)

    def __init__(self, factor: Tensor) -> None:
        self.factor = factor

    @classmethod
    def of(cls, given: Tensor) -> Self:
        """Factorises covariances as they are given."""
        return cls(given.sqrt())

    @staticmethod
    def check(name: str, given: Tensor) -> None:
        """Raises ``ValueError`` unless the values given make covariances of this kind."""
        if not bool((given > 0).all()):
            raise ValueError(f"{name} must be positive, got {float(given.min())}.")

    def square(self) -> Tensor:  # shape: (..., D, D) | (..., D) | (..., 1)
        """S in the form of the factor."""
        return self.factor.square()

    def as_given(self) -> Tensor:  # shape: (..., D, D) | (..., D) | (...)
        """S in the form in which it is given."""
        return self.square()

    @staticmethod
    def as_matrix(
        values: Tensor,  # shape: (..., D, D) | (..., D) | (..., 1)
        dim: int,
    ) -> Tensor:  # shape: (..., D, D)
        """The matrix that a factor, or S in its form, stands for."""
        return torch.diag_embed(values.expand(*values.shape[:-1], dim))

    def block(self, dims: slice) -> Self:
        """The factor's own block: of S for the first dimensions, for the last given the first."""
        return type(self)(self.factor[..., dims])

    def last(self, split: int) -> Self:
        """S of the dimensions from ``split``."""
        return self.block(slice(split, None))

    def rolled(self, shift: int) -> Self:
        """S after the last ``shift`` dimensions have come first."""
        return type(self)(self.factor.roll(shift, dims=-1))

    def matvec(
        self,
        vectors: Tensor,  # shape: (..., D)
    ) -> Tensor:  # shape: (..., D)
        """L x, without expanding either to the other's batch shape."""
        return self.factor * vectors

    def normal(
        self,
        mean: Tensor,  # shape: (..., D)
    ) -> Distribution:
        """A Gaussian of torch; unchecked, so that a NaN comes out as NaN and no GPU has to wait."""
        return Independent(Normal(mean, self.factor, validate_args=False), 1, validate_args=False)

    def conditional_mean(
        self,
        mean: Tensor,  # shape: (..., D)
        z_c: Tensor,  # shape: (..., split)
    ) -> Tensor:  # shape: (..., D - split)
        """The mean of the other dimensions given the first (Huang 2026, Eq. 10)."""
        # Independent of the context, but of its batch shape, and NaN where it is.
        return mean[..., z_c.shape[-1] :] + 0.0 * z_c.sum(dim=-1, keepdim=True)

    def is_shared(self, mean: Tensor) -> bool:
        """Whether several means have one covariance."""
        return self.factor.shape[: mean.ndim - 1] != mean.shape[:-1]

    def log_density(
        self,
        mean: Tensor,  # shape: (..., D)
        z: Tensor,  # shape: (..., D)
    ) -> Tensor:  # shape: (...)
        """Log-densities at points, broadcast with the batch shape."""
        return self.normal(mean).log_prob(z)

    def log_densities(
        self,
        means: Tensor,  # shape: (K, D)
        num_points: int,  # noqa: ARG002
    ) -> Callable[[Tensor], Tensor]:
        """A function from points, shape (N, D), to their log-densities, shape (N, K).

        ``num_points`` says for how many points it is worth to be prepared.
        """
        return lambda z: self.log_density(means, z.unsqueeze(-2))

    def scale(
        self,
        noise: Tensor,  # shape: (N, D)
        counts: list[int],
    ) -> Tensor:  # shape: (N, D)
        """Products of K factors and the noise, the first of which gets ``counts[0]`` rows, etc.

        One product with each component's factor, instead of a factor for each row.
        """
        parts = torch.split(noise, counts if len(self.factor) > 1 else len(noise))
        pairs = zip(self.factor, parts, strict=True)
        return torch.cat([type(self)(factor).matvec(rows) for factor, rows in pairs])


class Full(Covariance):
    """Matrices (..., D, D), held by their lower Cholesky factors."""

    event_dims = 2

    @staticmethod
    def check(name: str, given: Tensor) -> None:
        """Symmetric; what is not definite is found by the factorisation."""
        if bool((given - given.mT).abs().max() > 1e-4 * given.abs().max()):
            raise ValueError(f"{name} must be symmetric.")

    @classmethod
    def of(cls, given: Tensor) -> Self:
        """With jitter, and its warning, where it is needed."""
        return cls(cholesky(given, name="covariance"))

    def square(self) -> Tensor:
        """L L^T."""
        with torch.autocast(device_type=self.factor.device.type, enabled=False):
            return self.factor @ self.factor.mT

    @staticmethod
    def as_matrix(values: Tensor, dim: int) -> Tensor:  # noqa: ARG004
        """It is one."""
        return values

    def block(self, dims: slice) -> Self:
        """L_cc or L_tt."""
        return type(self)(self.factor[..., dims, dims])

    def last(self, split: int) -> Self:
        """From the last rows of L, a root of it."""
        return type(self)(triangular(self.factor[..., split:, :]))

    def rolled(self, shift: int) -> Self:
        """From the rows of L in another order, a root of it."""
        return type(self)(triangular(self.factor.roll(shift, dims=-2)))

    def matvec(self, vectors: Tensor) -> Tensor:
        """Products with the matrices."""
        return _matvec(self.factor, vectors)

    def normal(self, mean: Tensor) -> MultivariateNormal:
        """By its Cholesky factor."""
        return MultivariateNormal(mean, scale_tril=self.factor, validate_args=False)

    def conditional_mean(self, mean: Tensor, z_c: Tensor) -> Tensor:
        """m_t + S_tc S_cc^-1 (z_c - m_c), where S_tc S_cc^-1 = L_tc L_cc^-1."""
        split = z_c.shape[-1]
        l_cc, l_tc = self.factor[..., :split].tensor_split([split], dim=-2)
        m_c, m_t = mean.tensor_split([split], dim=-1)
        predictor = torch.linalg.solve_triangular(l_cc, l_tc, upper=False, left=False)
        if self.is_shared(mean):
            # A product for each point and each mean, instead of one for each pair of them.
            origin = _centre(m_c)
            m_t, m_c = m_t - _matvec(predictor, m_c - origin), origin
        return m_t + _matvec(predictor, z_c - m_c)

    def log_density(self, mean: Tensor, z: Tensor) -> Tensor:
        """Where means share the covariance, by a solve a point instead of a pair."""
        if not self.is_shared(mean):
            return super().log_density(mean, z)
        # |L^-1 (z - m)| is the distance of L^-1 z and L^-1 m, around an origin close to both.
        origin = _centre(mean)
        factor = self.factor.reshape(self.factor.shape[-2:])
        z, mean = (
            whiten(factor, (points - origin).reshape(-1, len(origin))).reshape(points.shape)
            for points in (z, mean)
        )
        distances = (z - mean).square().sum(dim=-1)
        return -0.5 * (distances + log_det(factor) + len(origin) * LOG_2PI)

    def log_densities(self, means: Tensor, num_points: int) -> Callable[[Tensor], Tensor]:
        """For more points than it costs to invert the factors once, without a solve a component.

        A product with some rows of all inverse factors at a time, as far as those rows have
        entries: that is half of the operations of whole products.
        """
        components, dim = means.shape
        if self.is_shared(means) or num_points < dim:
            return super().log_densities(means, num_points)
        origin = _centre(means)
        eye = torch.eye(dim, dtype=means.dtype, device=means.device)
        inverse = torch.linalg.solve_triangular(self.factor, eye, upper=False)
        # [-L^-1 m, L^-1] [1, z] is L^-1 (z - m), around an origin close to both.
        shift = whiten(self.factor, (means - origin)[:, None]).mT
        augmented = torch.cat([-shift, inverse], dim=2)
        ends = [*range(_ROWS, dim, _ROWS), dim]
        blocks = [
            augmented[:, start:end, : end + 1].reshape(-1, end + 1).mT
            for start, end in itertools.pairwise([0, *ends])
        ]
        constant = log_det(self.factor) + dim * LOG_2PI

        def log_densities(z: Tensor) -> Tensor:
            points = torch.cat([torch.ones_like(z[:, :1]), z - origin], dim=1)
            distances = z.new_zeros(len(z), components)
            with torch.autocast(device_type=z.device.type, enabled=False):
                for block in blocks:
                    whitened = (points[:, : len(block)] @ block).reshape(len(z), components, -1)
                    distances = distances + whitened.square().sum(dim=2)
            return -0.5 * (distances + constant)

        return log_densities


class Diagonal(Covariance):
    """Variances (..., D), held by the standard deviations."""

    event_dims = 1


class Isotropic(Covariance):
    """One variance (...) for all dimensions, held by its standard deviation (..., 1)."""

    event_dims = 0

    @classmethod
    def of(cls, given: Tensor) -> Self:
        """With a dimension of 1 for all."""
        return cls(given.sqrt().unsqueeze(-1))

    def as_given(self) -> Tensor:
        """Without that dimension."""
        return self.square().squeeze(-1)

    def block(self, dims: slice) -> Self:  # noqa: ARG002
        """The same for all dimensions."""
        return self

    def rolled(self, shift: int) -> Self:  # noqa: ARG002
        """The same for all dimensions."""
        return self


KINDS: dict[str, type[Covariance]] = {"full": Full, "diagonal": Diagonal, "isotropic": Isotropic}


def _matvec(
    matrix: Tensor,  # shape: (..., I, J)
    vectors: Tensor,  # shape: (..., J)
) -> Tensor:  # shape: (..., I)
    with torch.autocast(device_type=matrix.device.type, enabled=False):
        return torch.einsum("...ij,...j->...i", matrix, vectors)


def _centre(
    means: Tensor,  # shape: (..., D)
) -> Tensor:  # shape: (D,)
    """An origin close to the means, around which products do not cancel; without a gradient."""
    return means.detach().flatten(0, -2).mean(dim=0)
