"""SimCLR with lightly's loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.settings.fields import choice, ranged
from harness.settings.methods import MethodSettings
from harness.settings.registry import config

if TYPE_CHECKING:
    from harness.methods.context import BuildContext
    from harness.methods.modules.base import Method


@config("method", "simclr", "SimCLR")
@dataclass
class SimCLRSettings(MethodSettings):
    """SimCLR with lightly's ``NTXentLoss``."""

    name: str = choice("simclr")
    learning_rate: float = ranged(0.4, above=0.0)  # [D]
    temperature: float = ranged(0.2, above=0.0)  # [D]

    def build(self, context: BuildContext) -> Method:
        """As :meth:`MethodSettings.build` says."""
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead

        from harness.methods.modules.contrastive import SimCLR

        head = SimCLRProjectionHead(context.backbone.feature_dim, self.hidden_dim, self.output_dim)
        criterion = NTXentLoss(self.temperature, gather_distributed=context.gather)
        return SimCLR(
            context.backbone,
            head,
            criterion,
            views=context.views,
            settings=self,
            trainer=context.trainer,
        )
