"""BYOL, written as in lightly's documentation, with any predictor and criterion that fit."""

from __future__ import annotations

import copy

from lightly.models.modules import BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from torch import Tensor, nn

from harness.backbones import Backbone
from harness.methods.base import Method
from harness.settings import BYOLSettings, TrainerSettings
from harness.views import Views


class BYOL(Method):
    """BYOL (Grill et al. 2020): one view's embedding predicts the other's target embedding.

    Args:
        backbone: As in :class:`Method`.
        prediction_head: Maps an embedding to what the criterion compares with a target.
        criterion: Called as ``criterion(prediction, target)``, both ways round.
        views: As in :class:`Method`.
        settings: As in :class:`Method`.
        trainer: As in :class:`Method`.
    """

    def __init__(
        self,
        backbone: Backbone,
        prediction_head: nn.Module,
        criterion: nn.Module,
        *,
        views: Views,
        settings: BYOLSettings,
        trainer: TrainerSettings,
    ) -> None:
        super().__init__(backbone, criterion, views=views, settings=settings, trainer=trainer)
        self.ema = settings.ema
        self.projection_head = BYOLProjectionHead(
            backbone.feature_dim, settings.hidden_dim, settings.output_dim
        )
        self.prediction_head = prediction_head
        self.backbone_momentum = copy.deepcopy(backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)

    def loss(
        self,
        view0: Tensor,  # shape: (B, C, H, W)
        view1: Tensor,  # shape: (B, C, H, W)
    ) -> Tensor:  # shape: ()
        """Moves the target encoder and returns the mean criterion of both directions."""
        update_momentum(self.backbone, self.backbone_momentum, m=self.ema)
        update_momentum(self.projection_head, self.projection_head_momentum, m=self.ema)
        predictions = [
            self.prediction_head(self.projection_head(self.backbone(view)))
            for view in (view0, view1)
        ]
        targets = [
            self.projection_head_momentum(self.backbone_momentum(view)).detach()
            for view in (view0, view1)
        ]
        loss: Tensor = 0.5 * (
            self.criterion(predictions[0], targets[1]) + self.criterion(predictions[1], targets[0])
        )
        return loss
