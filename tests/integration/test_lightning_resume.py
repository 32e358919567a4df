"""A Lightning run resumed from a checkpoint ends bit for bit like the unbroken one."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from gmje_plugin import SMCMemoryBankModule, SMCNTXentLoss
from tests.integration.pipelines import DIM, MoCo, digits, view


class LitMoCo(pl.LightningModule):
    def __init__(self, paper: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = MoCo()
        bank = SMCMemoryBankModule.paper((128, DIM)) if paper else SMCMemoryBankModule((128, DIM))
        self.criterion = SMCNTXentLoss(0.1, memory_bank=bank)
        self.losses: list[float] = []

    def training_step(self, batch: tuple[Tensor], batch_idx: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * self.current_epoch + batch_idx)
        x0, x1 = (view(batch[0], generator) for _ in range(2))
        loss = self.model.loss(x0, x1, self.criterion)
        self.losses.append(float(loss))
        return loss

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.05, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)]


def fit(module: LitMoCo, *, epochs: int, checkpoint: Path | None = None) -> pl.Trainer:
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(TensorDataset(digits()[0][:320]), batch_size=64)
    trainer.fit(module, loader, ckpt_path=checkpoint)
    return trainer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("paper", [False, True], ids=["default", "paper"])
def test_resumed_run_equals_the_unbroken_one(paper: bool, tmp_path: Path) -> None:
    unbroken = LitMoCo(paper)
    fit(unbroken, epochs=4)
    first = LitMoCo(paper)
    fit(first, epochs=2).save_checkpoint(tmp_path / "half.ckpt")
    resumed = LitMoCo(paper)
    fit(resumed, epochs=4, checkpoint=tmp_path / "half.ckpt")
    assert first.losses + resumed.losses == unbroken.losses
    state = resumed.state_dict()
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert unbroken.criterion.memory_bank.step == 20
