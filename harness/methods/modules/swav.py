"""SwAV on two views, written as in lightly's documentation."""

from __future__ import annotations

from lightly.models.modules import SwaVPrototypes
from torch import Tensor
from torch.nn.functional import normalize

from harness.methods.modules.base import Method, Step


class SwAV(Method):
    """SwAV (Caron et al. 2020) without multi-crop: a view's code predicted from the other's.

    Arguments are those of :class:`Method`, besides ``prototypes``; the criterion is lightly's loss.
    """

    prototypes: SwaVPrototypes

    def step(self, views: tuple[Tensor, ...]) -> Step:  # shapes: (B, C, H, W)
        """The swapped prediction's cross-entropy."""
        self.prototypes.normalize()
        features = [self.backbone(view) for view in views]
        embeddings = [normalize(self.projection_head(h).float(), dim=1) for h in features]
        logits = [self.prototypes(z).float() for z in embeddings]
        return Step(self.compare(logits, []).squeeze(), features[0])
