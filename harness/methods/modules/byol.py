"""BYOL, written as in lightly's documentation, and GMJE-MDN without a momentum encoder."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from harness.methods.modules.base import Method, Step
from harness.methods.modules.momentum import MomentumMethod


class BYOL(MomentumMethod):
    """BYOL (Grill et al. 2020): one view's embedding predicts the other's target embedding.

    Arguments are those of :class:`MomentumMethod`; the criterion is called as
    ``criterion(prediction, target)``, both ways round.
    """

    def step(self, views: tuple[Tensor, ...]) -> Step:  # shapes: (B, C, H, W)
        """Moves the target encoder; the criterion both ways."""
        self.move_momentum_encoder()
        features = [self.backbone(view) for view in views]
        first, second = (self.prediction_head(self.projection_head(h)) for h in features)
        targets = [self.targets(view) for view in views]
        loss = 0.5 * (self.compare(first, targets[1]) + self.compare(second, targets[0]))
        return Step(loss, features[0])


class GMJEMDN(Method):
    """One view's embedding predicts a density of the other's, and both learn from it.

    With the entropy guard on both views the loss has the form of minus Barber and Agakov's (2003)
    bound of their mutual information, H(z_t) + E log p(z_t | z_c). It is none: the guard is the
    entropy of a Gaussian of the same second moment, which is at least H. As targets learn to be
    predictable, embeddings drop what differs between views, which targets of a momentum encoder
    never do under this loss. The contrastive guard makes it a bound (van den Oord et al. 2018).
    Embeddings have unit norm, or targets would shrink.

    Arguments are those of :class:`Method`; the criterion is called as
    ``criterion(density, target)``, both ways round.
    """

    def step(self, views: tuple[Tensor, ...]) -> Step:  # shapes: (B, C, H, W)
        """The criterion both ways."""
        features = [self.backbone(view) for view in views]
        first, second = (normalize(self.projection_head(h).float(), dim=1) for h in features)
        forth = self.compare(self.prediction_head(first), second)
        back = self.compare(self.prediction_head(second), first)
        return Step(0.5 * (forth + back), features[0])
