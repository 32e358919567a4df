"""MoCo v2, and SMC-GMJE, which is MoCo v2 with a bank of particles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.settings import BankSettings, MethodSettings, choice, config, option, ranged

if TYPE_CHECKING:
    from harness.methods.modules.base import Method
    from harness.methods.modules.context import BuildContext


@config(
    "method",
    "smc_gmje",
    "SMC-GMJE",
    help="MoCo v2 with a bank of particles and SMCNTXentLoss's defaults.",
    in_batch_negatives=True,
)
@config("method", "moco", "MoCo v2")
@dataclass
class MoCoSettings(MethodSettings):
    """MoCo v2 with any bank."""

    family: ClassVar[str] = "MoCo"
    projection: ClassVar[str] = "MoCoProjectionHead"
    has_bank: ClassVar[bool] = True
    name: str = choice("moco", "smc_gmje")
    temperature: float = ranged(
        0.1, above=0.0, help="Temperature of the loss and of the bank's weights. [R]"
    )
    encoder_momentum: float = ranged(
        0.99,
        low=0.0,
        high=1.0,
        help="Share of its old weights that the momentum encoder keeps. [R]",
    )
    in_batch_negatives: bool = option(
        False,
        help="Whether the batch's other images are negatives too; the same on both sides wherever "
        "banks are compared.",
    )

    def problems_with(self, bank: BankSettings | None) -> Iterator[str]:
        """Besides, the queue is none of particles."""
        yield from super().problems_with(bank)
        if self.name == "smc_gmje" and bank is not None and bank.is_queue:
            yield f"bank={bank.name} with smc_gmje is MoCo: use method=moco"

    def suffix(self) -> str:
        """Says what negatives there are beside the bank's."""
        return "in-batch negatives" if self.in_batch_negatives else ""

    def build(self, context: BuildContext) -> Method:
        """As :meth:`MethodSettings.build` says."""
        from lightly.loss import NTXentLoss

        from gmje_plugin import SMCMemoryBankModule, SMCNTXentLoss
        from harness.methods.modules.bank_labels import BankLabels
        from harness.methods.modules.contrastive import MoCo

        bank = context.bank
        criterion: NTXentLoss
        if bank is not None and bank.is_queue and not self.in_batch_negatives:
            criterion = NTXentLoss(
                self.temperature,
                memory_bank_size=(bank.size, self.output_dim),
                gather_distributed=context.gather,
            )
            queue = criterion.memory_bank
            for name, buffer in list(queue.named_buffers(recurse=False)):
                queue.register_buffer(name, buffer)  # lightly leaves it out of checkpoints
        else:
            criterion = SMCNTXentLoss(
                self.temperature,
                gather_distributed=context.gather,
                memory_bank=context.memory_bank(
                    SMCMemoryBankModule, self.output_dim, temperature=self.temperature
                ),
                in_batch_negatives=self.in_batch_negatives,
            )
        head = self.projection_head(context)
        bank_labels = BankLabels(criterion.memory_bank.size[0])
        return MoCo(context, self, criterion, head, bank_labels=bank_labels)
