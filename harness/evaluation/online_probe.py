"""Accuracy, during training, of the linear classifier that learns beside the backbone."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from harness.data import ImageData
from harness.evaluation.encoding import encode

ONLINE_ACCURACY = "eval/online_accuracy"


class OnlineProbeAccuracy(Callback):
    """Logs ``eval/online_accuracy``, a method's online probe on the test images, at ends of epochs.

    A curve to look at, not a figure to choose by: for that, ``data.split=validation``.

    Args:
        data: The images.
        every: Epochs from one measurement to the next.
    """

    def __init__(self, data: ImageData, *, every: int) -> None:
        self.data = data
        self.every = every

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures and logs it as of the epoch's last step."""
        if (trainer.current_epoch + 1) % self.every or not trainer.is_global_zero:
            return
        accuracy = self.accuracy(pl_module)
        pl_module.online_accuracy = accuracy  # type: ignore[assignment]  # a method's
        metrics = {"epoch": trainer.current_epoch, ONLINE_ACCURACY: accuracy}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step - 1)

    @torch.no_grad()
    def accuracy(self, module: Any) -> float:
        """Share of test images whose class the probe names."""
        features, labels = encode(module.backbone, self.data.test, self.data)
        return float((module.online_probe(features).argmax(dim=1) == labels).double().mean())
