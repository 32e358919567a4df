"""BYOL, written as in lightly's documentation, with any predictor and criterion that fit."""

from __future__ import annotations

from torch import Tensor

from harness.methods.modules.base import Step
from harness.methods.modules.momentum import MomentumMethod


class BYOL(MomentumMethod):
    """BYOL (Grill et al. 2020): one view's embedding predicts the other's target embedding.

    Arguments are those of :class:`MomentumMethod`; the criterion is called as
    ``criterion(prediction, target)``, both ways round.
    """

    def step(self, views: tuple[Tensor, Tensor]) -> Step:  # shapes: (B, C, H, W)
        """Moves the target encoder; the criterion both ways."""
        self.move_momentum_encoder()
        features = [self.backbone(view) for view in views]
        first, second = (self.prediction_head(self.projection_head(h)) for h in features)
        targets = [self.targets(view) for view in views]
        loss = 0.5 * (self.compare(first, targets[1]) + self.compare(second, targets[0]))
        return Step(loss, features[0])
