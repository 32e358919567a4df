"""The training loops that ``bench step`` compares: each makes steps until it is told to stop.

What is lightly's follows ``docs/source/getting_started/benchmarks/cifar10_benchmark.py`` of its
repository: ``SimCLRTransform`` for 32 pixels without blur, a ``LightlyDataset`` and a shuffled
``DataLoader`` whose workers make the views from PIL images. All that differs is in its favour or
the same for both sides:

- The pictures are random bytes in memory, as torchvision's ``CIFAR10`` holds them; the script reads
  a PNG for each.
- Network, head, loss, optimiser and online probe are those of our method and backbone; the script
  has ``ResNetGenerator("resnet-18")``, no probe, and a kNN evaluation after each epoch.
- The loop is the plain one that our step is measured in too; the script runs in Lightning's
  Trainer, with a progress bar and a logger.
- As many workers as there are cores, not 8; batches of our size, not 128.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightly.data import LightlyDataset
from lightly.transforms import SimCLRTransform
from PIL import Image
from pytorch_lightning.callbacks import LambdaCallback
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness import training
from harness.bench import now
from harness.data import EpochBatches, ImageData, ImageSet, to_device, train_loader
from harness.settings import Settings
from harness.tracking import RunFolder
from harness.views import Views

NUM_IMAGES = 50_000  # of CIFAR-10
FOREVER = 10**6  # steps or epochs; none of these trainings ends by itself
_SHAPE = (3, 32, 32)
_NUM_CLASSES = 10

Batch = tuple[Any, Tensor, Any]  # (images or views, labels (B,), indices (B,))


# Makes steps until the function given to it, called after each, says that it was the last.
Loop = Callable[[Callable[[], bool]], None]


def seconds_a_step(loop: Loop, *, warmup: int, steps: int) -> float:
    """What a step of a loop takes on average.

    Asynchronous devices are waited for at the two ends only, as training does not wait either.

    Args:
        loop: Makes the steps.
        warmup: Steps that do not count, at least 1.
        steps: Steps that do.
    """
    made, ends = 0, []

    def step_made() -> bool:
        nonlocal made
        made += 1
        if made in (warmup, warmup + steps):
            ends.append(now())
        return made == warmup + steps

    loop(step_made)
    return (ends[1] - ends[0]) / steps


def random_images() -> ImageData:
    """Random bytes in the shape of CIFAR-10."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (NUM_IMAGES, *_SHAPE), dtype=torch.uint8, generator=generator)
    train = ImageSet(images, torch.arange(NUM_IMAGES) % _NUM_CLASSES)
    half = torch.full((_SHAPE[0],), 0.5)
    few = train.select(torch.arange(_NUM_CLASSES))
    return ImageData(train, few, _NUM_CLASSES, mean=half, std=half, variant="random bytes")


def whole_step(settings: Settings, data: ImageData) -> Loop:
    """Our training step without Lightning: a batch gathered from resident images, two views, ..."""
    return _loop(settings, data, partial(_resident_batches, settings, data))


def resident_step(settings: Settings, data: ImageData) -> Loop:
    """The same step on one batch whose views are made already."""
    pixels, labels, indices = next(_resident_batches(settings, data))
    views = Views(settings.data.views, mean=data.mean, std=data.std, seed=settings.seed)
    batch = (views(pixels, indices, epoch=0), labels, indices)
    return _loop(settings, data, partial(itertools.repeat, batch), of_views=True)


def lightly_step(settings: Settings, data: ImageData, *, workers: int) -> Loop:
    """The same step on lightly's batches, whose views workers make from PIL images."""
    pictures = LightlyDataset.from_torch_dataset(
        _Pictures(data.train),
        transform=SimCLRTransform(input_size=_SHAPE[-1], cj_strength=0.5, gaussian_blur=0.0),
    )
    loader = DataLoader(
        pictures,
        batch_size=settings.trainer.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        generator=torch.Generator(),
    )

    def batches() -> Iterator[Batch]:
        device = _device(settings)
        while True:
            for (first, second), labels, names in loader:
                yield (first.to(device), second.to(device)), labels.to(device), names

    return _loop(settings, data, batches, of_views=True)


def trainer_step(settings: Settings, data: ImageData) -> Loop:
    """Our step as ``harness.training`` makes it, in Lightning's Trainer, without loggers."""

    def run(step_made: Callable[[], bool]) -> None:
        def stop(trainer: pl.Trainer, *_: Any) -> None:
            trainer.should_stop = step_made()

        with tempfile.TemporaryDirectory() as folder:
            callbacks = [LambdaCallback(on_train_batch_end=stop)]
            run_folder = RunFolder(Path(folder), settings)
            training.train(settings, data, run_folder, loggers=[], callbacks=callbacks)

    return run


def _loop(
    settings: Settings,
    data: ImageData,
    batches: Callable[[], Iterator[Batch]],
    *,
    of_views: bool = False,
) -> Loop:
    """The steps of a new method: views, forward, backward, optimiser, schedule, online probe.

    Args:
        settings: What is trained.
        data: The images.
        batches: Makes batches without end, anew for each round.
        of_views: Whether they hold two views already.
    """
    device = _device(settings)
    module: Any = training.build(settings, data).to(device)
    if settings.trainer.compile:
        module.backbone.compile()
    if of_views:
        module.views = lambda views, indices, **_: views  # noqa: ARG005
    # What a method asks of Lightning's Trainer, in the middle of an epoch, at no step that is
    # logged.
    module.trainer = SimpleNamespace(
        estimated_stepping_batches=FOREVER, current_epoch=0, global_step=1, world_size=1
    )
    [optimizer], [schedule] = module.configure_optimizers()
    mixed = settings.trainer.precision == "bf16-mixed"

    def run(step_made: Callable[[], bool]) -> None:
        for batch in batches():
            with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
                loss = module.training_step(batch, 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule["scheduler"].step()
            if step_made():
                return

    return run


def _device(settings: Settings) -> torch.device:
    return torch.device(settings.trainer.accelerator)


def _resident_batches(settings: Settings, data: ImageData) -> Iterator[Batch]:
    images = to_device(data.train, _device(settings), keep=settings.data.keep)
    batch_size = settings.trainer.batch_size
    batches = EpochBatches(images.labels, batch_size=batch_size, seed=settings.seed)
    loader = train_loader(images, batches)
    for epoch in itertools.count():
        batches.set_epoch(epoch)
        yield from loader


class _Pictures(Dataset[tuple[Any, int]]):
    """Pictures as torchvision's CIFAR10 holds and gives them."""

    def __init__(self, images: Any) -> None:
        self.data = np.ascontiguousarray(images.images.permute(0, 2, 3, 1).numpy())
        self.targets = images.labels.tolist()
        self.transform: Callable[[Image.Image], Any]  # LightlyDataset sets it

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]
