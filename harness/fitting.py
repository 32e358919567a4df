"""Any module trained on images, from its last checkpoint on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import Logger

from harness.checkpoints import AtomicCheckpointIO, read_checkpoint
from harness.data import AnyImageSet, EpochBatches, to_device, train_loader
from harness.processes import be_first_process, environment, is_first_process
from harness.settings import Settings


def fit(
    module: pl.LightningModule,
    images: AnyImageSet,
    settings: Settings,
    *,
    path: Path,
    resume: bool = True,
    epochs: int | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
) -> None:
    """Trains any module on batches of (images, labels, indices), from a checkpoint on.

    Args:
        module: What to train; it is left on the device it was trained on.
        images: The training images.
        settings: The trainer's, how images are held and ordered, and the seed of their order.
        path: Where the last epoch's checkpoint goes. One that is there is gone on from; of a
            finished training, all that is done is to load it.
        resume: False starts anew all the same.
        epochs: Instead of ``trainer.epochs``.
        loggers: As Lightning's.
        callbacks: As Lightning's.
    """
    asked = settings.trainer
    if is_first_process(asked):
        be_first_process()
    checkpoint = path if resume and path.exists() else None
    last = ModelCheckpoint(
        path.parent, path.stem, save_on_train_epoch_end=True, enable_version_counter=False
    )
    with _quiet_lightning(), torch.random.fork_rng():
        trainer = pl.Trainer(
            max_epochs=asked.epochs if epochs is None else epochs,
            accelerator=asked.accelerator,
            devices=asked.devices,
            num_nodes=asked.num_nodes,
            precision=asked.precision,  # type: ignore[arg-type]  # a word that settings checked
            sync_batchnorm=asked.accelerator == "cuda",
            plugins=[AtomicCheckpointIO(), environment(asked)],
            logger=list(loggers),
            callbacks=[*callbacks, last],
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        placed = to_device(images, trainer.strategy.root_device, keep=settings.data.keep)
        batches = EpochBatches(
            placed.labels,
            batch_size=asked.batch_size,
            seed=settings.seed,
            order=settings.data.order,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        if checkpoint:
            # Lightning tells the sampler after it has begun the first epoch of a resumed run.
            batches.set_epoch(int(read_checkpoint(checkpoint)["epoch"]) + 1)
        trainer.fit(module, train_loader(placed, batches), ckpt_path=checkpoint)
    module.to(trainer.strategy.root_device)  # Lightning leaves it on the CPU


def with_cosine(
    optimizer: torch.optim.Optimizer, trainer: pl.Trainer
) -> tuple[list[Any], list[Any]]:
    """What ``configure_optimizers`` is to return for a cosine schedule by steps."""
    steps = int(trainer.estimated_stepping_batches)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keeps Lightning's notes on the machine out of the table, not its warnings on the run."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # A loader of resident images has nothing for workers to do; the next two are between
            # Lightning and newer versions of torch; the last is what a resume is.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
            warnings.filterwarnings("ignore", message=".*all_gather is deprecated.*")
            warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
            yield
    finally:
        logger.setLevel(level)
