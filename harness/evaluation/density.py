"""A learned mixture over embeddings, seen in the plane in which the embeddings vary most."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from gmje_plugin import JointGaussianMixture


@dataclass(frozen=True)
class PlanarDensity:
    """Embeddings and the density of a mixture in a plane.

    Attributes:
        points: The embeddings' coordinates, shape (N, 2).
        means: Those of the mixture's components, shape (K, 2).
        density: The mixture's marginal density in the plane, a distribution over 2 dimensions.
        explained: Share of the embeddings' variance that lies in the plane.
    """

    points: Tensor
    means: Tensor
    density: MixtureSameFamily
    explained: float


@torch.no_grad()
def principal_plane(
    mixture: JointGaussianMixture,
    embeddings: Tensor,  # shape: (N, d)
) -> PlanarDensity:
    """Projects context embeddings and the mixture's context marginal on a principal plane.

    Args:
        mixture: A density over joint embeddings whose first d dimensions are the context's.
        embeddings: Context embeddings, shape (N, d).
    """
    centre = embeddings.mean(dim=0)
    _, singular_values, directions = torch.linalg.svd(embeddings - centre, full_matrices=False)
    plane = directions[:2].T
    split = mixture.split
    means = (mixture.means[:, :split] - centre) @ plane
    covariances = plane.T @ context_covariances(mixture) @ plane
    return PlanarDensity(
        points=(embeddings - centre) @ plane,
        means=means,
        density=MixtureSameFamily(
            Categorical(probs=mixture.weights), MultivariateNormal(means, covariances)
        ),
        explained=(singular_values[:2].square().sum() / singular_values.square().sum()).item(),
    )


def context_covariances(mixture: JointGaussianMixture) -> Tensor:  # shape: (K, split, split)
    """The context's block of every component's covariance as a matrix."""
    split, covariances = mixture.split, mixture.covariances
    if covariances.ndim == 3:
        return covariances[:, :split, :split]
    variances = (
        covariances if covariances.ndim == 2 else covariances[:, None].expand_as(mixture.means)
    )
    return torch.diag_embed(variances[:, :split])
