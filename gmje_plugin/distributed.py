"""The only user of torch.distributed: what a loss or a bank needs from the other ranks.

Everything here is the identity in a single process. All ranks must hold batches of one size, as
in lightly.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from lightly.utils.dist import gather, rank, world_size
from torch import Tensor

__all__ = ["gather_rows", "rank", "require_distributed"]


def require_distributed(gather_distributed: bool) -> None:
    """Raises ``ValueError`` if gathering is asked of a torch built without torch.distributed."""
    if gather_distributed and not dist.is_available():
        raise ValueError(
            "gather_distributed is True but torch.distributed is not available: set "
            "gather_distributed=False or install a torch version with distributed support."
        )


def gather_rows(
    rows: Tensor,  # shape: (B, D)
) -> Tensor:  # shape: (world_size * B, D)
    """The rows of all ranks in rank order, with gradients to every rank's own rows.

    The gradients of all ranks' losses are added up; together with DDP's mean over ranks that is
    the gradient of the mean loss over the concatenated batch.
    """
    if world_size() == 1:
        return rows
    return torch.cat(gather(rows.contiguous()), dim=0)
