"""The order in which training sees the images, and the loader that takes them in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from harness.data.images import AnyImageSet, loader

_CLASSES_AT_A_TIME = 2.0
_BURST = 16


@dataclass(eq=False)
class EpochBatches(Sampler[Tensor]):
    """Batches of indices whose order is a function of (seed, epoch) alone.

    The images left over at the end of an epoch's order wait for the next. Lightning calls
    ``set_epoch`` before each epoch.

    Args:
        labels: The images' classes, shape (N,).
        batch_size: Of every batch.
        seed: Of the order.
        order: "shuffled"; "class_correlated" for a stream that drifts from class to class, in
            which most batches hold two classes and neighbouring ones share them; "bursts" for one
            in which an image comes 16 times in a row, as index + r N, so that views differ.
        rank: Which part of every batch this process takes, in rank order.
        world_size: Number of processes, which must divide ``batch_size``.
    """

    labels: Tensor
    _: KW_ONLY
    batch_size: int
    seed: int
    order: str = "shuffled"
    rank: int = 0
    world_size: int = 1
    epoch: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.labels = self.labels.cpu()

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.labels) // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 2**31 + self.epoch)
        if self.order == "class_correlated":
            order = drifting_order(self.labels, generator=generator)
        elif self.order == "bursts":
            order = burst_order(len(self.labels), seed=self.seed, epoch=self.epoch)
        else:
            order = torch.randperm(len(self.labels), generator=generator)
        batches = torch.split(order, self.batch_size)[: len(self)]
        return (batch.chunk(self.world_size)[self.rank] for batch in batches)


def drifting_order(
    labels: Tensor,  # shape: (N,)
    *,
    generator: torch.Generator,
) -> Tensor:  # shape: (N,)
    """An order of images in which classes come one after the other, each overlapping the next.

    The classes, in random order, start one unit apart and each spreads evenly over two units.
    """
    classes, members = torch.unique(labels, return_inverse=True)
    starts = torch.randperm(len(classes), generator=generator)
    offsets = _CLASSES_AT_A_TIME * torch.rand(len(labels), generator=generator)
    return (starts[members] + offsets).argsort(stable=True)


def burst_order(count: int, *, seed: int, epoch: int) -> Tensor:  # shape: (count,)
    """An epoch's order: a sixteenth of the images, each 16 times in a row.

    Other images each epoch; after 16 epochs all have come.
    """
    cycle, part = divmod(epoch, _BURST)
    generator = torch.Generator().manual_seed(seed * 2**31 + cycle)
    distinct = -(-count // _BURST)
    order = torch.randperm(count, generator=generator)
    images = order[(torch.arange(distinct) + part * distinct) % count]
    return (images[:, None] + count * torch.arange(_BURST)).flatten()[:count]


def train_loader(
    train: AnyImageSet, batches: EpochBatches
) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
    """A loader of (images (B, C, H, W) uint8, labels (B,), indices (B,)) for Lightning."""
    return loader(
        train,
        batches,
        persistent_workers=train.workers > 0,
        pin_memory=torch.cuda.is_available() and not train.labels.is_cuda,
    )
