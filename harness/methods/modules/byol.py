"""BYOL, written as in lightly's documentation, with any predictor and criterion that fit."""

from __future__ import annotations

from lightly.models.modules import BYOLProjectionHead
from torch import Tensor, nn

from harness.methods import BYOLSettings
from harness.methods.context import BuildContext
from harness.methods.modules.base import Step
from harness.methods.modules.momentum import MomentumMethod


class BYOL(MomentumMethod):
    """BYOL (Grill et al. 2020): one view's embedding predicts the other's target embedding.

    Args:
        context: As in :class:`MomentumMethod`.
        settings: As in :class:`MomentumMethod`.
        criterion: Called as ``criterion(prediction, target)``, both ways round.
        prediction_head: Maps an embedding to what the criterion compares with a target.
    """

    def __init__(
        self,
        context: BuildContext,
        settings: BYOLSettings,
        criterion: nn.Module,
        prediction_head: nn.Module,
    ) -> None:
        feature_dim = context.backbone.feature_dim
        head = BYOLProjectionHead(feature_dim, settings.hidden_dim, settings.output_dim)
        super().__init__(context, settings, criterion, head)
        self.prediction_head = prediction_head

    def step(
        self,
        view0: Tensor,  # shape: (B, C, H, W)
        view1: Tensor,  # shape: (B, C, H, W)
    ) -> Step:
        """Moves the target encoder; the criterion both ways."""
        self.move_momentum_encoder()
        features = [self.backbone(view) for view in (view0, view1)]
        first, second = (self.prediction_head(self.projection_head(h)) for h in features)
        targets = [self.targets(view) for view in (view0, view1)]
        loss = 0.5 * (self.compare(first, targets[1]) + self.compare(second, targets[0]))
        return Step(loss, features[0])
