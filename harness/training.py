"""One training: the method, data and trainer of given settings, resumed from its folder."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from harness import backbones, methods
from harness.backbones import Backbone
from harness.checkpoints import AtomicCheckpointIO, last_checkpoint_callback, read_checkpoint
from harness.data import AnyImageSet, EpochBatches, ImageData, place, train_loader
from harness.evaluation.online_probe import OnlineProbeAccuracy
from harness.keyed_random import seeded
from harness.methods import Method
from harness.processes import be_first_process, environment, is_first_process
from harness.settings import Settings, SettingsError
from harness.tracking import CHECKPOINT, RunFolder
from harness.views import Views


def check(settings: Settings, data: ImageData) -> None:
    """Raises ``SettingsError`` if there is no such GPU, or the images are too few or too small."""
    if settings.trainer.accelerator == "cuda" and not torch.cuda.is_available():
        raise SettingsError("trainer.accelerator is cuda, but torch sees no GPU")
    if settings.trainer.accelerator == "cuda":
        there = torch.cuda.device_count()
        if settings.trainer.devices > there:
            raise SettingsError(
                f"trainer.devices is {settings.trainer.devices}, but torch sees {there} GPUs"
            )
    devices = settings.trainer.devices * settings.trainer.num_nodes
    processes = int(os.environ.get("WORLD_SIZE", devices))
    together = devices > 1 or TorchElasticEnvironment.detect()  # or each is a training of its own
    if together and processes != devices:
        raise SettingsError(
            f"{processes} processes were started: set trainer.devices (a machine) and "
            f"trainer.num_nodes to match"
        )
    batch_size = settings.trainer.batch_size
    if batch_size > len(data.train):
        raise SettingsError(
            f"trainer.batch_size must be at most the number of training images, "
            f"{len(data.train)}, got {batch_size}"
        )
    build_backbone(settings, data)


def build_backbone(settings: Settings, data: ImageData) -> Backbone:
    """The untrained backbone of the settings' seed: the same for every method."""
    channels, height, width = data.train.image_shape
    with seeded(settings.seed):
        return backbones.build(settings.backbone, in_channels=channels, image_size=(height, width))


def build(settings: Settings, data: ImageData) -> Method:
    """The untrained method of the settings and their seed."""
    if settings.method is None:
        raise SettingsError("method must be chosen (method=simclr, ...)")
    backbone = build_backbone(settings, data)
    views = Views(settings.data.views, mean=data.mean, std=data.std, seed=settings.seed)
    with seeded(settings.seed):
        return methods.build(
            settings.method,
            settings.bank,
            backbone,
            views=views,
            trainer=settings.trainer,
            num_classes=data.num_classes,
            seed=settings.seed,
        )


def load(settings: Settings, data: ImageData, folder: RunFolder) -> Method:
    """The trained method of a finished training."""
    module = build(settings, data)
    module.load_state_dict(read_checkpoint(folder.path / CHECKPOINT)["state_dict"])
    return module


def train(
    settings: Settings,
    data: ImageData,
    folder: RunFolder,
    *,
    loggers: Sequence[Logger],
    callbacks: Sequence[Callback] = (),
) -> Method:
    """Trains a method, from the folder's last checkpoint on, and returns it.

    On several devices every process calls this, and each takes its part of every batch.

    Args:
        settings: What to train; the seed is that of weights, bank, order of images and views.
        data: The images.
        folder: Where checkpoints are.
        loggers: Get the loss and its parts every ``trainer.log_every`` steps.
        callbacks: As Lightning's.
    """
    module = build(settings, data)
    if settings.trainer.compile:
        module.backbone.compile()
    probe = OnlineProbeAccuracy(data, every=settings.trainer.probe_every)
    probes = [probe] if data.is_labelled else []
    fit(
        module,
        data.train,
        settings,
        path=folder.path / CHECKPOINT,
        resume_from=folder.checkpoint,
        loggers=loggers,
        callbacks=[*callbacks, *probes],
    )
    return module


def fit(
    module: pl.LightningModule,
    images: AnyImageSet,
    settings: Settings,
    *,
    path: Path,
    resume_from: Path | None,
    epochs: int | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
) -> None:
    """Trains any module on batches of (images, labels, indices), from a checkpoint on.

    Args:
        module: What to train; it is left on the device it was trained on.
        images: The training images.
        settings: The trainer's, how images are held and ordered, and the seed of their order.
        path: Where the last epoch's checkpoint goes.
        resume_from: The checkpoint to go on from; of a finished training, all that is done is to
            load it.
        epochs: Instead of ``trainer.epochs``.
        loggers: As Lightning's.
        callbacks: As Lightning's.
    """
    asked = settings.trainer
    if is_first_process(asked):
        be_first_process()
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
            callbacks=[*callbacks, last_checkpoint_callback(path)],
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        placed = place(images, trainer.strategy.root_device, keep=settings.data.keep)
        batches = EpochBatches(
            placed.labels,
            batch_size=asked.batch_size,
            seed=settings.seed,
            order=settings.data.order,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        if resume_from:
            # Lightning tells the sampler after it has begun the first epoch of a resumed run.
            batches.set_epoch(int(read_checkpoint(resume_from)["epoch"]) + 1)
        trainer.fit(module, train_loader(placed, batches), ckpt_path=resume_from)
    module.to(trainer.strategy.root_device)  # Lightning leaves it on the CPU


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
