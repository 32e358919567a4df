"""Runs the harness as a user does, and composes its settings without running it."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig

from harness.__main__ import main
from harness.settings import Settings, composing, deciding, resolve

ROOT = Path(__file__).parents[2]


def composed(*overrides: str) -> DictConfig:
    """What a command line composes to."""
    with composing():
        return compose("config", overrides=list(overrides))


def settings(*overrides: str) -> Settings:
    """The settings of a command line."""
    return resolve(composed(*overrides))


def only(*rows: str) -> list[str]:
    """Overrides that leave the quickstart with these rows."""
    return [f"~experiment.rows.{row}" for row in settings().experiment.rows if row not in rows]


def words(*overrides: str) -> list[str]:
    """Those of a command line that decide what comes out."""
    with composing():
        return deciding(overrides, compose("config", overrides=list(overrides)))


def measured(*arguments: str, folder: Path) -> dict[str, Any]:
    """What a bench writes, into a folder that it makes."""
    out = folder / "new" / "measured.json"
    main(["bench", *arguments, "--out", str(out)])
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def shown(stdout: str) -> list[str]:
    """The lines that a run shows, without those of its progress where there is no terminal."""
    kept = [
        line
        for line in stdout.splitlines()
        if ": epoch " not in line and not line.endswith(": done")
    ]
    return "\n".join(kept).strip().splitlines()


def environment() -> dict[str, str]:
    """Of a process that imports this checkout, wherever it runs, and uses one thread."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def harness_process(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs ``python -m harness`` in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )


def harness(
    *arguments: str,
    folder: Path,
    killed_after: float | None = None,
    killed_at_checkpoint: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """The same in a process in which all is imported already; not for what imports depend on.

    ``killed_after`` so many seconds, or while a checkpoint is written (tests/harness/server.py).
    """
    if not hasattr(os, "fork"):
        return harness_process(*arguments, folder=folder)
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as told:
        out, err = Path(told, "stdout"), Path(told, "stderr")
        request = {
            "arguments": arguments,
            "folder": str(folder),
            "environment": environment(),
            "killed_after": killed_after,
            "killed_at_checkpoint": killed_at_checkpoint,
            "stdout": str(out),
            "stderr": str(err),
        }
        print(json.dumps(request), file=server.stdin, flush=True)
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(arguments, status, out.read_text(), err.read_text())


@cache
def _server() -> subprocess.Popen[str]:
    """One a process of pytest; it ends with its standard input."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.harness.server"],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.kill)
    return server
