"""BYOL with lightly's predictor and loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.settings import MethodSettings, choice, config, ranged

if TYPE_CHECKING:
    from harness.methods.modules.base import Method
    from harness.methods.modules.context import BuildContext


@config("method", "byol", "BYOL")
@dataclass
class BYOLSettings(MethodSettings):
    """BYOL with lightly's ``BYOLPredictionHead`` and ``NegativeCosineSimilarity``."""

    family: ClassVar[str] = "BYOL"
    projection: ClassVar[str] = "BYOLProjectionHead"
    name: str = choice("byol")
    encoder_momentum: float = ranged(
        0.996,
        low=0.0,
        high=1.0,
        help="Share of its old weights that the momentum encoder keeps. [R]",
    )
    predictor_dim: int = ranged(512, low=1, help="Width of the predictor. [R]")

    def build(self, context: BuildContext) -> Method:
        """As :meth:`MethodSettings.build` says."""
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import BYOLPredictionHead

        from harness.methods.modules.byol import BYOL

        predictor = BYOLPredictionHead(self.output_dim, self.predictor_dim, self.output_dim)
        head = self.projection_head(context)
        criterion = NegativeCosineSimilarity()
        return BYOL(context, self, criterion, head, prediction_head=predictor)
