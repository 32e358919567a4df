"""Reads W&B's offline run files, as newer versions of wandb no longer do in Python.

A file is a header of 7 bytes (":W&B", magic, version) and then LevelDB's log format: blocks of
32 KiB, in them pieces of records, each with a checksum (4 bytes), a length (2) and a type (1).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 2**15, struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """What a run file holds."""

    id: str = ""
    sweep: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    exit_code: int | None = None


def records(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    assert struct.unpack("<4sHB", data[:7]) == (b":W&B", 0xBEE1, 0)
    place, parts = 7, []
    while place + HEADER.size <= len(data):
        if BLOCK - place % BLOCK < HEADER.size:  # the rest of a block that holds no piece
            place += BLOCK - place % BLOCK
            continue
        checksum, length, kind = HEADER.unpack_from(data, place)
        piece = data[place + HEADER.size : place + HEADER.size + length]
        assert checksum == zlib.crc32(piece, zlib.crc32(bytes([kind])))
        assert (kind in (FULL, FIRST)) == (not parts)
        parts.append(piece)
        if kind in (FULL, LAST):
            yield b"".join(parts)
            parts = []
        place += HEADER.size + length


def read(path: Path) -> OfflineRun:
    run = OfflineRun()
    for data in records(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.id, run.sweep = record.run.run_id, record.run.sweep_id
            run.name, run.group = record.run.display_name, record.run.run_group
            run.job_type = record.run.job_type
            run.config |= {i.key: json.loads(i.value_json) for i in record.run.config.update}
        elif kind == "history":
            items = record.history.item
            keys = [".".join(item.nested_key) or item.key for item in items]
            values = [json.loads(item.value_json) for item in items]
            run.history.append(dict(zip(keys, values, strict=True)))
        elif kind == "files":
            run.files += [file.path for file in record.files.files]
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def read_all(folder: Path) -> dict[str, OfflineRun]:
    """The runs below a folder by their display names."""
    runs = [read(path) for path in folder.glob("wandb/offline-run-*/run-*.wandb")]
    return {run.name: run for run in runs}
