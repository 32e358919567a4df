"""A density of unit-norm embeddings: its shape, its fit to held-out ones, what its parts stand for.

Densities are torch mixtures of Gaussians over one view's embeddings, in float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from torch.nn.functional import normalize, one_hot

_CHUNK = 500
_EMPTY = 1e-4  # weight of a component that holds less than one of the 10,000 embeddings of a fit


def mixture_of(
    weights: Tensor,  # shape: (K,)
    means: Tensor,  # shape: (K, d)
    covariances: Tensor,  # shape: (K, d, d)
) -> MixtureSameFamily:
    """A mixture of Gaussians in float64, on the CPU."""
    weights, means, covariances = (
        part.detach().cpu().double() for part in (weights, means, covariances)
    )
    return MixtureSameFamily(
        Categorical(probs=weights, validate_args=False),
        MultivariateNormal(means, covariances, validate_args=False),
    )


def shape_statistics(density: MixtureSameFamily) -> dict[str, float]:
    """The paper's Table 2, means over components (Huang 2026, Sec. 5.3).

    Components that hold nothing are left out: EM leaves them at the origin, next to singular.

    Returns:
        ``log_det`` and ``trace`` of the covariances and, with several components, ``spread``, the
        mean distance between their means; ``components``, how many of them hold something.
    """
    parts: Any = density.component_distribution
    kept = density.mixture_distribution.probs > _EMPTY
    log_dets = 2.0 * parts.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    found = {
        "components": kept.sum(),
        "log_det": log_dets[kept].mean(),
        "trace": parts.variance.sum(dim=-1)[kept].mean(),
    }
    if found["components"] > 1:
        found["spread"] = torch.pdist(parts.mean[kept]).mean()
    return {name: float(value) for name, value in found.items()}


def component_log_probs(
    density: MixtureSameFamily,
    embeddings: Tensor,  # shape: (N, d)
) -> Tensor:  # shape: (N, K)
    """Log-densities of embeddings and components together; their log-sum-exp is the density's."""
    log_weights = density.mixture_distribution.logits.log_softmax(dim=-1)
    parts = density.component_distribution
    chunks = torch.split(embeddings.cpu().double(), _CHUNK)
    return torch.cat([log_weights + parts.log_prob(chunk[:, None]) for chunk in chunks])


def fit_statistics(
    density: MixtureSameFamily,
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
    shares = joint.softmax(dim=1).mean(dim=0)
    counts = one_hot(joint.argmax(dim=1)).T @ one_hot(labels.cpu())
    return {
        "log_likelihood": float(joint.logsumexp(dim=1).mean()),
        "components_used": float(torch.special.entr(shares).sum().exp()),
        "purity": float(counts.max(dim=1).values.sum() / len(labels)),
    }


def sample(density: MixtureSameFamily, number: int, *, seed: int) -> Tensor:  # shape: (number, d)
    """Draws embeddings and projects them to the sphere (Huang 2026, Sec. 5.3)."""
    parts: Any = density.component_distribution
    generator = torch.Generator().manual_seed(seed)
    probabilities = density.mixture_distribution.probs
    drawn = torch.multinomial(probabilities, number, replacement=True, generator=generator)
    noise = torch.randn(number, parts.mean.shape[1], generator=generator, dtype=parts.mean.dtype)
    samples = torch.empty_like(noise)
    for component in range(len(parts.mean)):  # torch's own sampler draws from all of them
        rows = drawn == component
        samples[rows] = parts.mean[component] + noise[rows] @ parts.scale_tril[component].T
    return normalize(samples.float(), dim=1)
