"""SimCLR with lightly's loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.settings.fields import choice, ranged
from harness.settings.methods import MethodSettings
from harness.settings.registry import config

if TYPE_CHECKING:
    from torch import nn


@config("method", "simclr", "SimCLR")
@dataclass
class SimCLRSettings(MethodSettings):
    """SimCLR with lightly's ``NTXentLoss``."""

    name: str = choice("simclr")
    temperature: float = ranged(0.5, above=0.0, help="Temperature of the loss. [R]")

    def criterion(self, *, gather: bool) -> nn.Module:
        """As :meth:`MethodSettings.criterion` says."""
        from lightly.loss import NTXentLoss

        loss: nn.Module = NTXentLoss(self.temperature, gather_distributed=gather)
        return loss
