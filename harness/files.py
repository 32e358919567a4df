"""Files that are whole or not there, whenever a process is killed or a disk is full."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNFINISHED = ".tmp"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside ``path`` to write to, which takes its place at the block's end."""
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a file, whole or not at all."""
    with replacing(path) as unfinished:
        unfinished.write_text(text)


def read_json(path: Path) -> Any:
    """What a JSON file holds; None if there is none, or it is cut off as by a power cut."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def write_figures(folder: Path, figures: Mapping[str, Figure], *, dpi: int) -> None:
    """Writes figures as <name>.png, each whole or not at all, into a folder made if need be."""
    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        with replacing(folder / f"{name}.png") as unfinished:
            figure.savefig(unfinished, dpi=dpi, format="png")


def write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Puts files into a folder, made if need be, once all of them are whole.

    Args:
        folder: Where to.
        files: Contents by paths below the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".") as unfinished:
        for name, content in files.items():
            path = Path(unfinished, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            (folder / name).parent.mkdir(exist_ok=True)
        for name in files:
            os.replace(Path(unfinished, name), folder / name)
