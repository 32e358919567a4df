"""Densities of the target, one for each context, that the truth and every model come as."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.distributions import MixtureSameFamily, MultivariateNormal, Normal

# Weight of a component that can be left out.
_NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class Conditional:
    """Mixtures of K Gaussians over d target dimensions, for each of N contexts, in float64."""

    weights: Tensor  # shape: (N, K)
    means: Tensor  # shape: (N, K, d)
    factors: Tensor  # shape: (N, K, d, d), Cholesky factors of the covariances

    @classmethod
    def of(cls, mixture: MixtureSameFamily) -> Conditional:
        """Takes over a mixture of torch of batch shape (N,), without its gradient."""
        components = mixture.component_distribution
        means = components.mean.detach().double()
        if isinstance(components, MultivariateNormal):
            factors = components.scale_tril.detach().double()
        else:
            factors = torch.diag_embed(components.stddev.detach().double())
        weights = mixture.mixture_distribution.probs.detach().double()
        return cls(weights, means, factors.expand(*means.shape, -1))

    @classmethod
    def single(
        cls,
        means: Tensor,  # shape: (N, d)
        covariances: Tensor,  # shape: (d, d) | (N, d, d)
    ) -> Conditional:
        """One Gaussian for each context."""
        means = means.detach().double()
        factors = torch.linalg.cholesky(covariances.detach().double())
        factors = factors.expand(*means.shape, -1)[:, None]
        return cls(means.new_ones(len(means), 1), means[:, None], factors)

    def pruned(self) -> Conditional:
        """The heaviest components of each context, as many as any has above 1e-6.

        Of hundreds of particles a context needs a few; the others cost time.
        """
        needed = int((self.weights > _NEGLIGIBLE).sum(dim=1).max())
        weights, places = self.weights.topk(needed, dim=1)
        rows = torch.arange(len(weights))[:, None]
        return Conditional(
            weights / weights.sum(dim=1, keepdim=True),
            self.means[rows, places],
            self.factors[rows, places],
        )

    def log_prob(
        self,
        targets: Tensor,  # shape: (S, N, d)
    ) -> Tensor:  # shape: (S, N)
        """Log-densities in nats of S targets for each context."""
        eye = torch.eye(self.means.shape[2], dtype=torch.float64)
        # A matrix product a context; torch's own mixtures solve a system for every point.
        whitening = torch.linalg.solve_triangular(self.factors, eye, upper=False).flatten(1, 2)
        points, means = targets.transpose(0, 1), self.means[..., None]
        centres = (whitening.unflatten(1, (-1, len(eye))) @ means).flatten(1)
        whitened = points @ whitening.mT - centres[:, None]  # (N, S, K * d)
        distances = whitened.square_().unflatten(2, (-1, len(eye))).sum(dim=-1)
        log_dets = self.factors.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        offsets = self.weights.log() - log_dets - 0.5 * len(eye) * math.log(2 * math.pi)
        return torch.logsumexp(offsets[:, None] - 0.5 * distances, dim=2).T

    def sample(self, num_draws: int, *, generator: Generator) -> Tensor:  # shape: (S, N, d)
        """Draws S targets for each context."""
        component = torch.multinomial(
            self.weights, num_draws, replacement=True, generator=generator
        )
        rows = torch.arange(len(self.weights))[:, None]
        noise = torch.randn(
            *component.shape, self.means.shape[2], 1, dtype=torch.float64, generator=generator
        )
        drawn = self.means[rows, component] + (self.factors[rows, component] @ noise)[..., 0]
        return drawn.transpose(0, 1)

    def project(
        self,
        direction: Tensor,  # shape: (d,), of unit norm
    ) -> tuple[Tensor, Tensor]:  # shapes: (N, K), (N, K)
        """Means and standard deviations of the components along a direction."""
        return self.means @ direction, (self.factors.mT @ direction).norm(dim=-1)

    def cdf(
        self,
        places: Tensor,  # shape: (N, G)
        direction: Tensor,  # shape: (d,)
    ) -> Tensor:  # shape: (N, G)
        """Distribution functions along a direction, at G places for each context."""
        means, deviations = self.project(direction)
        components = Normal(means[:, None], deviations[:, None], validate_args=False)
        below: Tensor = components.cdf(places[..., None])  # type: ignore[no-untyped-call]
        return (below @ self.weights[..., None])[..., 0]

    @property
    def mean(self) -> Tensor:  # shape: (N, d)
        """Conditional means."""
        return (self.weights[..., None] * self.means).sum(dim=1)

    @property
    def component_variances(self) -> Tensor:  # shape: (N, K)
        """Variances of the components, averaged over the target dimensions."""
        return self.factors.square().sum(dim=(-2, -1)) / self.means.shape[2]
