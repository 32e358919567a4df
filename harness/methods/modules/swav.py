"""SwAV on two views, written as in lightly's documentation."""

from __future__ import annotations

from lightly.loss import SwaVLoss
from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes
from torch import Tensor
from torch.nn.functional import normalize

from harness.backbones import Backbone
from harness.methods import SwAVSettings
from harness.methods.modules.base import Method
from harness.settings import TrainerSettings
from harness.views import Views


class SwAV(Method):
    """SwAV (Caron et al. 2020) without multi-crop: a view's code predicted from the other's.

    Args:
        backbone: As in :class:`Method`.
        criterion: lightly's loss.
        views: As in :class:`Method`.
        settings: As in :class:`Method`.
        trainer: As in :class:`Method`.
    """

    def __init__(
        self,
        backbone: Backbone,
        criterion: SwaVLoss,
        *,
        views: Views,
        settings: SwAVSettings,
        trainer: TrainerSettings,
    ) -> None:
        super().__init__(backbone, criterion, views=views, settings=settings, trainer=trainer)
        self.projection_head = SwaVProjectionHead(
            backbone.feature_dim, settings.hidden_dim, settings.output_dim
        )
        self.prototypes = SwaVPrototypes(settings.output_dim, settings.num_prototypes)

    def loss(
        self,
        view0: Tensor,  # shape: (B, C, H, W)
        view1: Tensor,  # shape: (B, C, H, W)
    ) -> tuple[Tensor, Tensor]:  # shapes: (), (B, feature_dim)
        """The swapped prediction's cross-entropy, and the first view's features."""
        self.prototypes.normalize()
        features = [self.backbone(view) for view in (view0, view1)]
        logits = [self._logits(h) for h in features]
        return self.compare(logits, []).squeeze(), features[0]

    def _logits(self, features: Tensor) -> Tensor:  # shape: (B, num_prototypes)
        embeddings = normalize(self.projection_head(features).float(), dim=1)
        logits: Tensor = self.prototypes(embeddings)
        return logits.float()
