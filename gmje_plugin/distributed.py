"""The only user of torch.distributed: what a loss or a bank needs from the other ranks.

Everything here is the identity in a single process. All ranks must hold batches of one size, as
in lightly.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from lightly.utils.dist import gather, rank, world_size
from torch import Tensor, nn

__all__ = ["ParameterCheck", "gather_rows", "rank", "require_distributed"]


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


class ParameterCheck:
    """Sees that the ranks hold the same parameters of a loss that gathers their batches.

    In plain PyTorch a loss with parameters needs ``DistributedDataParallel`` as the model does;
    without it every rank learns parameters of its own. The first, second, fourth, eighth ... call
    compares, so that a GPU hardly ever waits.
    """

    def __init__(self) -> None:
        self.calls = 0

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def __call__(self, module: nn.Module) -> None:
        """Raises ``RuntimeError`` on all ranks if the parameters of any differ."""
        if world_size() == 1:
            return
        self.calls += 1
        if self.calls.bit_count() > 1:
            return
        sums = torch.stack([p.double().abs().sum() for p in module.parameters()])
        of_all = torch.stack(gather(sums))
        # Where all are NaN, that is for the loss to show.
        if not torch.allclose(of_all, of_all[0].expand_as(of_all), rtol=0, atol=0, equal_nan=True):
            raise RuntimeError(
                f"the parameters of {type(module).__name__} differ between ranks: wrap the loss, "
                "too: criterion = DistributedDataParallel(criterion)."
            )
