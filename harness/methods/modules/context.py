"""What a method is built around."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.settings.methods import BankSettings
from harness.settings.parts import TrainerSettings

if TYPE_CHECKING:
    from gmje_plugin import SMCMemoryBankModule
    from harness.backbones import Backbone
    from harness.views import Views


@dataclass(frozen=True)
class BuildContext:
    """The rest of a run, as far as a method depends on it.

    Attributes:
        backbone: The network whose features are evaluated, untrained.
        bank: The memory bank, for a method that has one.
        views: Makes the views of a batch of images.
        trainer: How it is trained.
        seed: Of the bank's random numbers.
    """

    backbone: Backbone
    bank: BankSettings | None
    views: Views
    trainer: TrainerSettings
    seed: int

    @property
    def gather(self) -> bool:
        """Whether losses and banks take in the batches of all devices, to give what one gives."""
        return self.trainer.world_size > 1

    def memory_bank(
        self, kind: type[SMCMemoryBankModule], dim: int, *, temperature: float
    ) -> SMCMemoryBankModule:
        """The bank that the settings name, as a module of a kind, for embeddings of a size.

        Raises:
            ValueError: If the settings name none.
        """
        if self.bank is None:
            raise ValueError("bank must be chosen for a method that has one")
        return kind(
            (self.bank.size, dim),
            gather_distributed=self.gather,
            temperature=temperature,
            seed=self.seed,
            **self.bank.options(),
        )
