"""Where images come from: one function a kind, each giving a training and a test set."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F
from torchvision.datasets import CIFAR10, MNIST

from harness.data.folders import find_files, load_cached
from harness.data.images import AnyImageSet, FileSet, ImageSet
from harness.data.splits import split
from harness.settings import DataSettings, SettingsError

_DIGITS_TEST_SHARE = 0.25
_MNIST_PADDING = 2  # 28 x 28 to 32 x 32 [P]
_CIFAR10_SIZE = 32
_CIFAR10_COUNTS = {"train": 50_000, "test": 10_000}
_CIFAR10_CLASSES = 10
_SHARE_OF_MEMORY = 0.5
Sets = tuple[AnyImageSet, AnyImageSet, str]  # to train on, to test on, and their name in results


def read(settings: DataSettings) -> Sets:
    """The images that the settings name.

    Raises:
        SettingsError: If they are missing or damaged, or an option is not for them.
    """
    if settings.name != "folder" and settings.keep == "files":
        raise SettingsError(f"data.keep=files is for data=folder, not {settings.name}")
    if settings.name != "folder" and settings.image_size is not None:
        raise SettingsError(f"data.image_size is for data=folder, not {settings.name}")
    if settings.name not in READERS:  # configs/data has a file of that name
        raise SettingsError(f"data.name must be one of {', '.join(READERS)}, got {settings.name}")
    return READERS[settings.name](settings)


def _digits(settings: DataSettings) -> Sets:  # noqa: ARG001
    digits = load_digits()
    images = torch.from_numpy(np.rint(digits.images * (255.0 / 16.0)).astype(np.uint8))[:, None]
    everything = ImageSet(images, torch.from_numpy(digits.target).long())
    test_size = math.ceil(len(everything) * _DIGITS_TEST_SHARE)
    first, second = split(everything.labels, second=test_size)
    name = "digits of scikit-learn, 8 x 8 pixels"
    return everything.select(first), everything.select(second), name


def _cifar10(settings: DataSettings) -> Sets:
    root = Path(settings.root)
    if (root / "cifar10_jpeg").is_dir() and not (root / CIFAR10.base_folder).is_dir():
        return _cifar10_jpeg(root / "cifar10_jpeg")
    train, test = (
        ImageSet(
            torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets)
        )
        for part in _torchvision(CIFAR10, root, "cifar-10-batches-py or cifar10_jpeg")
    )
    return train, test, "CIFAR-10"


def _cifar10_jpeg(folder: Path) -> Sets:
    parts = []
    for part, count in _CIFAR10_COUNTS.items():
        files, classes = find_files(folder / part, image_size=_CIFAR10_SIZE, workers=0)
        if (len(files), len(classes)) != (count, _CIFAR10_CLASSES):
            raise SettingsError(
                f"{folder / part} must hold {count} images in {_CIFAR10_CLASSES} classes, found "
                f"{len(files)} in {len(classes)}: unpack it again"
            )
        parts.append(load_cached(files, folder / part))
    train, test = parts
    return train, test, "CIFAR-10 (JPEG)"


def _mnist(settings: DataSettings) -> Sets:
    parts = _torchvision(MNIST, Path(settings.root), "MNIST/raw")
    for part in parts:
        if len(part.data) != len(part.targets):
            raise SettingsError(
                f"{part.raw_folder} is damaged: {len(part.data)} images but {len(part.targets)} "
                f"labels; remove it to download MNIST again, or restore it"
            )
    train, test = (
        ImageSet(F.pad(part.data[:, None], (_MNIST_PADDING,) * 4), part.targets) for part in parts
    )
    return train, test, "MNIST, padded to 32 x 32 pixels"


def _torchvision(kind: Any, root: Path, layout: str) -> list[Any]:
    """The training and test set as torchvision reads them, downloaded if they are not there."""
    try:
        with _no_empty_folders(root / "MNIST" / "raw"):
            return [kind(str(root), train=train, download=True) for train in (True, False)]
    # torchvision reads MNIST's files without a check, and with whatever then goes wrong.
    except (OSError, RuntimeError, ValueError, AssertionError, LookupError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SettingsError(
            f"data.root={root} holds no whole {layout} and a download failed ({reason}): "
            f"set data.root to the folder that holds it; if it is damaged, remove it"
        ) from error


@contextmanager
def _no_empty_folders(folder: Path) -> Iterator[None]:
    """Removes a folder and parents of it that are made meanwhile, unless something is in them."""
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    try:
        yield
    finally:
        for part in missing:  # the innermost first
            with suppress(OSError):  # not made, or not empty
                part.rmdir()


def _folder(settings: DataSettings) -> Sets:
    if settings.image_size is None:
        raise SettingsError("data.image_size must be given with data=folder")
    root = Path(settings.root)
    evaluated = next((name for name in ("test", "val") if (root / name).is_dir()), None)
    if not (root / "train").is_dir() or evaluated is None:
        raise SettingsError(
            f"data.root={root} must be a folder that holds train/CLASS/IMAGE and test/CLASS/IMAGE "
            f"(or val/CLASS/IMAGE)"
        )
    parts = [
        find_files(root / name, image_size=settings.image_size, workers=settings.workers)
        for name in ("train", evaluated)
    ]
    (train, classes), (test, test_classes) = parts
    if list(classes) != list(test_classes):
        odd = sorted(set(classes) ^ set(test_classes))
        raise SettingsError(
            f"{root}/train and {root}/{evaluated} must have the same classes; in one only: "
            f"{', '.join(odd[:5])}"
        )
    name = f"{root.resolve().name}, {settings.image_size} x {settings.image_size} pixels"
    if settings.keep == "files" or (settings.keep == "auto" and not _fit_memory(train, test)):
        return train, test, name
    return load_cached(train, root / "train"), load_cached(test, root / evaluated), name


READERS: dict[str, Callable[[DataSettings], Sets]] = {
    "digits": _digits,
    "cifar10": _cifar10,
    "mnist": _mnist,
    "folder": _folder,
}


def _fit_memory(*sets: FileSet) -> bool:
    """Whether decoded images take at most half of the machine's memory."""
    if not hasattr(os, "sysconf"):  # Windows
        return True
    size = sum(3 * len(images) * images.image_size**2 for images in sets)
    return size <= _SHARE_OF_MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def channel_statistics(images: ImageSet) -> tuple[Tensor, Tensor]:  # shapes: (C,), (C,)
    """Mean and standard deviation of each channel in [0, 1]."""
    values = torch.arange(256, dtype=torch.float64) / 255.0
    counts = [channel.flatten().bincount(minlength=256) for channel in images.images.unbind(dim=1)]
    shares = torch.stack(counts).double() / images.images[:, 0].numel()
    mean = shares @ values
    deviation = (shares @ values.square() - mean.square()).clamp_min(0.0).sqrt()
    return mean.float(), deviation.float()
