"""SwAV with lightly's prototypes and loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.settings import MethodSettings, choice, config, ranged

if TYPE_CHECKING:
    from harness.methods.modules.base import Method
    from harness.methods.modules.context import BuildContext


@config("method", "swav", "SwAV")
@dataclass
class SwAVSettings(MethodSettings):
    """SwAV on two views with lightly's ``SwaVPrototypes`` and ``SwaVLoss``."""

    family: ClassVar[str] = "SwAV"
    projection: ClassVar[str] = "SwaVProjectionHead"
    name: str = choice("swav")
    num_prototypes: int = ranged(512, low=2, help="Cluster centres. [R]")
    temperature: float = ranged(0.1, above=0.0, help="Temperature of the loss. [R]")
    sinkhorn_iterations: int = ranged(
        3, low=1, help="Iterations of the assignment of prototypes. [P]"
    )
    sinkhorn_epsilon: float = ranged(
        0.05, above=0.0, help="Entropy regularisation of the assignment; lightly's default."
    )

    def build(self, context: BuildContext) -> Method:
        """As :meth:`MethodSettings.build` says."""
        from lightly.loss import SwaVLoss
        from lightly.models.modules import SwaVPrototypes

        from harness.methods.modules.swav import SwAV

        criterion = SwaVLoss(
            self.temperature,
            self.sinkhorn_iterations,
            self.sinkhorn_epsilon,
            sinkhorn_gather_distributed=context.gather,
        )
        head = self.projection_head(context)
        prototypes = SwaVPrototypes(self.output_dim, self.num_prototypes)
        return SwAV(context, self, criterion, head, prototypes=prototypes)
