"""NNCLR, written as in lightly's documentation, with any bank of nearest neighbours."""

from __future__ import annotations

from torch import Tensor, nn

from harness.methods.modules.base import Method, Step
from harness.methods.modules.contrastive import of_bank


class NNCLR(Method):
    """NNCLR (Dwibedi et al. 2021): an embedding's nearest neighbour in a bank is the positive.

    Arguments are those of :class:`Method`, besides ``prediction_head`` and ``memory_bank``, which
    answers with nearest neighbours; the criterion is called as ``criterion(neighbours,
    predictions)``, both ways round.
    """

    memory_bank: nn.Module

    def step(self, views: tuple[Tensor, ...]) -> Step:  # shapes: (B, C, H, W)
        """The criterion both ways; the second view's embeddings enter the bank."""
        features = [self.backbone(view) for view in views]
        first, second = (self.projection_head(h) for h in features)
        neighbours = [
            self.memory_bank(z.detach(), update=update)
            for z, update in ((first, False), (second, True))
        ]
        forth = self.compare(neighbours[0], self.prediction_head(second))
        back = self.compare(neighbours[1], self.prediction_head(first))
        return Step(0.5 * (forth + back), features[0])

    def terms(self) -> dict[str, Tensor]:
        """Besides, the diagnostics of the bank."""
        return {**super().terms(), **of_bank(self.memory_bank)}
