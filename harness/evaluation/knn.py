"""Weighted k nearest neighbours on frozen features (Wu et al. 2018), by lightly's own function."""

from __future__ import annotations

import torch
from lightly.utils.benchmarking import knn_predict
from torch import Tensor
from torch.nn.functional import normalize

_CHUNK = 1000


def knn_accuracy(
    train_features: Tensor,  # shape: (N, D)
    train_labels: Tensor,  # shape: (N,)
    test_features: Tensor,  # shape: (T, D)
    test_labels: Tensor,  # shape: (T,)
    *,
    num_classes: int,
    knn_k: int,
    knn_t: float,
) -> float:
    """Share of test images whose label gets the most votes of the nearest training images.

    A neighbour of cosine similarity s votes with weight exp(s / knn_t). With fewer training
    images than ``knn_k``, all vote.
    """
    bank = normalize(train_features, dim=1).T
    predicted = [
        knn_predict(
            normalize(features, dim=1),
            bank,
            train_labels,
            num_classes=num_classes,
            knn_k=min(knn_k, train_features.shape[0]),
            knn_t=knn_t,
        )[:, 0]
        for features in torch.split(test_features, _CHUNK)  # it holds a matrix of all pairs
    ]
    return float((torch.cat(predicted) == test_labels).double().mean())
