"""Linear probes on frozen features: fitted to convergence, or the paper's."""

from __future__ import annotations

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from harness.data import EpochBatches, ImageData, place, train_loader
from harness.evaluation.encoding import encode, evaluating
from harness.keyed_random import seeded
from harness.views import ProbeView

# The paper's protocol (Huang 2026, App. P.3).
_EPOCHS = 100  # [P]
_BATCH_SIZE = 256  # [P]
_LEARNING_RATE = 0.1  # [R]
_MOMENTUM = 0.9  # [R]


def converged_accuracy(
    train_features: Tensor,  # shape: (N, D)
    train_labels: Tensor,  # shape: (N,)
    test_features: Tensor,  # shape: (T, D)
    test_labels: Tensor,  # shape: (T,)
) -> float:
    """Share of test images classified correctly by logistic regression on standardised features.

    scikit-learn's defaults (L2 penalty, C = 1); deterministic. For sets that fit the memory.
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(train_features.cpu().numpy(), train_labels.cpu().numpy())
    return float(probe.score(test_features.cpu().numpy(), test_labels.cpu().numpy()))


def paper_accuracy(
    backbone: nn.Module, data: ImageData, *, keep: str, seed: int, epochs: int = _EPOCHS
) -> float:
    """Share of test images that the paper's probe classifies correctly (Huang 2026, App. P.3).

    One linear layer on the frozen backbone, which sees each training image cropped with a border
    of 4 pixels and flipped, anew each epoch; SGD with a cosine schedule.

    Args:
        backbone: In evaluation mode throughout; not changed.
        data: The images.
        keep: As ``data.keep``.
        seed: Of the layer's weights, the order of the images and their views.
        epochs: How long; the paper's 100.
    """
    device = next(backbone.parameters()).device
    train = place(data.train, device, keep=keep)
    batch_size = min(_BATCH_SIZE, len(train))
    batches = EpochBatches(train.labels, batch_size=batch_size, seed=seed)
    view = ProbeView(mean=data.mean, std=data.std, seed=seed)
    test_features, test_labels = encode(backbone, data.test, data)
    with seeded(seed):
        probe = nn.Linear(test_features.shape[1], data.num_classes).to(device)
    optimizer = torch.optim.SGD(probe.parameters(), lr=_LEARNING_RATE, momentum=_MOMENTUM)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(batches))
    with evaluating(backbone):
        for epoch in range(epochs):
            batches.set_epoch(epoch)
            for images, labels, indices in train_loader(train, batches):
                with torch.no_grad():
                    features = backbone(view(images.to(device), indices, epoch=epoch))
                loss = nn.functional.cross_entropy(probe(features), labels.to(device))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                scheduler.step()
    with torch.no_grad():
        predicted = probe(test_features).argmax(dim=1)
    return float((predicted == test_labels).double().mean())
