"""Parameters of Gaussians to test with."""

import numpy as np
import torch
from torch import Tensor

KINDS = ["full", "diagonal", "isotropic"]
DIM, SPLIT = 5, 2


def parameters(kind: str, *, dim: int = DIM, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(dim, dtype=torch.float64, generator=generator)
    root = torch.randn(dim, dim, dtype=torch.float64, generator=generator)
    covariance = root @ root.mT / dim + 0.1 * torch.eye(dim, dtype=torch.float64)
    if kind == "diagonal":
        return mean, covariance.diagonal()
    return mean, covariance if kind == "full" else covariance[0, 0]


def dense(covariance: Tensor, dim: int = DIM) -> np.ndarray:
    array = covariance.detach().numpy()
    return array if array.ndim == 2 else array * np.eye(dim)
