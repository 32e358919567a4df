"""The recipe for solo-learn, run as printed against a stand-in of its interface.

solo-learn is no dependency. What follows has the names, shapes and call order of its
``BaseMomentumMethod`` and ``MoCoV2Plus`` (commit 9187ea3) as far as a training step goes: no
multicrop, online kNN, schedulers, momentum classifier or validation.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader

from gmje_plugin import SMCMemoryBankModule
from gmje_plugin.distributed import gather_rows
from tests import ddp
from tests.integration.pipelines import DIM, FEATURES, backbone, digits, view

PAGE = Path(__file__).parents[2] / ".github/site/pages/guides/drop_in.md"
BATCH, QUEUE = 64, 128

Batch = list[Any]  # [indexes, [view 1, view 2], labels]


class BaseMomentumMethod(pl.LightningModule):
    """Stand-in of solo/methods/base.py: online and momentum backbone, online classifier."""

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.features_dim = FEATURES
        self.num_large_crops = 2
        self.backbone, self.momentum_backbone = backbone(), backbone()
        self.classifier = nn.Linear(self.features_dim, cfg.data.num_classes)
        initialize_momentum_params(self.backbone, self.momentum_backbone)

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        return [
            {"name": "backbone", "params": self.backbone.parameters()},
            {"name": "classifier", "params": self.classifier.parameters()},
        ]

    @property
    def momentum_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.backbone, self.momentum_backbone)]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.learnable_params, lr=self.cfg.optimizer.lr, momentum=0.9)

    def forward(self, X: Tensor) -> dict[str, Any]:  # noqa: N803
        feats = self.backbone(X.to(memory_format=torch.channels_last))
        return {"logits": self.classifier(feats.detach()), "feats": feats}

    @torch.no_grad()
    def momentum_forward(self, X: Tensor) -> dict[str, Any]:  # noqa: N803
        return {"feats": self.momentum_backbone(X.to(memory_format=torch.channels_last))}

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        _, crops, targets = batch
        assert len(crops) == self.num_large_crops
        steps = [self(crop) for crop in crops]
        outs = {key: [step[key] for step in steps] for key in steps[0]}
        outs["loss"] = sum(cross_entropy(logits, targets) for logits in outs["logits"]) / 2
        self.log_dict({"train_class_loss": outs["loss"]}, on_epoch=True, sync_dist=True)
        momentum_steps = [self.momentum_forward(crop) for crop in crops]
        for key in momentum_steps[0]:
            outs["momentum_" + key] = [step[key] for step in momentum_steps]
        return outs

    def on_train_start(self) -> None:
        self.last_step = 0

    @torch.no_grad()
    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.trainer.global_step > self.last_step:
            for online, momentum in self.momentum_pairs:
                for ours, theirs in zip(online.parameters(), momentum.parameters(), strict=True):
                    theirs.lerp_(ours, 1 - self.cfg.momentum.base_tau)
        self.last_step = self.trainer.global_step


class MoCoV2Plus(BaseMomentumMethod):
    """Stand-in of solo/methods/mocov2plus.py: projectors, a queue for each view's keys, loss."""

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__(cfg)
        self.temperature: float = cfg.method_kwargs.temperature
        self.queue_size: int = cfg.method_kwargs.queue_size
        hidden, out = cfg.method_kwargs.proj_hidden_dim, cfg.method_kwargs.proj_output_dim
        self.projector, self.momentum_projector = (
            nn.Sequential(nn.Linear(self.features_dim, hidden), nn.ReLU(), nn.Linear(hidden, out))
            for _ in range(2)
        )
        initialize_momentum_params(self.projector, self.momentum_projector)
        self.register_buffer("queue", torch.randn(2, out, self.queue_size))
        self.queue = normalize(self.queue, dim=1)
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        projector = {"name": "projector", "params": self.projector.parameters()}
        return [*super().learnable_params, projector]

    @property
    def momentum_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [*super().momentum_pairs, (self.projector, self.momentum_projector)]

    @torch.no_grad()
    def _dequeue_and_enqueue(self, keys: Tensor) -> None:
        first, batch = int(self.queue_ptr), keys.shape[1]
        assert self.queue_size % batch == 0
        self.queue[:, :, first : first + batch] = keys.transpose(1, 2)
        self.queue_ptr[0] = (first + batch) % self.queue_size

    def forward(self, X: Tensor) -> dict[str, Any]:  # noqa: N803
        out = super().forward(X)
        return {**out, "z": normalize(self.projector(out["feats"]), dim=-1)}

    @torch.no_grad()
    def momentum_forward(self, X: Tensor) -> dict[str, Any]:  # noqa: N803
        out = super().momentum_forward(X)
        return {**out, "z": normalize(self.momentum_projector(out["feats"]), dim=-1)}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        out = super().training_step(batch, batch_idx)
        (q1, q2), (k1, k2) = out["z"], out["momentum_z"]
        queue = self.queue.clone()
        nce_loss = (self._info_nce(q1, k2, queue[1]) + self._info_nce(q2, k1, queue[0])) / 2
        self._dequeue_and_enqueue(torch.stack([gather_rows(k1), gather_rows(k2)]))
        self.log("train_nce_loss", nce_loss, on_epoch=True, sync_dist=True)
        return nce_loss + out["loss"]

    def _info_nce(self, query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
        logits = torch.cat([(query * key).sum(dim=1, keepdim=True), query @ queue], dim=1)
        return cross_entropy(logits / self.temperature, logits.new_zeros(len(query)).long())


def initialize_momentum_params(online: nn.Module, momentum: nn.Module) -> None:
    momentum.load_state_dict(online.state_dict())
    momentum.requires_grad_(False)


def recipe() -> str:
    """The one block of Python in the section on solo-learn."""
    section = PAGE.read_text(encoding="utf-8").partition("\n## solo-learn\n")[2]
    blocks = re.findall(r"^```python\n(.*?)^```$", section.partition("\n## ")[0], re.M | re.S)
    assert len(blocks) == 1, "one python block is needed under '## solo-learn'"
    code: str = blocks[0]
    return code


def methods() -> dict[str, type[MoCoV2Plus]]:
    """solo-learn's registry of methods after the recipe has run."""
    solo = {name: ModuleType(name) for name in ("solo", "solo.methods")}
    solo["solo.methods"].METHODS = {"mocov2plus": MoCoV2Plus}  # type: ignore[attr-defined]
    for name, member in {"base": BaseMomentumMethod, "mocov2plus": MoCoV2Plus}.items():
        solo[f"solo.methods.{name}"] = ModuleType(name)
        setattr(solo[f"solo.methods.{name}"], member.__name__, member)
    with patch.dict(sys.modules, solo):
        exec(compile(recipe(), str(PAGE), "exec"), {"__name__": "solo.methods.smc_mocov2plus"})
    registry: dict[str, type[MoCoV2Plus]] = solo["solo.methods"].METHODS
    return registry


def build(method: str) -> Any:
    """The method as solo-learn's main_pretrain.py builds it from its config."""
    cfg = OmegaConf.create(
        {
            "method": method,
            "method_kwargs": {
                "proj_hidden_dim": FEATURES,
                "proj_output_dim": DIM,
                "temperature": 0.2,
                "queue_size": QUEUE,
            },
            "momentum": {"base_tau": 0.99},
            "data": {"num_classes": 10},
            "optimizer": {"lr": 0.1},
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return methods()[method](cfg).to(memory_format=torch.channels_last)


def batches(steps: int) -> list[Batch]:
    images, labels, _, _ = digits()
    generator = torch.Generator().manual_seed(0)
    return [
        [index, [view(images[index], generator) for _ in range(2)], labels[index]]
        for index in torch.arange(steps * BATCH).split(BATCH)
    ]


def fit(model: Any, *, epochs: int, checkpoint: Path | None = None, **options: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(model, DataLoader(batches(5), batch_size=None), ckpt_path=checkpoint)
    return trainer


class Losses(pl.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.values.append(float(trainer.callback_metrics["train_nce_loss_step"]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_trains(precision: str) -> None:
    model, losses = build("smc_mocov2plus"), Losses()
    fit(model, epochs=6, precision=precision, callbacks=[losses])
    assert all(torch.tensor(losses.values).isfinite())
    full = losses.values[QUEUE // BATCH :]  # from the step on that sees a full bank
    assert sum(full[-5:]) / 5 < sum(full[:5]) / 5 - 0.5
    banks = [criterion.memory_bank for criterion in model.criteria]
    assert [bank.count for bank in banks] == [QUEUE, QUEUE]
    assert not torch.equal(banks[0].bank, banks[1].bank)


def test_has_banks_instead_of_queues() -> None:
    stock, model = build("mocov2plus"), build("smc_mocov2plus")
    assert not hasattr(model, "queue")
    assert not hasattr(model, "queue_ptr")
    assert dict(model.named_parameters()).keys() == dict(stock.named_parameters()).keys()
    added, gone = model.state_dict().keys() - stock.state_dict().keys(), {"queue", "queue_ptr"}
    assert stock.state_dict().keys() - model.state_dict().keys() == gone
    assert {"criteria.0.memory_bank.bank", "criteria.1.memory_bank.bank"} <= added


@pytest.mark.filterwarnings("ignore")
def test_equals_stock_with_fifo_banks() -> None:
    """What the recipe leaves alone, it leaves alone: with FIFO banks the losses are the queues'."""
    stock, model = build("mocov2plus"), build("smc_mocov2plus")
    for criterion in model.criteria:
        criterion.in_batch_negatives = False
        criterion.memory_bank.ess_threshold = 0.0
    for step, batch in enumerate(batches(6)):
        losses = [module.training_step(batch, step) for module in (stock, model)]
        if step >= QUEUE // BATCH:  # until then the queues hold random entries
            gradients = [
                torch.autograd.grad(loss, [module.backbone[0].weight, module.classifier.weight])
                for loss, module in zip(losses, (stock, model), strict=True)
            ]
            torch.testing.assert_close(*losses)
            torch.testing.assert_close(*gradients)


@pytest.mark.filterwarnings("ignore")
def test_resumes_from_a_checkpoint(tmp_path: Path) -> None:
    unbroken, first, resumed = (build("smc_mocov2plus") for _ in range(3))
    fit(unbroken, epochs=4)
    fit(first, epochs=2).save_checkpoint(tmp_path / "half.ckpt")
    fit(resumed, epochs=4, checkpoint=tmp_path / "half.ckpt")
    state = resumed.state_dict()
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert [criterion.memory_bank.step for criterion in resumed.criteria] == [20, 20]


def banks_of(rank: int, parts: int) -> tuple[list[Tensor], Tensor]:
    """Both banks and the last loss after six steps of a share of each batch."""
    model = build("smc_mocov2plus").eval()  # batch norm of a share is not that of the batch
    for step, (index, crops, labels) in enumerate(batches(6)):
        own = [index, [crop.chunk(parts)[rank] for crop in crops], labels.chunk(parts)[rank]]
        loss = model.training_step(own, step)
    banks: list[SMCMemoryBankModule] = [criterion.memory_bank for criterion in model.criteria]
    return [torch.cat([bank.bank, bank.log_weights[:, None]], dim=1) for bank in banks], loss.data


@pytest.mark.filterwarnings("ignore")
def test_two_processes_give_what_one_gives() -> None:
    """As with the queues, into which all ranks' keys are gathered."""
    banks, loss = banks_of(0, 1)
    ranks = ddp.run(banks_of, 2)
    torch.testing.assert_close(sum(rank_loss for _, rank_loss in ranks) / 2, loss)
    for rank_banks, _ in ranks:
        torch.testing.assert_close(rank_banks, banks)
