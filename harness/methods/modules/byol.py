"""BYOL, written as in lightly's documentation, with any predictor and criterion that fit."""

from __future__ import annotations

from lightly.models.modules import BYOLProjectionHead
from torch import Tensor, nn

from harness.backbones import Backbone
from harness.methods import BYOLSettings
from harness.methods.modules.momentum import MomentumMethod
from harness.settings import TrainerSettings
from harness.views import Views


class BYOL(MomentumMethod):
    """BYOL (Grill et al. 2020): one view's embedding predicts the other's target embedding.

    Args:
        backbone: As in :class:`MomentumMethod`.
        prediction_head: Maps an embedding to what the criterion compares with a target.
        criterion: Called as ``criterion(prediction, target)``, both ways round.
        views: As in :class:`MomentumMethod`.
        settings: As in :class:`MomentumMethod`.
        trainer: As in :class:`MomentumMethod`.
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
        super().__init__(
            backbone,
            BYOLProjectionHead(backbone.feature_dim, settings.hidden_dim, settings.output_dim),
            criterion,
            ema=settings.ema,
            views=views,
            settings=settings,
            trainer=trainer,
        )
        self.prediction_head = prediction_head

    def loss(
        self,
        view0: Tensor,  # shape: (B, C, H, W)
        view1: Tensor,  # shape: (B, C, H, W)
    ) -> tuple[Tensor, Tensor]:  # shapes: (), (B, feature_dim)
        """Moves the target encoder; the criterion both ways, and the first view's features."""
        self.move_momentum_encoder()
        features = [self.backbone(view) for view in (view0, view1)]
        first, second = (self.prediction_head(self.projection_head(h)) for h in features)
        targets = [self.targets(view) for view in (view0, view1)]
        loss = 0.5 * (self.compare(first, targets[1]) + self.compare(second, targets[0]))
        return loss, features[0]
