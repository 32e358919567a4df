"""Frozen features of a set of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.data import AnyImageSet, ImageData
from harness.views import plain_view

BATCH_SIZE = 512


@torch.no_grad()
def encode(
    network: nn.Module, images: AnyImageSet, data: ImageData
) -> tuple[Tensor, Tensor]:  # shapes: (N, D), (N,)
    """What a network in evaluation mode makes of images, without augmentation, and their labels."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    encoded = []
    for batch in images.batches(BATCH_SIZE):
        encoded.append(network(plain_view(batch.to(device), mean=data.mean, std=data.std)))
    network.train(was_training)
    return torch.cat(encoded), images.labels.to(device)
