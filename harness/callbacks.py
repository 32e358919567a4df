"""What watches a training from outside, as callbacks of Lightning."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from harness.data import ImageData
from harness.evaluation import encode
from harness.methods.modules.base import Method
from harness.progress import Report
from harness.tracking import MetricsFile

ONLINE_ACCURACY = "eval/online_accuracy"


class Speed(Callback):
    """Logs the images a second of each epoch's steps.

    Not to metrics.csv, which is a function of the settings.
    """

    def on_train_epoch_start(self, *_: Any) -> None:
        """Starts to count."""
        self.images, self.started = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, _module: Any, _outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Counts a batch of all devices."""
        self.images += len(batch[0]) * trainer.world_size

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Logs it as of the epoch's last step."""
        speed = self.images / (time.perf_counter() - self.started)
        metrics = {"epoch": trainer.current_epoch, "train/images_per_second": speed}
        for logger in trainer.loggers:
            if not isinstance(logger, MetricsFile):
                logger.log_metrics(metrics, step=trainer.global_step - 1)


class EpochProgress(Callback):
    """Reports every epoch, and at its start those that an earlier process has done.

    Args:
        report: Takes the epochs done, and the last loss and the online probe's accuracy.
    """

    def __init__(self, report: Report) -> None:
        self.report = report

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Counts the epochs that an earlier process has done."""
        self.report(trainer.current_epoch, "")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Moves on by an epoch."""
        words = [f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"]
        if isinstance(pl_module, Method):
            words.append(f"loss {pl_module.last_loss.item():.4g}")
            if pl_module.online_accuracy is not None:
                words.append(f"online probe {100 * pl_module.online_accuracy:.1f} %")
        self.report(1, ", ".join(words))


class OnlineProbeAccuracy(Callback):
    """Logs ``eval/online_accuracy``, a method's online probe on the test images, at ends of epochs.

    A curve to look at, not a figure to choose by: for that, ``data.split=validation``.

    Args:
        data: The images.
        every: Epochs from one measurement to the next; the last epoch's is made in any case.
    """

    def __init__(self, data: ImageData, *, every: int) -> None:
        self.data = data
        self.every = every

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures and logs it as of the epoch's last step."""
        epoch = trainer.current_epoch + 1
        skipped = epoch % self.every and epoch != trainer.max_epochs
        if skipped or not trainer.is_global_zero:
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
