"""Student's t mixtures to test with, and data with heavy tails."""

import numpy as np
import torch
from scipy.stats import multivariate_t
from torch import Generator, Tensor

from gmje_plugin import JointStudentTMixture

COUPLINGS = ["joint", "independent"]
KINDS = [*COUPLINGS, "scaled"]  # the last independent, but for a power of the context's distance
COMPONENTS, DIM, SPLIT = 3, 4, 1


def parameters(
    coupling: str, *, count: int = COMPONENTS, dim: int = DIM, seed: int = 0
) -> dict[str, Tensor]:
    generator = Generator().manual_seed(seed)
    weights = torch.rand(count, dtype=torch.float64, generator=generator) + 0.2
    means = 2 * torch.randn(count, dim, dtype=torch.float64, generator=generator)
    root = torch.randn(count, dim, dim, dtype=torch.float64, generator=generator)
    scales = root @ root.mT / dim + 0.1 * torch.eye(dim, dtype=torch.float64)
    shape = (count,) if coupling == "joint" else (count, 2)
    df = 2.5 + 5 * torch.rand(shape, dtype=torch.float64, generator=generator)
    return {"weights": weights / weights.sum(), "means": means, "scales": scales, "df": df}


def density_of(
    kind: str, *, split: int = SPLIT, power: float = 0.7, **options: int
) -> JointStudentTMixture:
    coupling = "joint" if kind == "joint" else "independent"
    return JointStudentTMixture(
        **parameters(coupling, **options),
        split=split,
        coupling=coupling,
        power=power if kind == "scaled" else 0.0,
    )


def heavy(count: int, *, df: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Contexts that are Gaussian, and targets of two dimensions whose residuals are a t."""
    random = np.random.default_rng(seed)
    z_c = random.standard_normal((count, 2))
    residual = multivariate_t(np.zeros(2), 0.1 * np.eye(2), df=df).rvs(count, random_state=random)
    z_t = z_c @ np.array([[1.0, 0.5], [-0.5, 1.0]]) + residual
    return torch.from_numpy(z_c), torch.from_numpy(z_t)
