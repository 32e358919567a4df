"""What all methods share: the views, the optimiser, the schedule and the logging."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import pytorch_lightning as pl
import torch
from lightly.models.utils import get_weight_decay_parameters
from lightly.utils.scheduler import CosineWarmupScheduler
from torch import Tensor, nn

from harness.backbones import Backbone
from harness.settings import MethodSettings, SettingsError, TrainerSettings
from harness.views import Views


class Method(pl.LightningModule):
    """A pipeline: views -> backbone -> head -> loss, trained by SGD with a cosine schedule.

    A subclass builds its heads and implements :meth:`loss`. Batches are (images, indices) as
    :func:`harness.data.train_loader` makes them.

    Args:
        backbone: The network whose features are evaluated.
        criterion: The loss; its parameters, if any, are trained too.
        views: Makes two views of a batch of images.
        settings: The optimiser's part of the method's settings.
        trainer: Share of the warm-up, and how often to log.
    """

    def __init__(
        self,
        backbone: Backbone,
        criterion: nn.Module,
        *,
        views: Views,
        settings: MethodSettings,
        trainer: TrainerSettings,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.criterion = criterion
        self.views = views
        self.optimizer_settings = settings
        self.trainer_settings = trainer

    @abstractmethod
    def loss(
        self,
        view0: Tensor,  # shape: (B, C, H, W)
        view1: Tensor,  # shape: (B, C, H, W)
    ) -> Tensor:  # shape: ()
        """The loss of a batch's two views."""

    def terms(self) -> dict[str, Tensor]:
        """Parts of the last loss by name, for logging, where the criterion tells them."""
        return dict(getattr(self.criterion, "terms", {}))

    def training_step(
        self,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,  # noqa: ARG002
    ) -> Tensor:
        """Loss of a batch of (images, indices), logged with its parts."""
        images, indices = batch
        loss = self.loss(*self.views(images, indices, epoch=self.current_epoch))
        if self.global_step % self.trainer_settings.log_every == 0:
            self._log({"loss": loss.detach(), **self.terms()})
        return loss

    def _log(self, values: dict[str, Tensor]) -> None:
        """Straight to the loggers: ``self.log`` took as long as a step on 8 x 8 images."""
        numbers = torch.stack([value.float() for value in values.values()]).tolist()
        metrics = dict(zip(values, numbers, strict=True))
        if not math.isfinite(metrics["loss"]):
            raise SettingsError(
                f"the loss is {metrics['loss']} at step {self.global_step}: lower the "
                f"learning_rate, {self.optimizer_settings.learning_rate}"
            )
        for logger in self.loggers:
            logger.log_metrics({**metrics, "epoch": self.current_epoch}, step=self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what ``python -m harness export`` needs to know beside the backbone's weights."""
        checkpoint["backbone"] = {
            **self.backbone.description(),
            "mean": self.views.mean.tolist(),
            "std": self.views.std.tolist(),
        }

    def configure_optimizers(self) -> tuple[list[Any], list[Any]]:
        """SGD with a cosine schedule by steps; no weight decay on norms, biases and losses."""
        settings = self.optimizer_settings
        networks = [part for part in self.children() if part is not self.criterion]
        decayed, plain = get_weight_decay_parameters(networks)
        plain += self.criterion.parameters()
        groups: list[dict[str, Any]] = [
            {"params": [p for p in decayed if p.requires_grad]},
            {"params": [p for p in plain if p.requires_grad], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.SGD(
            groups,
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = int(self.trainer_settings.warmup * steps)
        scheduler = CosineWarmupScheduler(optimizer, warmup_epochs=warmup, max_epochs=steps)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]
