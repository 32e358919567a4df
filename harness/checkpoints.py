"""Checkpoints that are whole or not there."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from harness.files import replacing
from harness.settings import SettingsError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the last checkpoint and then takes its place, so that a kill leaves one.

    Lightning's own writes to the system's folder for temporary files, which may be another disk,
    from which nothing moves in one step, and where a kill leaves a copy.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,  # noqa: ARG002
    ) -> None:
        """Writes a checkpoint.

        Raises:
            OSError: If it cannot be written; the one before stays.
        """
        write_tensors(Path(path), checkpoint)


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """Writes what ``torch.load`` reads, whole or not at all, into a folder made if need be.

    Raises:
        OSError: If it cannot be written; the one before stays.
    """
    written = io.BytesIO()  # torch hides what goes wrong with a file
    torch.save(content, written)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        file.write(written.getbuffer())
        file.flush()
        _sync(file.fileno())


def _sync(descriptor: int) -> None:
    """Waits until a file is on the disk. The tests kill a run here."""
    os.fsync(descriptor)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of the harness, memory-mapped.

    Raises:
        SettingsError: If it is damaged or something else.
    """
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (EOFError, OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise SettingsError(
            f"cannot read {path}: {why}; it may be damaged: overwrite=true starts its run anew"
        ) from error
    if not isinstance(found, dict) or not {"state_dict", "global_step", "epoch"} <= found.keys():
        raise SettingsError(f"{path} is no checkpoint of the harness")
    return found
