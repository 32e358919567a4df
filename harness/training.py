"""One training: a method of given settings, from one seed."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from harness import backbones, methods
from harness.backbones import Backbone
from harness.data import ImageData, place, train_loader
from harness.methods import Method
from harness.settings import MethodSettings, Settings, SettingsError
from harness.views import Views


def check(settings: Settings, data: ImageData) -> None:
    """Raises ``SettingsError`` if there is no such GPU, or the images are too few or too small."""
    if settings.trainer.accelerator == "cuda" and not torch.cuda.is_available():
        raise SettingsError("trainer.accelerator is cuda, but torch sees no GPU")
    batch_size = settings.trainer.batch_size
    if batch_size > len(data.train):
        raise SettingsError(
            f"trainer.batch_size must be at most the number of training images, "
            f"{len(data.train)}, got {batch_size}"
        )
    build_backbone(settings, data, seed=settings.seed)


def build_backbone(settings: Settings, data: ImageData, *, seed: int) -> Backbone:
    """The untrained backbone of a seed: the same for every method."""
    channels, height, width = data.train.image_shape
    with _seeded(seed):
        return backbones.build(settings.backbone, in_channels=channels, image_size=(height, width))


def train(
    method: MethodSettings,
    settings: Settings,
    data: ImageData,
    *,
    seed: int,
    loggers: Sequence[Logger],
    callbacks: Sequence[Callback],
) -> Method:
    """Trains a method and returns it.

    Args:
        method: What to train.
        settings: The rest: data, backbone, trainer.
        data: The images.
        seed: Of the weights, the bank, the order of the images and their views.
        loggers: Get the loss and its parts every ``trainer.log_every`` steps.
        callbacks: As Lightning's.
    """
    backbone = build_backbone(settings, data, seed=seed)
    views = Views(settings.data.views, mean=data.mean, std=data.std, seed=seed)
    with _seeded(seed):
        module = methods.build(method, backbone, views=views, trainer=settings.trainer, seed=seed)
    with _quiet_lightning():
        trainer = pl.Trainer(
            max_epochs=settings.trainer.epochs,
            accelerator=settings.trainer.accelerator,
            devices=1,
            logger=list(loggers),
            callbacks=list(callbacks),
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        images = place(data.train, trainer.strategy.root_device, keep=settings.data.keep)
        loader = train_loader(
            images,
            batch_size=settings.trainer.batch_size,
            seed=seed,
            order=settings.data.order,
        )
        trainer.fit(module, loader)
    return module


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds the CPU's global generator, which layers draw their weights from, for a while."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keeps Lightning's notes on the machine out of the table, not its warnings on the run."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # A loader of resident images has nothing for workers to do; the other is between
            # Lightning and newer versions of torch.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
            yield
    finally:
        logger.setLevel(level)
