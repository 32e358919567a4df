"""VICReg with lightly's head and loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.settings import MethodSettings, choice, config, ranged

if TYPE_CHECKING:
    from torch import nn


@config("method", "vicreg", "VICReg")
@dataclass
class VICRegSettings(MethodSettings):
    """SimCLR's pipeline with lightly's ``VICRegProjectionHead`` and ``VICRegLoss``."""

    projection: ClassVar[str] = "VICRegProjectionHead"
    name: str = choice("vicreg")
    invariance_weight: float = ranged(25.0, low=0.0, help="Weight of the invariance, lambda. [R]")
    variance_weight: float = ranged(25.0, low=0.0, help="Weight of the variance, mu. [R]")
    covariance_weight: float = ranged(1.0, low=0.0, help="Weight of the covariance, nu. [R]")

    def criterion(self, *, gather: bool) -> nn.Module:
        """As :meth:`MethodSettings.criterion` says."""
        from lightly.loss import VICRegLoss

        loss: nn.Module = VICRegLoss(
            lambda_param=self.invariance_weight,
            mu_param=self.variance_weight,
            nu_param=self.covariance_weight,
            gather_distributed=gather,
        )
        return loss
