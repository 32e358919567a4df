"""SwAV on two views, written as in lightly's documentation."""

from __future__ import annotations

from lightly.loss import SwaVLoss
from lightly.models.modules import SwaVPrototypes
from torch import Tensor, nn
from torch.nn.functional import normalize

from harness.methods.modules.base import Method, Step
from harness.methods.modules.context import BuildContext
from harness.methods.swav import SwAVSettings


class SwAV(Method):
    """SwAV (Caron et al. 2020) without multi-crop: a view's code predicted from the other's.

    Args:
        context: As in :class:`Method`.
        settings: As in :class:`Method`.
        criterion: lightly's loss.
        projection_head: As in :class:`Method`.
    """

    def __init__(
        self,
        context: BuildContext,
        settings: SwAVSettings,
        criterion: SwaVLoss,
        projection_head: nn.Module,
    ) -> None:
        super().__init__(context, settings, criterion, projection_head)
        self.prototypes = SwaVPrototypes(settings.output_dim, settings.num_prototypes)

    def step(self, views: tuple[Tensor, Tensor]) -> Step:  # shapes: (B, C, H, W)
        """The swapped prediction's cross-entropy."""
        self.prototypes.normalize()
        features = [self.backbone(view) for view in views]
        embeddings = [normalize(self.projection_head(h).float(), dim=1) for h in features]
        logits = [self.prototypes(z).float() for z in embeddings]
        return Step(self.compare(logits, []).squeeze(), features[0])
