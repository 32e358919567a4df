"""Sets of labelled images, indexed by a whole batch at once: resident, or in their files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.settings import SettingsError

Pixels = npt.NDArray[np.uint8]

_SHARE_OF_DEVICE = 0.5
_BLACK_IS_ZERO = 1  # of TIFF's photometric interpretations


@dataclass(eq=False)
class ImageSet(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Images and labels resident on a device.

    Attributes:
        images: uint8, shape (N, C, H, W).
        labels: int64, shape (N,).
    """

    images: Tensor
    labels: Tensor
    workers = 0  # a loader of resident images has nothing for processes to do

    def __post_init__(self) -> None:
        """Raises ``ValueError`` for what a reader of a new data set may get wrong."""
        images, labels = self.images, self.labels
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise ValueError(
                f"images must be uint8 of shape (N, C, H, W), got {images.dtype} of shape "
                f"{tuple(images.shape)}."
            )
        if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
            raise ValueError(
                f"labels must be int64 of shape ({len(images)},), got {labels.dtype} of shape "
                f"{tuple(labels.shape)}."
            )

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(
        self,
        indices: Tensor,  # shape: (B,)
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Images and labels at ``indices``, and ``indices``, which the views are keyed by.

        Of N images, index + r N is the same one, of which there are other views.
        """
        here = (indices % len(self)).to(self.images.device)
        return self.images[here], self.labels[here], indices

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def batches(self, size: int) -> Iterator[Tensor]:  # shapes: (B, C, H, W)
        """All images in order, ``size`` at a time."""
        return iter(torch.split(self.images, size))

    def select(
        self,
        indices: Tensor,  # shape: (M,)
    ) -> ImageSet:
        """The set of some of the images."""
        return ImageSet(self.images[indices], self.labels[indices])

    def to(self, device: torch.device) -> ImageSet:
        """A copy on another device."""
        return ImageSet(self.images.to(device), self.labels.to(device))


@dataclass(eq=False)
class FileSet(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Images that are read from their files each time, as RGB squares.

    Attributes:
        paths: The files, as an array, which workers share and do not copy.
        labels: int64, shape (N,).
        image_size: Pixels a side; see :func:`read_image`.
        workers: Processes that read ahead.
    """

    paths: npt.NDArray[np.str_]
    labels: Tensor
    image_size: int
    workers: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return 3, self.image_size, self.image_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(
        self,
        indices: Tensor,  # shape: (B,)
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As that of :class:`ImageSet`."""
        here = indices % len(self)
        read = [read_image(self.paths[index], self.image_size) for index in here]
        return torch.from_numpy(np.stack(read)), self.labels[here], indices

    def batches(self, size: int) -> Iterator[Tensor]:  # shapes: (B, 3, S, S)
        """All images in order, ``size`` at a time."""
        order = torch.split(torch.arange(len(self)), size)
        return (images for images, _, _ in loader(self, order))

    def select(
        self,
        indices: Tensor,  # shape: (M,)
    ) -> FileSet:
        """The set of some of the images."""
        return replace(self, paths=self.paths[indices.numpy()], labels=self.labels[indices])

    def load(self) -> ImageSet:
        """Reads all images into memory."""
        images = np.empty((len(self), *self.image_shape), dtype=np.uint8)
        with ThreadPoolExecutor() as pool:  # PIL decodes without Python's lock
            read = pool.map(partial(read_image, size=self.image_size), self.paths)
            for index, pixels in enumerate(read):
                images[index] = pixels
        return ImageSet(torch.from_numpy(images), self.labels)


AnyImageSet = ImageSet | FileSet


def loader(
    images: AnyImageSet, batches: Iterable[Tensor], **options: Any
) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
    """Loads batches of indices; ``options`` are the DataLoader's."""
    return DataLoader(
        images,
        sampler=batches,
        batch_size=None,
        num_workers=images.workers,
        # Of its own, as a loader draws a seed for workers even where it has none.
        generator=torch.Generator(),
        **options,
    )


@dataclass(frozen=True)
class ImageData:
    """A training and an evaluation set.

    Attributes:
        train: What the encoders learn from and the classifiers fit to.
        test: What accuracies are measured on.
        num_classes: Number of classes.
        mean: What to subtract from each channel in [0, 1], shape (C,).
        std: What to divide each channel by, shape (C,).
        variant: Which images these are, for the record.
    """

    train: AnyImageSet
    test: AnyImageSet
    num_classes: int
    mean: Tensor
    std: Tensor
    variant: str

    @property
    def is_labelled(self) -> bool:
        """Whether there are classes to tell apart."""
        return self.num_classes > 1


def read_image(path: str | Path, size: int) -> Pixels:  # shape: (3, size, size)
    """A file as a uint8 RGB square: the shorter side resized to ``size``, the centre cut out.

    Raises:
        SettingsError: If the file is no image, or one whose values have no known range.
    """
    try:
        with Image.open(str(path)) as opened:  # not NumPy's string, which the error would show
            image = _square(_eight_bits(opened).convert("RGB"), size)
    except Exception as error:  # PIL's decoders raise whatever they run into in a damaged file
        raise unreadable(path, error) from error
    return np.asarray(image).transpose(2, 0, 1)


def unreadable(path: str | Path, error: Exception) -> SettingsError:
    """What to say of a file that cannot be read."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return SettingsError(
        f"{path} cannot be read as an image ({reason}): restore, convert or remove it"
    )


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image in 8 bits a channel; PIL itself clips grayscale of more bits, unscaled.

    Raises:
        ValueError: If its values have no known range.
    """
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    bits = _bits(image)
    if bits is None:
        raise ValueError(
            f"{image.format} of mode {image.mode} has no known range to scale to 8 bits"
        )
    return Image.fromarray((np.asarray(image) >> (bits - 8)).astype(np.uint8))


def _bits(image: Image.Image) -> int | None:
    """Bits of the values of a grayscale image of more than 8, None where that is not told."""
    if image.format in ("PNG", "PPM") and image.mode != "F":
        return 16  # whatever mode PIL's version has for it; PPM's are scaled to it
    # PIL does not invert those in which white is 0.
    if (
        isinstance(image, TiffImageFile)
        and image.mode.startswith("I;16")
        and image.tag_v2[PHOTOMETRIC_INTERPRETATION] == _BLACK_IS_ZERO
    ):
        return int(image.tag_v2[BITSPERSAMPLE][0])
    return None


def _square(image: Image.Image, size: int) -> Image.Image:
    if image.size == (size, size):
        return image
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def evenly_spaced(number: int, most: int) -> Tensor:  # shape: (min(number, most),)
    """Indices, evenly spaced, of at most ``most`` of a number of things in any order."""
    return torch.linspace(0, number - 1, min(number, most)).long()


def to_device(images: AnyImageSet, device: torch.device, *, keep: str) -> AnyImageSet:
    """Moves resident images to the device they are trained on, if they may and fit.

    Left in the host's memory or in files, they are gathered and sent batch by batch.

    Args:
        images: The images.
        device: Where the network is.
        keep: "device"; "auto" for there if they take at most half of its free memory; anything
            else for where they are.
    """
    if isinstance(images, FileSet) or keep not in ("auto", "device"):
        return images
    if keep == "auto" and device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if images.images.nbytes > _SHARE_OF_DEVICE * free:
            return images
    return images.to(device)
