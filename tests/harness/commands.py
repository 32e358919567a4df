"""Runs the harness as a user does, and composes its settings without running it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from harness.settings import Settings, deciding, register_schemas, resolve

ROOT = Path(__file__).parents[2]


def composed(*overrides: str) -> DictConfig:
    """What a command line composes to."""
    register_schemas()
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "configs")):
        return compose("config", overrides=list(overrides))


def settings(*overrides: str) -> Settings:
    """The settings of a command line."""
    return resolve(composed(*overrides))


def words(*overrides: str) -> list[str]:
    """Those of a command line that decide what comes out."""
    register_schemas()
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "configs")):
        return deciding(overrides, compose("config", overrides=list(overrides)))


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


def harness(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs ``python -m harness`` in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
