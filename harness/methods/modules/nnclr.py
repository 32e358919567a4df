"""NNCLR, written as in lightly's documentation, with any bank of nearest neighbours."""

from __future__ import annotations

from torch import Tensor, nn

from harness.methods.modules.base import Method, Step
from harness.methods.modules.context import BuildContext
from harness.methods.modules.contrastive import of_bank
from harness.settings import MethodSettings


class NNCLR(Method):
    """NNCLR (Dwibedi et al. 2021): an embedding's nearest neighbour in a bank is the positive.

    Args:
        context: As in :class:`Method`.
        settings: As in :class:`Method`.
        criterion: Called as ``criterion(neighbours, predictions)``, both ways round.
        projection_head: As in :class:`Method`.
        prediction_head: As in :class:`Method`.
        memory_bank: Answers with nearest neighbours.
    """

    def __init__(
        self,
        context: BuildContext,
        settings: MethodSettings,
        criterion: nn.Module,
        projection_head: nn.Module,
        prediction_head: nn.Module,
        memory_bank: nn.Module,
    ) -> None:
        super().__init__(context, settings, criterion, projection_head, prediction_head)
        self.memory_bank = memory_bank

    def step(self, views: tuple[Tensor, Tensor]) -> Step:  # shapes: (B, C, H, W)
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
