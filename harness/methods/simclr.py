"""SimCLR with lightly's loss, and with the Gaussian entropy or learned prototypes beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.settings import BankSettings, MethodSettings, choice, config, ranged

if TYPE_CHECKING:
    from torch import nn

_EPS = 0.1  # of the mean variance: best for GJEEntropyLoss alone
_PROTOTYPES = 64  # with these two, as in the recipe of parametric_gmje
_PROTOTYPE_TEMPERATURE = 0.05


@config("method", "simclr", "SimCLR")
@dataclass
class SimCLRSettings(MethodSettings):
    """SimCLR with lightly's ``NTXentLoss``, alone or with a loss of ours beside it."""

    name: str = choice("simclr")
    temperature: float = ranged(0.5, above=0.0, help="Temperature of the loss. [R]")
    entropy_weight: float = ranged(
        0.0,
        low=0.0,
        help="Weight of the embeddings' Gaussian entropy (GJEEntropyLoss) beside the loss, in "
        "nats; 0 is SimCLR.",
    )
    prototype_weight: float = ranged(
        0.0,
        low=0.0,
        help="Weight of 64 tied prototypes (GMJEPrototypeLoss, which has the entropy too) beside "
        "the loss, in nats; 0 is SimCLR.",
    )

    def problems_with(self, bank: BankSettings | None) -> Iterator[str]:
        """Besides, there is one loss beside SimCLR's."""
        yield from super().problems_with(bank)
        if self.entropy_weight and self.prototype_weight:
            yield "method.entropy_weight must be 0 with prototype_weight, which has the entropy too"

    def suffix(self) -> str:
        """Says which loss is beside SimCLR's."""
        if self.prototype_weight:
            return "tied prototypes"
        return "Gaussian entropy" if self.entropy_weight else ""

    def criterion(self, *, gather: bool) -> nn.Module:
        """As :meth:`MethodSettings.criterion` says."""
        from lightly.loss import NTXentLoss

        from gmje_plugin import GJEEntropyLoss, GMJEPrototypeLoss
        from harness.methods.modules.contrastive import Sum

        loss: nn.Module = NTXentLoss(self.temperature, gather_distributed=gather)
        # Ours are per dimension.
        if self.entropy_weight:
            entropy = GJEEntropyLoss(alignment_weight=0.0, eps=_EPS, gather_distributed=gather)
            return Sum(loss, entropy, weight=self.entropy_weight * self.output_dim)
        if self.prototype_weight:
            prototypes = GMJEPrototypeLoss(
                self.output_dim,
                _PROTOTYPES,
                temperature=_PROTOTYPE_TEMPERATURE,
                tied=True,
                momentum=0.0,
                eps=_EPS,
                gather_distributed=gather,
            )
            return Sum(loss, prototypes, weight=self.prototype_weight * self.output_dim)
        return loss
