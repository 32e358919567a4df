"""A learned mixture over embeddings, seen in the plane in which the embeddings vary most."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from gmje_plugin import JointGaussianMixture
from harness.evaluation.mixtures import GaussianMixtures


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
    context = GaussianMixtures.of(mixture.marginal("context"))
    means, roots = (context.means - centre) @ plane, context.factors.mT @ plane
    return PlanarDensity(
        points=(embeddings - centre) @ plane,
        means=means,
        density=MixtureSameFamily(
            Categorical(probs=context.weights), MultivariateNormal(means, roots.mT @ roots)
        ),
        explained=(singular_values[:2].square().sum() / singular_values.square().sum()).item(),
    )
