"""GMJE-MDN without a momentum encoder."""

from __future__ import annotations

from lightly.models.modules import BYOLProjectionHead
from torch import Tensor, nn
from torch.nn.functional import normalize

from harness.methods import GMJEMDNSettings
from harness.methods.context import BuildContext
from harness.methods.modules.base import Method, Step


class GMJEMDN(Method):
    """One view's embedding predicts a density of the other's, and both learn from it.

    With the entropy guard on both views the loss has the form of minus Barber and Agakov's (2003)
    bound of their mutual information, H(z_t) + E log p(z_t | z_c). It is none: the guard is the
    entropy of a Gaussian of the same second moment, which is at least H. As targets learn to be
    predictable, embeddings drop what differs between views, which targets of a momentum encoder
    never do under this loss. The contrastive guard makes it a bound (van den Oord et al. 2018).
    Embeddings have unit norm, or targets would shrink.

    Args:
        context: As in :class:`Method`.
        settings: As in :class:`Method`.
        criterion: Called as ``criterion(density, target)``, both ways round.
        prediction_head: Maps an embedding to a density of the other.
    """

    def __init__(
        self,
        context: BuildContext,
        settings: GMJEMDNSettings,
        criterion: nn.Module,
        prediction_head: nn.Module,
    ) -> None:
        super().__init__(context, settings, criterion)
        self.projection_head = BYOLProjectionHead(
            self.backbone.feature_dim, settings.hidden_dim, settings.output_dim
        )
        self.prediction_head = prediction_head

    def step(
        self,
        view0: Tensor,  # shape: (B, C, H, W)
        view1: Tensor,  # shape: (B, C, H, W)
    ) -> Step:
        """The criterion both ways."""
        features = [self.backbone(view) for view in (view0, view1)]
        first, second = (normalize(self.projection_head(h).float(), dim=1) for h in features)
        forth = self.compare(self.prediction_head(first), second)
        back = self.compare(self.prediction_head(second), first)
        return Step(0.5 * (forth + back), features[0])
