"""Parameters of mixtures to test with."""

import numpy as np
import torch
from torch import Generator, Tensor

KINDS = ["full", "diagonal", "isotropic"]
COMPONENTS, DIM, SPLIT = 3, 4, 1


def parameters(
    kind: str, *, count: int = COMPONENTS, dim: int = DIM, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = Generator().manual_seed(seed)
    weights = torch.rand(count, dtype=torch.float64, generator=generator) + 0.2
    means = 2 * torch.randn(count, dim, dtype=torch.float64, generator=generator)
    root = torch.randn(count, dim, dim, dtype=torch.float64, generator=generator)
    covariances = root @ root.mT / dim + 0.1 * torch.eye(dim, dtype=torch.float64)
    if kind == "diagonal":
        covariances = covariances.diagonal(dim1=-2, dim2=-1)
    elif kind == "isotropic":
        covariances = covariances[:, 0, 0]
    return weights / weights.sum(), means, covariances


def arrays(
    weights: Tensor, means: Tensor, covariances: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The parameters for the references, covariances as full matrices."""
    eye = np.eye(means.shape[1])
    full = np.stack([c if c.ndim == 2 else c * eye for c in covariances.numpy()])
    return weights.numpy(), means.numpy(), full
