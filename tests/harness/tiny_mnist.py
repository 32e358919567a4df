"""MNIST's files with scikit-learn's digits in them: real images, enlarged, in a second."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits


def write_tiny_mnist(root: Path, *, train: int = 640, test: int = 100) -> None:
    """Writes below ``root`` what torchvision takes for MNIST."""
    digits = load_digits()
    images = np.rint(digits.images * (255.0 / 16.0)).astype(np.uint8)
    images = np.pad(images.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    for part, some in (("train", slice(train)), ("t10k", slice(train, train + test))):
        write_part(root, part, images[some], digits.target[some])


def write_part(root: Path, part: str, images: np.ndarray, labels: np.ndarray) -> Path:
    """Writes a part's images (N, 28, 28) uint8 and labels (N,); gives the folder."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    (raw / f"{part}-images-idx3-ubyte").write_bytes(
        struct.pack(">4i", 2051, *images.shape) + images.tobytes()
    )
    (raw / f"{part}-labels-idx1-ubyte").write_bytes(
        struct.pack(">2i", 2049, len(labels)) + labels.astype(np.uint8).tobytes()
    )
    return raw
