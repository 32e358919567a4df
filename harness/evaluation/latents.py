"""A density of unit-norm embeddings: its shape, its fit to held-out ones, what its parts stand for.

Densities are single mixtures of Gaussians over one view's embeddings, in float64.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize, one_hot

from harness.evaluation.mixtures import GaussianMixtures

_CHUNK = 500
_EMPTY = 1e-4  # weight of a component that holds less than one of the 10,000 embeddings of a fit


def shape_statistics(density: GaussianMixtures) -> dict[str, float]:
    """The paper's Table 2, means over components (Huang 2026, Sec. 5.3).

    Components that hold nothing are left out: EM leaves them at the origin, next to singular.

    Returns:
        ``log_det`` and ``trace`` of the covariances and, with several components, ``spread``, the
        mean distance between their means; ``components``, how many of them hold something.
    """
    kept = density.weights > _EMPTY
    log_dets = 2.0 * density.factors.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    found = {
        "components": kept.sum(),
        "log_det": log_dets[kept].mean(),
        "trace": density.factors.square().sum(dim=(-2, -1))[kept].mean(),
    }
    if found["components"] > 1:
        found["spread"] = torch.pdist(density.means[kept]).mean()
    return {name: float(value) for name, value in found.items()}


def component_log_probs(
    density: GaussianMixtures,
    embeddings: Tensor,  # shape: (N, d)
) -> Tensor:  # shape: (N, K)
    """Log-densities of embeddings and components together; their log-sum-exp is the density's."""
    chunks = torch.split(embeddings.cpu().double(), _CHUNK)
    return torch.cat([density.component_log_probs(chunk) for chunk in chunks])


def fit_statistics(
    density: GaussianMixtures,
    embeddings: Tensor,  # shape: (N, d)
    labels: Tensor,  # shape: (N,)
) -> dict[str, float]:
    """How well a density explains held-out embeddings, and what its components are of.

    Returns:
        ``log_likelihood``, the mean in nats; ``components_used``, the exponential of the entropy of
        the components' mean responsibilities; ``purity``, the share of embeddings whose class is
        the commonest among those of the same component.
    """
    joint = component_log_probs(density, embeddings)
    responsibilities = joint.softmax(dim=1).mean(dim=0)
    counts = one_hot(joint.argmax(dim=1)).T @ one_hot(labels.cpu())
    return {
        "log_likelihood": float(joint.logsumexp(dim=1).mean()),
        "components_used": float(torch.special.entr(responsibilities).sum().exp()),
        "purity": float(counts.max(dim=1).values.sum() / len(labels)),
    }


def sample(density: GaussianMixtures, number: int, *, seed: int) -> Tensor:  # shape: (number, d)
    """Draws embeddings and projects them to the sphere (Huang 2026, Sec. 5.3)."""
    samples = density.sample(number, generator=Generator().manual_seed(seed))
    return normalize(samples.float(), dim=1)
