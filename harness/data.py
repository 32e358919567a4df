"""Images held as one uint8 tensor, and the batches taken from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from harness.settings import DataSettings

_SPLIT_SEED = 0  # one split for every run: seeds vary the training, not the test images
_TEST_SHARE = 0.25
_VALIDATION_SHARE = 0.2


class ImageSet(Dataset[tuple[Tensor, Tensor]]):
    """Images and labels resident on a device, indexed by a whole batch at once.

    Attributes:
        images: uint8, shape (N, C, H, W).
        labels: int64, shape (N,).
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(
        self,
        indices: Tensor,  # shape: (B,)
    ) -> tuple[Tensor, Tensor]:
        """The images at ``indices`` and ``indices`` themselves, which the views are keyed by."""
        return self.images[indices.to(self.images.device)], indices

    def to(self, device: torch.device) -> ImageSet:
        """A copy on another device."""
        return ImageSet(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class ImageData:
    """A training and an evaluation set.

    Attributes:
        train: What the encoders learn from and the classifiers fit to.
        test: What accuracies are measured on.
        num_classes: Number of classes.
        mean: Mean of each channel of the training images in [0, 1], shape (C,).
        std: Standard deviation of each channel, shape (C,).
        variant: Which images these are, for the record.
    """

    train: ImageSet
    test: ImageSet
    num_classes: int
    mean: Tensor
    std: Tensor
    variant: str


class EpochBatches(Sampler[Tensor]):
    """Batches of shuffled indices; the order is a function of (seed, epoch) alone.

    The images left over at the end of an epoch's order wait for the next. Lightning calls
    ``set_epoch`` before each epoch.
    """

    def __init__(self, num_images: int, *, batch_size: int, seed: int) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_images // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 2**31 + self.epoch)
        order = torch.randperm(self.num_images, generator=generator)
        return iter(torch.split(order, self.batch_size)[: len(self)])


def train_loader(
    train: ImageSet, *, batch_size: int, seed: int
) -> DataLoader[tuple[Tensor, Tensor]]:
    """A loader of (images (B, C, H, W) uint8, indices (B,)) for Lightning."""
    batches = EpochBatches(len(train), batch_size=batch_size, seed=seed)
    # With a generator of its own, as a loader draws a seed for workers even where it has none.
    return DataLoader(train, sampler=batches, batch_size=None, generator=torch.Generator())


def load(settings: DataSettings) -> ImageData:
    """Loads the images that the settings name."""
    digits = load_digits()
    images = np.rint(digits.images * (255.0 / 16.0)).astype(np.uint8)[:, None]
    train, test = _split(images, digits.target, share=_TEST_SHARE)
    if settings.split == "validation":
        train, test = _split(*train, share=_VALIDATION_SHARE)
    pixels = train[0] / 255.0
    return ImageData(
        train=_image_set(*train),
        test=_image_set(*test),
        num_classes=10,
        mean=torch.tensor(pixels.mean(axis=(0, 2, 3)), dtype=torch.float32),
        std=torch.tensor(pixels.std(axis=(0, 2, 3)), dtype=torch.float32),
        variant=(
            f"digits of scikit-learn, 8 x 8 pixels: {len(train[0])} training images, "
            f"{len(test[0])} {settings.split} images"
        ),
    )


_Arrays = tuple[np.ndarray, np.ndarray]


def _split(images: np.ndarray, labels: np.ndarray, *, share: float) -> tuple[_Arrays, _Arrays]:
    first_images, second_images, first_labels, second_labels = train_test_split(
        images, labels, test_size=share, stratify=labels, random_state=_SPLIT_SEED
    )
    return (first_images, first_labels), (second_images, second_labels)


def _image_set(images: np.ndarray, labels: np.ndarray) -> ImageSet:
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels).long())
