"""Mixtures of Gaussians, the form in which the harness draws from densities and measures them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor
from torch.distributions import MixtureSameFamily, MultivariateNormal, Normal

# Weight of a component that can be left out.
_NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class GaussianMixtures:
    """Mixtures of K Gaussians in d dimensions: one, or one for each of N contexts."""

    weights: Tensor  # shape: (..., K)
    means: Tensor  # shape: (..., K, d)
    factors: Tensor  # shape: (..., K, d, d), Cholesky factors of the covariances

    @classmethod
    def of(cls, mixture: MixtureSameFamily) -> Self:
        """Takes over a mixture of torch, without its gradient."""
        components = mixture.component_distribution
        if isinstance(components, MultivariateNormal):
            factors = components.scale_tril.detach()
        else:
            factors = torch.diag_embed(components.stddev.detach())
        return cls(mixture.mixture_distribution.probs.detach(), components.mean.detach(), factors)

    @classmethod
    def single(
        cls,
        means: Tensor,  # shape: (..., d)
        covariances: Tensor,  # shape: (d, d) | (..., d, d)
    ) -> Self:
        """One Gaussian for each context, in float64."""
        means = means.detach().double()
        factors = torch.linalg.cholesky(covariances.detach().double())
        factors = factors.expand(*means.shape, -1).unsqueeze(-3)
        return cls(means.new_ones(*means.shape[:-1], 1), means.unsqueeze(-2), factors)

    def double(self) -> GaussianMixtures:
        """In float64, on the CPU."""
        parts = (self.weights, self.means, self.factors)
        return GaussianMixtures(*(part.cpu().double() for part in parts))

    def pruned(self) -> GaussianMixtures:
        """The heaviest components of each context, as many as any has above 1e-6.

        Of hundreds of particles a context needs a few; the others cost time.
        """
        needed = int((self.weights > _NEGLIGIBLE).sum(dim=-1).max())
        weights, indices = self.weights.topk(needed, dim=-1)
        return GaussianMixtures(
            weights / weights.sum(dim=-1, keepdim=True),
            self.means.take_along_dim(indices[..., None], dim=-2),
            self.factors.take_along_dim(indices[..., None, None], dim=-3),
        )

    def component_log_probs(
        self,
        points: Tensor,  # shape: (S, ..., d)
    ) -> Tensor:  # shape: (S, ..., K)
        """Logarithms of weights times densities: their log-sum-exp is the mixture's density."""
        dim = self.means.shape[-1]
        eye = torch.eye(dim, dtype=self.factors.dtype)
        # A matrix product a context; torch's own mixtures solve a system for every point.
        inverse = torch.linalg.solve_triangular(self.factors, eye, upper=False)
        centres = (inverse @ self.means[..., None]).flatten(-3)
        whitened = points.movedim(0, -2) @ inverse.flatten(-3, -2).mT - centres[..., None, :]
        distances: Tensor = whitened.square_().unflatten(-1, (-1, dim)).sum(dim=-1)
        log_dets = self.factors.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        offsets = self.weights.log() - log_dets - 0.5 * dim * math.log(2 * math.pi)
        joint: Tensor = offsets[..., None, :] - 0.5 * distances
        return joint.movedim(-2, 0)

    def log_prob(
        self,
        points: Tensor,  # shape: (S, ..., d)
    ) -> Tensor:  # shape: (S, ...)
        """Log-densities in nats of S points for each context."""
        return self.component_log_probs(points).logsumexp(dim=-1)

    def sample(self, num_draws: int, *, generator: Generator) -> Tensor:  # shape: (S, ..., d)
        """Draws S points for each context, from one component each: torch draws from all."""
        component = torch.multinomial(
            self.weights, num_draws, replacement=True, generator=generator
        )
        shape = (*component.shape, self.means.shape[-1])
        draws = torch.randn(*shape, dtype=self.means.dtype, generator=generator)
        for k in range(self.means.shape[-2]):  # a factor for every draw would take much memory
            rows = (component == k).nonzero(as_tuple=True)
            of: tuple[Tensor | int, ...] = (*rows[:-1], k)
            draws[rows] = self.means[of] + (self.factors[of] @ draws[rows][..., None])[..., 0]
        return draws.movedim(-2, 0)

    def project(
        self,
        direction: Tensor,  # shape: (d,), of unit norm
    ) -> tuple[Tensor, Tensor]:  # shapes: (..., K), (..., K)
        """Means and standard deviations of the components along a direction."""
        return self.means @ direction, (self.factors.mT @ direction).norm(dim=-1)

    def cdf(
        self,
        points: Tensor,  # shape: (..., G)
        direction: Tensor,  # shape: (d,)
    ) -> Tensor:  # shape: (..., G)
        """Distribution functions along a direction, at G points for each context."""
        means, deviations = self.project(direction)
        components = Normal(means[..., None, :], deviations[..., None, :], validate_args=False)
        below: Tensor = components.cdf(points[..., None])  # type: ignore[no-untyped-call]
        return (below @ self.weights[..., None])[..., 0]

    @property
    def mean(self) -> Tensor:  # shape: (..., d)
        """Means over components."""
        return (self.weights[..., None] * self.means).sum(dim=-2)

    @property
    def component_variances(self) -> Tensor:  # shape: (..., K)
        """Variances of the components, averaged over the dimensions."""
        return self.factors.square().sum(dim=(-2, -1)) / self.means.shape[-1]
