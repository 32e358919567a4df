"""GMJE-MDN: a mixture density network in the place of BYOL's predictor and its loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.methods.byol import BYOLSettings
from harness.settings import BankSettings, choice, config, option, ranged

if TYPE_CHECKING:
    from harness.methods.modules.base import Method
    from harness.methods.modules.context import BuildContext


@config("method", "gmje_mdn", "GMJE-MDN")
@dataclass
class GMJEMDNSettings(BYOLSettings):
    """``GMJEMDNHead`` and ``GMJEMDNLoss`` in BYOL's pipeline, or without a momentum encoder."""

    name: str = choice("gmje_mdn")
    num_components: int = ranged(5, low=1, help="Components of each predicted mixture. [R]")
    scale: str = choice(
        "softplus",
        "exp",
        "bounded",
        help="Function that makes the components' standard deviations. [P]",
    )
    min_scale: float = ranged(
        1e-3, above=0.0, help="Least standard deviation of softplus and bounded."
    )
    init_scale: float | None = ranged(
        None, above=0.0, help="Standard deviation at the start; null is the head's default."
    )
    residual: bool = option(
        False, help="Whether means are offsets from the context; the head's default."
    )
    momentum_encoder: bool = option(
        True, help="Without one, targets are learned too and have unit norm."
    )
    guard: str = choice(
        "entropy",
        "marginal",
        "contrastive",
        "none",
        help="What keeps embeddings from collapse; marginal is Eq. 23's.",
    )
    guard_weight: float = ranged(1.0, low=0.0, help="Weight of the guard; the loss's default.")

    def problems_with(self, bank: BankSettings | None) -> Iterator[str]:
        """Besides, no option is for what is not there."""
        yield from super().problems_with(bank)
        if not self.momentum_encoder and self.encoder_momentum != type(self).encoder_momentum:
            yield "method.encoder_momentum needs method.momentum_encoder=true"

    def suffix(self) -> str:
        """Says which guard there is, if not the loss's default."""
        if self.guard == "entropy":
            return ""
        return "no guard" if self.guard == "none" else f"{self.guard} guard"

    def build(self, context: BuildContext) -> Method:
        """As :meth:`MethodSettings.build` says."""
        from gmje_plugin import GMJEMDNHead, GMJEMDNLoss
        from harness.methods.modules.byol import BYOL, GMJEMDN

        predictor = GMJEMDNHead(
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
        head = self.projection_head(context)
        return kind(context, self, criterion, head, prediction_head=predictor)
