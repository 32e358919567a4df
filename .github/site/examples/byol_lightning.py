"""BYOL with a mixture density network as its predictor, in Lightning."""

import pytorch_lightning as pl
import torch
from byol import BYOL, loader
from lightly.models.utils import update_momentum
from torch import Tensor

from gmje_plugin import GMJEMDNLoss


class LitBYOL(pl.LightningModule):
    """The criterion is part of the module: its running moments are saved in checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.model = BYOL()
        self.criterion = GMJEMDNLoss(input_dim=256)

    def training_step(self, batch: tuple[list[Tensor], Tensor]) -> Tensor:
        """The loss of a batch, each view predicted from the other."""
        (x0, x1), _ = batch
        update_momentum(self.model.online, self.model.target, m=0.99)
        loss = 0.5 * sum(self.criterion(*self.model(*pair)) for pair in ((x0, x1), (x1, x0)))
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """As in plain PyTorch."""
        return torch.optim.SGD(self.parameters(), lr=0.06)


if __name__ == "__main__":
    trainer = pl.Trainer(max_epochs=1, log_every_n_steps=1)
    trainer.fit(LitBYOL(), loader())
