"""Joint SMC written out with torch.distributions, one pair of rows at a time, in float64."""

import math

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal


def nll(z: Tensor, particles: Tensor, log_weights: Tensor, covariance: Tensor) -> Tensor:
    """Minus the mean log-density of the mixture of the particles (Huang 2026, Eq. 14)."""
    mixture = MixtureSameFamily(
        Categorical(logits=log_weights), MultivariateNormal(particles, covariance)
    )
    return -mixture.log_prob(z).mean()


def pool_log_weights(
    z: Tensor,
    particles: Tensor,
    log_weights: Tensor,
    covariance: Tensor,
    *,
    count_own_query: bool,
) -> Tensor:
    """Normalised log-weights of the particles and then the new pairs (Eq. 118-121).

    With full densities: the determinant and the constants cancel (Eq. 119-121).
    """
    size, values = len(particles), []
    for j, point in enumerate(torch.cat([particles, z])):
        density = MultivariateNormal(point, covariance)
        likelihoods = [
            math.exp(float(density.log_prob(row)))
            for i, row in enumerate(z)
            if count_own_query or i + size != j
        ]
        prior = math.exp(float(log_weights[j])) if j < size else 1.0 / size
        values.append(prior * sum(likelihoods) / len(likelihoods))
    weights = torch.tensor(values, dtype=torch.float64)
    return (weights / weights.sum()).log()
