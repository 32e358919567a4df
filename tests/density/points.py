"""Points to evaluate densities at, and how close the values have to be."""

import numpy as np
import torch
from torch import Generator, Tensor


def points(*shape: int, seed: int = 1) -> Tensor:
    generator = Generator().manual_seed(seed)
    return 2 * torch.randn(*shape, dtype=torch.float64, generator=generator)


def close(actual: Tensor, expected: object) -> None:
    if not isinstance(expected, Tensor):
        expected = torch.from_numpy(np.array(expected))
    torch.testing.assert_close(actual.detach(), expected, rtol=1e-8, atol=1e-8)
