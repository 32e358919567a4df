"""What all methods share: views, online probe, optimiser, schedule, logging, randomness."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from lightly.models.utils import get_weight_decay_parameters
from lightly.utils.benchmarking import OnlineLinearClassifier
from lightly.utils.lars import LARS
from lightly.utils.scheduler import CosineWarmupScheduler
from torch import Tensor, nn

from harness.methods.modules.context import BuildContext
from harness.settings import MethodSettings, SettingsError

_PROBE_LEARNING_RATE = 0.1  # as the paper's linear probe


class Step(NamedTuple):
    """What a method makes of a batch's views.

    Attributes:
        loss: What is minimised, shape ().
        features: Of the first view, for the online probe, shape (B, feature_dim).
        keys: What entered a memory bank, shape (B, output_dim).
    """

    loss: Tensor
    features: Tensor
    keys: Tensor | None = None


class Method(pl.LightningModule):
    """A pipeline: views -> backbone -> head -> loss, with an online linear probe beside it.

    A subclass implements :meth:`step`. Batches are (images, labels, indices)
    as :func:`harness.data.train_loader` makes them; labels reach the probe and diagnostics only.

    Args:
        context: Backbone and views; share of the warm-up, and how often to log.
        settings: Of the method.
        criterion: The loss; its parameters, if any, are trained too.
        projection_head: Maps features to embeddings.
        parts: What else it consists of, such as a ``prediction_head``, by the attributes' names.
    """

    prediction_head: nn.Module  # of the methods that have one
    online_probe: OnlineLinearClassifier
    last_loss: Tensor  # of the last step
    online_accuracy: float | None = None  # of the probe on test images, when it was last measured

    def __init__(
        self,
        context: BuildContext,
        settings: MethodSettings,
        criterion: nn.Module,
        projection_head: nn.Module,
        **parts: nn.Module,
    ) -> None:
        super().__init__()
        self.backbone = context.backbone
        self.views = context.views
        self.criterion = criterion
        self.projection_head = projection_head
        for name, part in parts.items():
            self.add_module(name, part)
        self.method_settings = settings
        self.trainer_settings = context.trainer

    def add_online_probe(self, num_classes: int) -> None:
        """Adds the probe, last: the weights of all else are drawn as they would be without it."""
        self.num_classes = num_classes
        self.online_probe = OnlineLinearClassifier(
            self.backbone.feature_dim, num_classes, topk=(1,)
        )

    @abstractmethod
    def step(self, views: tuple[Tensor, ...]) -> Step:  # shapes: (B, C, H, W)
        """The loss of a batch's views."""

    def compare(self, *embeddings: Any) -> Tensor:  # shape: ()
        """The criterion of embeddings, in full precision whatever the networks run in."""
        with torch.autocast(device_type=self.device.type, enabled=False):
            full = [z.float() if isinstance(z, Tensor) else z for z in embeddings]
            loss: Tensor = self.criterion(*full)
        return loss

    def terms(self) -> dict[str, Tensor]:
        """Parts of the last loss by their logged names, where the criterion tells them."""
        terms = getattr(self.criterion, "terms", {})
        return {f"train/{name}": value for name, value in terms.items()}

    def observe(self, step: Step, labels: Tensor) -> None:
        """Called after each step with the batch's labels, for diagnostics."""

    def on_train_epoch_start(self) -> None:
        """Makes dropout and the like a function of (seed, epoch, rank), which a resume repeats.

        Everything else draws from generators of its own.
        """
        torch.manual_seed((self.views.seed << 32) + (self.current_epoch << 12) + self.global_rank)

    def training_step(
        self,
        batch: tuple[Tensor, Tensor, Tensor],
        batch_idx: int,  # noqa: ARG002
    ) -> Tensor:
        """Loss of a batch of (images, labels, indices), logged with its parts, and the probe's."""
        images, labels, indices = batch
        count = self.method_settings.num_views
        step = self.step(self.views(images, indices, epoch=self.current_epoch, count=count))
        self.observe(step, labels)
        self.last_loss = step.loss.detach()
        if self.global_step % self.trainer_settings.log_every == 0:
            self._log({"train/loss": self.last_loss, **self.terms()})
        probe_loss, _ = self.online_probe.shared_step((step.features, labels), 0)
        total: Tensor = step.loss + probe_loss
        return total

    def _log(self, values: dict[str, Tensor]) -> None:
        """Straight to the loggers: ``self.log`` took as long as a step on 8 x 8 images."""
        numbers = torch.stack([value.float() for value in values.values()])
        numbers = self.trainer.strategy.reduce(numbers, reduce_op="mean")
        metrics = dict(zip(values, numbers.tolist(), strict=True))
        self._check_finite(metrics["train/loss"])
        optimizer: Any = self.optimizers()
        metrics["train/learning_rate"] = optimizer.param_groups[0]["lr"]
        for logger in self.loggers:
            logger.log_metrics({"epoch": self.current_epoch, **metrics}, step=self.global_step)

    def on_train_epoch_end(self) -> None:
        """Keeps weights that are no numbers out of checkpoints, whichever steps are logged."""
        self._check_finite(float(self.last_loss))

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise SettingsError(
                f"the loss is {loss} at step {self.global_step}: lower the learning_rate, "
                f"{self.method_settings.learning_rate}"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what ``python -m harness export`` needs to know beside the backbone's weights."""
        checkpoint["backbone"] = {
            **self.backbone.description(),
            "mean": self.views.mean.tolist(),
            "std": self.views.std.tolist(),
        }

    def configure_optimizers(self) -> tuple[list[Any], list[Any]]:
        """The optimiser with a cosine schedule by steps.

        No weight decay on norms, biases, losses and the probe.
        """
        parts = dict(self.named_children())
        criterion, probe = parts.pop("criterion"), parts.pop("online_probe")
        decayed, plain = get_weight_decay_parameters(parts.values())
        plain += criterion.parameters()
        groups: list[dict[str, Any]] = [
            {"params": [p for p in decayed if p.requires_grad]},
            {"params": [p for p in plain if p.requires_grad], "weight_decay": 0.0},
            {"params": list(probe.parameters()), "weight_decay": 0.0, "lr": _PROBE_LEARNING_RATE},
        ]
        optimizer = _optimizer(self.method_settings, groups)
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = int(self.trainer_settings.warmup_ratio * steps)
        scheduler = CosineWarmupScheduler(optimizer, warmup_epochs=warmup, max_epochs=steps)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


def _optimizer(settings: MethodSettings, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adamw":
        groups[-1]["lr"] = rate
        return torch.optim.AdamW(groups, lr=rate, weight_decay=decay)
    kind: Any = LARS if settings.optimizer == "lars" else torch.optim.SGD
    made: torch.optim.Optimizer = kind(
        groups, lr=rate, momentum=settings.momentum, weight_decay=decay
    )
    return made
