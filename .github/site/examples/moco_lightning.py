"""MoCo with a Sequential Monte Carlo memory bank, in Lightning."""

import pytorch_lightning as pl
import torch
from moco import MoCo, loader
from torch import Tensor

from gmje_plugin import SMCNTXentLoss


class LitMoCo(pl.LightningModule):
    """The criterion is part of the module: its bank is saved in checkpoints, and resumed."""

    def __init__(self) -> None:
        super().__init__()
        self.model = MoCo()
        self.criterion = SMCNTXentLoss(temperature=0.1, memory_bank_size=(128, 128))

    def training_step(self, batch: tuple[list[Tensor], Tensor]) -> Tensor:
        """The loss of a batch; what the bank looks like goes to the logger."""
        (x_query, x_key), _ = batch
        loss = self.criterion(*self.model(x_query, x_key))
        self.log("loss", loss, prog_bar=True)
        self.log_dict(self.criterion.memory_bank.diagnostics())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """As in plain PyTorch."""
        return torch.optim.SGD(self.parameters(), lr=0.06)


if __name__ == "__main__":
    trainer = pl.Trainer(max_epochs=1, log_every_n_steps=1)
    trainer.fit(LitMoCo(), loader())
