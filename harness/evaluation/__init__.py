"""Protocols that measure frozen features, one a file."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.data import AnyImageSet, ImageData
from harness.evaluation.collapse import effective_rank
from harness.evaluation.knn import knn_accuracy
from harness.evaluation.linear_probe import linear_accuracy
from harness.settings import EvaluationSettings
from harness.views import plain_view

METRICS = ("knn_accuracy", "linear_accuracy", "effective_rank")
_BATCH_SIZE = 512


@torch.no_grad()
def encode(
    network: nn.Module, images: AnyImageSet, data: ImageData
) -> tuple[Tensor, Tensor]:  # shapes: (N, D), (N,)
    """What a network in evaluation mode makes of images, without augmentation, and their labels."""
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    encoded = []
    for batch in images.batches(_BATCH_SIZE):
        encoded.append(network(plain_view(batch.to(device), mean=data.mean, std=data.std)))
    network.train(was_training)
    return torch.cat(encoded), images.labels.to(device)


def evaluate(
    backbone: nn.Module, data: ImageData, settings: EvaluationSettings
) -> dict[str, float]:
    """Every figure of :data:`METRICS` for the frozen features of a backbone.

    The classifiers see the training images without augmentation; the effective rank is that of
    the test images' features.
    """
    train, test = encode(backbone, data.train, data), encode(backbone, data.test, data)
    return {
        "knn_accuracy": knn_accuracy(
            *train,
            *test,
            num_classes=data.num_classes,
            neighbours=settings.neighbours,
            temperature=settings.temperature,
        ),
        "linear_accuracy": linear_accuracy(*train, *test),
        "effective_rank": effective_rank(test[0]),
    }
