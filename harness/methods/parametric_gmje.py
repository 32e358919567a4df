"""Parametric GMJE: prototypes of a joint density in the place of NTXentLoss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.settings import MethodSettings, choice, config, option, ranged

if TYPE_CHECKING:
    from torch import nn


@config("method", "parametric_gmje", "Parametric GMJE")
@dataclass
class ParametricGMJESettings(MethodSettings):
    """SimCLR's pipeline with ``GMJEPrototypeLoss``."""

    has_mixture: ClassVar[bool] = True
    name: str = choice("parametric_gmje")
    num_prototypes: int = ranged(64, low=1, help="Components of the joint mixture. [R]")
    covariance: str = choice(
        "isotropic",
        "diagonal",
        "full",
        help="Shared by all prototypes; diagonal and full are learned.",
    )
    temperature: float = ranged(
        0.1, above=0.0, help="Variance of an isotropic covariance, start of the others. [R]"
    )
    correlation: float | None = ranged(
        None,
        low=0.0,
        below=1.0,
        help="Correlation of the two views' features given the prototype; null is the loss's "
        "default, 0 the paper's.",
    )
    tied: bool = option(
        False, help="Whether a prototype has one mean for both views; the paper's has two."
    )
    entropy_weight: float = ranged(
        1.0, low=0.0, help="Weight of the entropy, 0 is off; the loss's default."
    )
    ema_momentum: float = ranged(
        0.5,
        low=0.0,
        below=1.0,
        help="Share of the history in each update of the second moment; the loss's default.",
    )
    eps: float = ranged(
        1e-4, low=0.0, help="Added to the variances in the entropy; the loss's default."
    )

    def suffix(self) -> str:
        """Says whether prototypes are tied."""
        return "tied prototypes" if self.tied else ""

    def criterion(self, *, gather: bool) -> nn.Module:
        """As :meth:`MethodSettings.criterion` says."""
        from gmje_plugin import GMJEPrototypeLoss

        return GMJEPrototypeLoss(
            self.output_dim,
            self.num_prototypes,
            covariance=self.covariance,
            temperature=self.temperature,
            correlation=self.correlation,
            tied=self.tied,
            entropy_weight=self.entropy_weight,
            momentum=self.ema_momentum,
            eps=self.eps,
            gather_distributed=gather,
        )
