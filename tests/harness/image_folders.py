"""Folders of random images in torchvision's ImageFolder layout."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness import data
from harness.settings import DataSettings, SettingsError


def write_images(folder: Path, *, classes: list[str], each: int, size: tuple[int, int]) -> None:
    generator = np.random.default_rng(zlib.crc32(folder.name.encode()))
    for name in classes:
        (folder / name).mkdir(parents=True)
        for n in range(each):
            pixels = generator.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{n:04d}.png")


def image_folder(root: Path, *, test: str = "test", size: tuple[int, int] = (16, 16)) -> Path:
    write_images(root / "train", classes=["cat", "dog"], each=6, size=size)
    write_images(root / test, classes=["cat", "dog"], each=3, size=size)
    return root


def folder_settings(root: Path, **options: object) -> DataSettings:
    return DataSettings(**{"name": "folder", "root": str(root), "image_size": 16, **options})


def refusal(settings: DataSettings) -> str:
    with pytest.raises(SettingsError) as caught:
        data.load(settings)
    message = str(caught.value)
    assert "\n" not in message
    return message
