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
        method: Any = pl_module
        features, labels = encode(method.backbone, self.data.test, self.data)
        with torch.no_grad():
            predicted = method.online_probe(features).argmax(dim=1)
        accuracy = float((predicted == labels).double().mean())
        method.online_accuracy = accuracy
        metrics = {"epoch": trainer.current_epoch, ONLINE_ACCURACY: accuracy}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step - 1)
