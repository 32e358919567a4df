"""Protocols that measure frozen features, one a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

from harness.data import ImageData, evenly_spaced, some_per_class
from harness.evaluation.collapse import alignment, dead_dimensions, effective_rank, uniformity
from harness.evaluation.encoding import BATCH_SIZE, evaluating
from harness.evaluation.encoding import encode as encode
from harness.evaluation.knn import knn_accuracy
from harness.evaluation.linear_probe import converged_accuracy, paper_accuracy
from harness.settings import Settings
from harness.views import Views

PROBE = "checkpoints/probe.ckpt"
_DRAWS = 10  # of few labelled images, the same for every network
_PAIRS = 2000  # images whose pairs uniformity is taken over, and whose views alignment


def evaluate(
    backbone: nn.Module, data: ImageData, settings: Settings, *, folder: Path
) -> dict[str, float]:
    """Every metric of the frozen features of a backbone, by name.

    Those of collapse are of the test images' features. Images of one class have no accuracies.

    Args:
        backbone: Not changed.
        data: The images.
        settings: What to measure by.
        folder: Where the paper's probe keeps how far it is.
    """
    test, labels = encode(backbone, data.test, data)
    some = evenly_spaced(len(test), _PAIRS)
    found = {
        "effective_rank": effective_rank(test),
        "uniformity": uniformity(test[some]),
        "alignment": alignment(*_two_views(backbone, data, settings)),
        "dead_dimensions": dead_dimensions(test),
    }
    if not data.is_labelled:
        return found
    asked, count = settings.evaluation, settings.evaluation.labels_per_class
    train, train_labels = encode(backbone, data.train, data)
    draws = [torch.arange(len(train_labels))]
    if count is not None:
        counts = [count] * data.num_classes
        draws = [some_per_class(train_labels.cpu(), counts, seed=seed) for seed in range(_DRAWS)]
    vote = partial(knn_accuracy, num_classes=data.num_classes, knn_k=asked.knn_k, knn_t=asked.knn_t)
    neighbours = [vote(train[i], train_labels[i], test, labels) for i in draws]
    linear = (
        [paper_accuracy(backbone, data, settings, path=folder / PROBE)]
        if asked.probe == "paper"
        else [converged_accuracy(train[i], train_labels[i], test, labels) for i in draws]
    )
    return {"knn_accuracy": fmean(neighbours), "linear_accuracy": fmean(linear), **found}


@torch.no_grad()
def _two_views(
    backbone: nn.Module, data: ImageData, settings: Settings
) -> tuple[Tensor, Tensor]:  # shapes: (N, D), (N, D)
    """Features of two training views of test images."""
    device = next(backbone.parameters()).device
    views = Views(settings.data.views, mean=data.mean, std=data.std, seed=settings.seed)
    indices = evenly_spaced(len(data.test), _PAIRS)
    pairs = []
    with evaluating(backbone):
        for some in torch.split(indices, BATCH_SIZE):
            images, _, _ = data.test[some]
            pairs.append([backbone(view) for view in views(images.to(device), some, epoch=0)])
    first, second = map(torch.cat, zip(*pairs, strict=True))
    return first, second
