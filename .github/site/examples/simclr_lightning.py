"""SimCLR with learnable prototypes of the views' joint density, in Lightning."""

import pytorch_lightning as pl
import torch
from simclr import SimCLR, loader
from torch import Tensor

from gmje_plugin import GMJEPrototypeLoss


class LitSimCLR(pl.LightningModule):
    """The criterion is part of the module: its prototypes move and train with it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = SimCLR()
        self.criterion = GMJEPrototypeLoss(128, num_prototypes=16, tied=True, eps=0.1)

    def training_step(self, batch: tuple[list[Tensor], Tensor]) -> Tensor:
        """The loss of a batch; its parts go to the logger."""
        (x0, x1), _ = batch
        loss = self.criterion(self.model(x0), self.model(x1))
        self.log("loss", loss, prog_bar=True)
        self.log_dict(self.criterion.terms)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Of the network and of the prototypes."""
        return torch.optim.SGD(self.parameters(), lr=0.06)


if __name__ == "__main__":
    trainer = pl.Trainer(max_epochs=1, log_every_n_steps=1)
    trainer.fit(LitSimCLR(), loader())
