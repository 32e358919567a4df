"""NNCLR with lightly's heads and loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.settings import MethodSettings, choice, config, ranged

if TYPE_CHECKING:
    from harness.methods.modules.base import Method
    from harness.methods.modules.context import BuildContext


@config("method", "nnclr", "NNCLR")
@dataclass
class NNCLRSettings(MethodSettings):
    """NNCLR with any bank of nearest neighbours; FIFO is its own."""

    family: ClassVar[str] = "NNCLR"
    projection: ClassVar[str] = "NNCLRProjectionHead"
    has_bank: ClassVar[bool] = True
    name: str = choice("nnclr")
    temperature: float = ranged(
        0.1, above=0.0, help="Temperature of the loss and of the bank's weights. [R]"
    )
    predictor_dim: int = ranged(512, low=1, help="Width of the predictor. [R]")

    def build(self, context: BuildContext) -> Method:
        """As :meth:`MethodSettings.build` says."""
        from lightly.loss import NTXentLoss
        from lightly.models.modules import NNCLRPredictionHead

        from gmje_plugin import SMCNNMemoryBankModule
        from harness.methods.modules.nnclr import NNCLR

        criterion = NTXentLoss(self.temperature, gather_distributed=context.gather)
        bank = context.memory_bank(
            SMCNNMemoryBankModule, self.output_dim, temperature=self.temperature
        )
        head = self.projection_head(context)
        predictor = NNCLRPredictionHead(self.output_dim, self.predictor_dim, self.output_dim)
        return NNCLR(context, self, criterion, head, prediction_head=predictor, memory_bank=bank)
