"""Folders of images, one subfolder a class, and the decoded copy kept beside them."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL
import torch
from torchvision.datasets import ImageFolder

from harness.data.images import FileSet, ImageSet, Pixels, unreadable
from harness.files import replacing
from harness.settings import SettingsError

_DIGEST_SIZE = hashlib.sha256().digest_size
_READING = 2  # goes up whenever ``read_image`` comes to give other pixels for a file


def find_files(folder: Path, *, image_size: int, workers: int) -> tuple[FileSet, Sequence[str]]:
    """The images below ``folder``/CLASS and the names of the classes, both sorted by name.

    Raises:
        SettingsError: If there is no such folder, or a class in it is empty or cannot be reached.
    """
    try:
        found = ImageFolder(str(folder))
        for entry in folder.iterdir():
            entry.stat()  # ImageFolder passes over a class that is a link to nowhere
    except OSError as error:  # torchvision's for no classes and for an empty one, too
        raise SettingsError(
            f"{folder} must hold one subfolder of images for each class: {error}"
        ) from error
    paths = np.array([path for path, _ in found.samples])
    labels = torch.tensor(found.targets)
    return FileSet(paths, labels, image_size=image_size, workers=workers), found.classes


def load_cached(files: FileSet, folder: Path) -> ImageSet:
    """Reads all images of a folder, from a decoded copy beside it where that is whole and current.

    The copy, ``.<folder>-<size>px.uint8``, holds a SHA-256 digest and the pixels. The digest covers
    the pixels and the names, sizes and times of the files, so that neither a changed folder nor a
    damaged copy is taken for whole. Where it cannot be written (read-only, full disk), the images
    are decoded each time.
    """
    cache = folder.parent / f".{folder.name}-{files.image_size}px.uint8"
    fingerprint = _fingerprint(files, folder)
    shape = (len(files), 3, files.image_size, files.image_size)
    with suppress(OSError):
        whole = np.fromfile(cache, dtype=np.uint8)
        digest, pixels = whole[:_DIGEST_SIZE].tobytes(), whole[_DIGEST_SIZE:]
        if pixels.size == math.prod(shape) and digest == _digest(fingerprint, pixels):
            return ImageSet(torch.from_numpy(pixels.reshape(shape)), files.labels)
    loaded = files.load()
    pixels = loaded.images.numpy()
    with suppress(OSError), replacing(cache) as unfinished, unfinished.open("wb") as file:
        file.write(_digest(fingerprint, pixels))
        file.write(pixels.data)
    return loaded


def _fingerprint(files: FileSet, folder: Path) -> bytes:
    """What the pixels depend on: the files, the size and the decoder."""
    digest = hashlib.sha256(f"{files.image_size} {PIL.__version__} {_READING}".encode())
    for name in files.paths:
        path = Path(name)
        try:
            state = path.stat()
        except OSError as error:  # a link to nowhere
            raise unreadable(path, error) from error
        digest.update(os.fsencode(path.relative_to(folder)))  # not all names are UTF-8
        digest.update(f" {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.digest()


def _digest(fingerprint: bytes, pixels: Pixels) -> bytes:
    digest = hashlib.sha256(fingerprint)
    digest.update(pixels.data)
    return digest.digest()
