"""SimCLR with lightly's loss, and with the Gaussian entropy beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.settings import MethodSettings, choice, config, ranged

if TYPE_CHECKING:
    from torch import nn

_EPS = 0.1  # of the mean variance: best for GJEEntropyLoss alone


@config("method", "simclr", "SimCLR")
@dataclass
class SimCLRSettings(MethodSettings):
    """SimCLR with lightly's ``NTXentLoss``, and ``GJEEntropyLoss`` beside it."""

    name: str = choice("simclr")
    temperature: float = ranged(0.5, above=0.0, help="Temperature of the loss. [R]")
    entropy_weight: float = ranged(
        0.0,
        low=0.0,
        help="Weight of the embeddings' Gaussian entropy beside the loss, in nats; 0 is SimCLR.",
    )

    def suffix(self) -> str:
        """Says whether there is an entropy."""
        return "Gaussian entropy" if self.entropy_weight else ""

    def criterion(self, *, gather: bool) -> nn.Module:
        """As :meth:`MethodSettings.criterion` says."""
        from lightly.loss import NTXentLoss

        loss: nn.Module = NTXentLoss(self.temperature, gather_distributed=gather)
        if not self.entropy_weight:
            return loss
        from gmje_plugin import GJEEntropyLoss
        from harness.methods.modules.contrastive import Sum

        entropy = GJEEntropyLoss(
            self.entropy_weight * self.output_dim,  # that loss is per dimension
            alignment_weight=0.0,
            eps=_EPS,
            gather_distributed=gather,
        )
        return Sum(loss, entropy)
