"""GMJE-MDN: a mixture density network in the place of BYOL's predictor and its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.methods.byol import BYOLSettings
from harness.settings.fields import choice, ranged
from harness.settings.registry import config

if TYPE_CHECKING:
    from harness.methods.context import BuildContext
    from harness.methods.modules.base import Method


@config("method", "gmje_mdn", "GMJE-MDN")
@dataclass
class GMJEMDNSettings(BYOLSettings):
    """``GMJEMDNHead`` and ``GMJEMDNLoss`` in BYOL's pipeline, or without a momentum encoder."""

    name: str = choice("gmje_mdn")
    learning_rate: float = ranged(0.256, above=0.0)  # [D]
    weight_decay: float = ranged(1.5625e-5, low=0.0)  # [D]
    num_components: int = ranged(5, low=1)  # [R]
    scale: str = choice("softplus", "exp", "bounded")  # [P]
    min_scale: float = ranged(1e-3, above=0.0)  # of softplus and bounded
    init_scale: float | None = ranged(None, above=0.0)  # the head's default
    residual: bool = False  # the head's default
    momentum_encoder: bool = True  # without one, targets are learned too and have unit norm
    guard: str = choice("entropy", "marginal", "contrastive", "none")  # marginal is Eq. 23's
    guard_weight: float = ranged(1.0, low=0.0)  # the loss's default

    def build(self, context: BuildContext) -> Method:
        """As :meth:`MethodSettings.build` says."""
        from gmje_plugin import GMJEMDNHead, GMJEMDNLoss
        from harness.methods.modules.byol import BYOL
        from harness.methods.modules.mdn import GMJEMDN

        head = GMJEMDNHead(
            self.output_dim,
            self.predictor_dim,
            self.output_dim,
            num_components=self.num_components,
            scale=self.scale,
            min_scale=self.min_scale,
            init_scale=self.init_scale,
            residual=self.residual,
        )
        criterion = GMJEMDNLoss(
            self.output_dim,
            guard=None if self.guard == "none" else self.guard,
            guard_weight=self.guard_weight,
            gather_distributed=context.gather,
        )
        kind: type[BYOL | GMJEMDN] = BYOL if self.momentum_encoder else GMJEMDN
        return kind(context, self, criterion, head)
