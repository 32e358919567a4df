"""Sets of labelled images, indexed by a whole batch at once: resident, or in their files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

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


class ImageSet(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Images and labels resident on a device.

    Attributes:
        images: uint8, shape (N, C, H, W).
        labels: int64, shape (N,).
    """

    workers = 0  # a loader of resident images has nothing for processes to do

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(
        self,
        indices: Tensor,  # shape: (B,)
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Images and labels at ``indices``, and ``indices``, which the views are keyed by."""
        places = indices.to(self.images.device)
        return self.images[places], self.labels[places], indices

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


class FileSet(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Images that are read from their files each time, as RGB squares.

    Attributes:
        paths: The files.
        labels: int64, shape (N,).
        image_size: Pixels a side; see :func:`read_image`.
        workers: Processes that read ahead.
    """

    def __init__(
        self, paths: Sequence[Path], labels: Tensor, *, image_size: int, workers: int
    ) -> None:
        self.paths = np.array([str(path) for path in paths])  # workers share it, not copy it
        self.labels = labels
        self.image_size = image_size
        self.workers = workers

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
        """Images and labels at ``indices``, and ``indices``, which the views are keyed by."""
        read = [read_image(Path(path), self.image_size) for path in self.paths[indices.numpy()]]
        return torch.from_numpy(np.stack(read)), self.labels[indices], indices

    def batches(self, size: int) -> Iterator[Tensor]:  # shapes: (B, 3, S, S)
        """All images in order, ``size`` at a time."""
        order = torch.split(torch.arange(len(self)), size)
        loader = DataLoader(
            self,
            sampler=order,
            batch_size=None,
            num_workers=self.workers,
            generator=torch.Generator(),
        )
        return (images for images, _, _ in loader)

    def select(
        self,
        indices: Tensor,  # shape: (M,)
    ) -> FileSet:
        """The set of some of the images."""
        return FileSet(
            [Path(path) for path in self.paths[indices.numpy()]],
            self.labels[indices],
            image_size=self.image_size,
            workers=self.workers,
        )

    def load(self) -> ImageSet:
        """Reads all images into memory."""
        images = np.empty((len(self), 3, self.image_size, self.image_size), dtype=np.uint8)

        def put(place: int) -> None:
            images[place] = read_image(Path(self.paths[place]), self.image_size)

        with ThreadPoolExecutor() as pool:  # PIL decodes without Python's lock
            for _ in pool.map(put, range(len(self))):
                pass
        return ImageSet(torch.from_numpy(images), self.labels)


AnyImageSet = ImageSet | FileSet


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


def read_image(path: Path, size: int) -> Pixels:  # shape: (3, size, size)
    """A file as a uint8 RGB square: the shorter side resized to ``size``, the centre cut out.

    Raises:
        SettingsError: If the file is no image, or one whose values have no known range.
    """
    try:
        with Image.open(path) as opened:
            image = _square(_eight_bits(opened).convert("RGB"), size)
    except Exception as error:  # PIL's decoders raise whatever they run into in a damaged file
        raise unreadable(path, error) from error
    return np.asarray(image).transpose(2, 0, 1)


def unreadable(path: Path, error: Exception) -> SettingsError:
    """What to say of a file that cannot be read."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return SettingsError(
        f"{path} cannot be read as an image ({reason}): restore, convert or remove it"
    )


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image in 8 bits a channel, as PIL itself clips grey of more bits instead of scaling it.

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
    """How many bits the values of a grey image of more than 8 take, None where that is not told."""
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


def spread(number: int, most: int) -> Tensor:  # shape: (min(number, most),)
    """Places, evenly spaced, of at most ``most`` of a number of things in any order."""
    return torch.linspace(0, number - 1, min(number, most)).long()


def place(images: AnyImageSet, device: torch.device, *, keep: str) -> AnyImageSet:
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
