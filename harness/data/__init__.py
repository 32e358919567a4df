"""Images held as one uint8 tensor where they fit, and the batches taken from them."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.data.batches import EpochBatches as EpochBatches
from harness.data.batches import train_loader as train_loader
from harness.data.images import AnyImageSet as AnyImageSet
from harness.data.images import FileSet as FileSet
from harness.data.images import ImageData as ImageData
from harness.data.images import ImageSet as ImageSet
from harness.data.images import evenly_spaced as evenly_spaced
from harness.data.images import to_device as to_device
from harness.data.sources import channel_statistics, read
from harness.data.splits import held_out_size, imbalanced, split
from harness.data.splits import some_per_class as some_per_class
from harness.settings import DataSettings, SettingsError
from harness.settings.parts import NORMALIZATIONS

_COUNTED = 2000  # images of a folder whose mean and standard deviation are taken for all


def load(settings: DataSettings, *, seed: int = 0) -> ImageData:
    """Loads the images that the settings name into the host's memory, or finds their files.

    Args:
        settings: Which images.
        seed: Chooses those that ``data.imbalance`` keeps; nothing else depends on it.

    Raises:
        SettingsError: If they are missing or damaged, or an option is not for them.
    """
    try:
        train, test, name = read(settings)
    except OSError as error:  # a name too long, no permission
        raise SettingsError(
            f"data.root={settings.root} cannot be looked at: {error.strerror}"
        ) from error
    if settings.split == "validation":
        kept, held_out = split(train.labels, second=held_out_size(len(train)))
        train, test = train.select(kept), train.select(held_out)
    classes = torch.unique(torch.cat([train.labels, test.labels]))
    num_classes = len(classes)
    if int(classes[0]) != 0 or int(classes[-1]) != num_classes - 1:
        raise ValueError(
            f"labels of data={settings.name} must be 0 to K - 1, got {classes.tolist()}."
        )
    if settings.imbalance > 1.0:
        train = train.select(imbalanced(train.labels, ratio=settings.imbalance, seed=seed))
    mean, std = _normalization(settings, train)
    variant = f"{name}: {len(train)} training images, {len(test)} {settings.split} images"
    if settings.imbalance > 1.0:
        variant += f", imbalance {settings.imbalance:g}"
    if settings.order != "shuffled":
        variant += f", {settings.order.replace('_', '-')} order"
    return ImageData(train, test, num_classes, mean, std, variant)


def _normalization(settings: DataSettings, train: AnyImageSet) -> tuple[Tensor, Tensor]:
    name = settings.views.normalization
    if name == "training_images":
        if settings.name == "folder":  # the same whether its images stay in files or not
            train = train.select(evenly_spaced(len(train), _COUNTED))
        return channel_statistics(train if isinstance(train, ImageSet) else train.load())
    mean, std = map(torch.tensor, NORMALIZATIONS[name])
    channels = train.image_shape[0]
    if len(mean) not in (1, channels):
        raise SettingsError(
            f"data.views.normalization={name} is for images in colour, data={settings.name} is "
            f"grayscale"
        )
    return mean.repeat(channels // len(mean)), std.repeat(channels // len(std))
