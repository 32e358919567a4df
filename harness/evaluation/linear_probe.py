"""Linear probes on frozen features: fitted to convergence, or the paper's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from harness.data import ImageData
from harness.evaluation.encoding import encode, evaluating
from harness.fitting import fit, with_cosine
from harness.keyed_random import seeded
from harness.settings import Settings, TrainerSettings
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


class _Probe(pl.LightningModule):
    """A linear layer on the features of cropped and flipped images, anew each epoch."""

    def __init__(
        self, backbone: nn.Module, feature_dim: int, data: ImageData, settings: Settings
    ) -> None:
        super().__init__()
        self.frozen = (backbone,)  # in a tuple: no part of what is trained and kept
        self.view = ProbeView(mean=data.mean, std=data.std, seed=settings.seed)
        with seeded(settings.seed):
            self.layer = nn.Linear(feature_dim, data.num_classes)

    def training_step(
        self,
        batch: tuple[Tensor, Tensor, Tensor],
        batch_idx: int,  # noqa: ARG002
    ) -> Tensor:
        """The cross-entropy of a batch of (images, labels, indices)."""
        images, labels, indices = batch
        with torch.no_grad():
            features = self.frozen[0](self.view(images, indices, epoch=self.current_epoch))
        return nn.functional.cross_entropy(self.layer(features), labels)

    def configure_optimizers(self) -> tuple[list[Any], list[Any]]:
        """SGD with a cosine schedule by steps."""
        optimizer = torch.optim.SGD(self.parameters(), lr=_LEARNING_RATE, momentum=_MOMENTUM)
        return with_cosine(optimizer, self.trainer)


def paper_accuracy(
    backbone: nn.Module, data: ImageData, settings: Settings, *, path: Path
) -> float:
    """Share of test images that the paper's probe classifies correctly (Huang 2026, App. P.3).

    One linear layer on the frozen backbone, which sees each training image cropped with a border
    of 4 pixels and flipped, anew each epoch; SGD with a cosine schedule.

    Args:
        backbone: In evaluation mode throughout; not changed.
        data: The images.
        settings: Where images are held and on what to train, on one device; the seed is that of
            the layer's weights, the order of the images and their views.
        path: Where the probe's last checkpoint is kept; the probe goes on from it.
    """
    asked = replace(
        settings,
        data=replace(settings.data, order="shuffled"),
        trainer=TrainerSettings(
            batch_size=min(_BATCH_SIZE, len(data.train)), accelerator=settings.trainer.accelerator
        ),
    )
    test_features, test_labels = encode(backbone, data.test, data)
    probe = _Probe(backbone, test_features.shape[1], data, settings)
    with evaluating(backbone):
        fit(probe, data.train, asked, path=path, epochs=_EPOCHS)
    with torch.no_grad():
        predicted = probe.layer(test_features).argmax(dim=1)
    return float((predicted == test_labels).double().mean())
