"""One training: the method, data and trainer of given settings, resumed from its folder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from torch._dynamo.exc import TorchDynamoException

from harness import backbones
from harness.backbones import Backbone
from harness.callbacks import OnlineProbeAccuracy
from harness.checkpoints import read_checkpoint
from harness.data import ImageData
from harness.fitting import fit
from harness.keyed_random import seeded
from harness.methods.modules.base import Method
from harness.methods.modules.context import BuildContext
from harness.settings import Settings, SettingsError
from harness.tracking import CHECKPOINT, RunFolder
from harness.views import Views


def check(settings: Settings, data: ImageData) -> None:
    """Raises ``SettingsError`` if there is no such GPU, the images or an option do not fit."""
    if settings.trainer.accelerator == "cuda":
        there = torch.cuda.device_count()
        if not there:
            raise SettingsError("trainer.accelerator is cuda, but torch sees no GPU")
        if settings.trainer.devices > there:
            raise SettingsError(
                f"trainer.devices is {settings.trainer.devices}, but torch sees {there} GPUs"
            )
    batch_size = settings.trainer.batch_size
    if batch_size > len(data.train):
        raise SettingsError(
            f"trainer.batch_size must be at most the number of training images, "
            f"{len(data.train)}, got {batch_size}"
        )
    labels = settings.evaluation.labels_per_class
    if labels is not None and data.is_labelled:
        most = int(data.train.labels.bincount().max())
        if labels > most:
            raise SettingsError(
                f"evaluation.labels_per_class must be at most the images of a class, {most}, got "
                f"{labels}: null takes all"
            )
    if settings.method is None:
        build_backbone(settings, data)
    else:
        build(settings, data)


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
        try:
            method = settings.method.build(
                BuildContext(backbone, settings.bank, views, settings.trainer, settings.seed)
            )
        except ValueError as error:  # of a loss or a head, whose arguments the options are
            told = " ".join(str(error).split())
            raise SettingsError(f"method={settings.method.name}: {told}") from error
        method.add_online_probe(data.num_classes)
    return method


def load(data: ImageData, folder: RunFolder) -> Method:
    """The trained method of a finished training."""
    module = build(folder.settings, data)
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
    try:
        fit(
            module,
            data.train,
            settings,
            path=folder.path / CHECKPOINT,
            resume=folder.checkpoint is not None,
            loggers=loggers,
            callbacks=[*probes, *callbacks],
        )
    except TorchDynamoException as error:
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise SettingsError(
            f"trainer.compile=true, but torch cannot compile the backbone here ({told}): it needs "
            f"a C++ compiler (and on a GPU Triton)"
        ) from error
    return module
