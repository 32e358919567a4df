"""GJE: alignment and the Gaussian entropy in the place of NTXentLoss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.settings import MethodSettings, choice, config, ranged

if TYPE_CHECKING:
    from torch import nn


@config("method", "gje_entropy", "GJE entropy")
@dataclass
class GJEEntropySettings(MethodSettings):
    """SimCLR's pipeline with ``GJEEntropyLoss``."""

    name: str = choice("gje_entropy")
    weight: float = ranged(1.0, low=0.0, help="Weight of the entropy; the loss's default.")
    eps: float = ranged(
        1e-4, low=0.0, help="Added to the variances in the entropy; the loss's default."
    )

    def criterion(self, *, gather: bool) -> nn.Module:
        """As :meth:`MethodSettings.criterion` says."""
        from gmje_plugin import GJEEntropyLoss

        return GJEEntropyLoss(self.weight, eps=self.eps, gather_distributed=gather)
