"""Frozen features of a set of images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from harness.data import AnyImageSet, ImageData
from harness.views import normalize, to_pixels

BATCH_SIZE = 512


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Puts a network in evaluation mode for a while."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


@torch.no_grad()
def encode(
    network: nn.Module, images: AnyImageSet, data: ImageData
) -> tuple[Tensor, Tensor]:  # shapes: (N, D), (N,)
    """What a network in evaluation mode makes of images, without augmentation, and their labels."""
    device = next(network.parameters()).device
    with evaluating(network):
        encoded = [
            network(normalize(to_pixels(batch.to(device)), mean=data.mean, std=data.std))
            for batch in images.batches(BATCH_SIZE)
        ]
    return torch.cat(encoded), images.labels.to(device)
