"""Two views, and the settings of a Gaussian process, to test the dual loss with."""

import torch
from torch import Generator, Tensor

NOISE, WIDTH = 0.2, 0.8


def views(rows: int = 12, *, dim: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = Generator().manual_seed(seed)
    context, noise = torch.randn(2, rows, dim, generator=generator, dtype=torch.float64)
    return context, context.flip(1).sin() + 0.3 * noise
