"""Banks and batches that several test files use."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from gmje_plugin import SMCMemoryBankModule


def embeddings(rows: int, dim: int = 8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, dim, generator=generator), dim=1)


def full_bank(size: int = 32, dim: int = 8, batch: int = 8, **options: Any) -> SMCMemoryBankModule:
    bank = SMCMemoryBankModule((size, dim), **options)
    for seed in range(math.ceil(size / batch)):
        bank.update(embeddings(batch, dim, seed=1000 + seed))
    assert bank.count == size
    return bank


def rows_of(tensor: Tensor) -> list[tuple[float, ...]]:
    return sorted(tuple(row) for row in tensor.tolist())
