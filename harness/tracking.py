"""A run's folder: what was asked, what came out, and where it was made."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import wandb
from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

import gmje_plugin
from harness.settings import LoggerSettings, Settings, SettingsError

Array = npt.NDArray[np.float64]

CONFIG, METRICS, RESULTS = "config.yaml", "metrics.csv", "results.json"
_PACKAGES = (
    "lightly",
    "torch",
    "torchvision",
    "pytorch-lightning",
    "numpy",
    "scikit-learn",
    "wandb",
)
# What says where to put results or whether to repeat them is no part of what was asked.
_NOT_ASKED = ("experiment", "output_root", "overwrite")
_LONGEST_NAME = 100


def folder_name(overrides: Sequence[str]) -> str:
    """The overrides as a folder's name, the same in any order, hashed if long."""
    asked = sorted(item for item in overrides if item.partition("=")[0] not in _NOT_ASKED)
    name = ",".join(asked).replace("/", "_")
    if len(name) > _LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        name = f"{name[: _LONGEST_NAME - 13]}-{digest}"
    return name or "default"


class RunFolder:
    """The folder of a run, a function of what was asked: outputs/<experiment>/<overrides>.

    ``results.json`` is written last, in one move: a folder that has one is finished.

    Args:
        settings: What was asked.
        overrides: How it was asked on the command line.
    """

    def __init__(self, settings: Settings, overrides: Sequence[str]) -> None:
        self.settings = settings
        self.path = Path(settings.output_root) / settings.experiment.name / folder_name(overrides)

    def finished_results(self) -> dict[str, Any] | None:
        """The results of the same run made before, or None if it is to run (again).

        Raises:
            SettingsError: If the folder holds the results of other settings.
        """
        results = self.path / RESULTS
        if self.settings.overwrite or not results.exists():
            return None
        if (self.path / CONFIG).read_text() != self._config():
            raise SettingsError(
                f"{self.path} holds results of other settings (see its {CONFIG}; the defaults have "
                f"changed since): move it away or run with overwrite=true"
            )
        found: dict[str, Any] = json.loads(results.read_text())
        return found

    def start(self) -> None:
        """Makes the folder, without what an unfinished or unwanted run left in it.

        Raises:
            SettingsError: If the folder holds something that is not a run.
        """
        if self.path.exists():
            if any(self.path.iterdir()) and not (self.path / CONFIG).exists():
                raise SettingsError(f"{self.path} is not empty and not the folder of a run")
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True)
        (self.path / CONFIG).write_text(self._config())

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Writes ``results.json``, whole or not at all."""
        unfinished = self.path / (RESULTS + ".tmp")
        unfinished.write_text(json.dumps(results, indent=2) + "\n")
        os.replace(unfinished, self.path / RESULTS)

    def _config(self) -> str:
        config = OmegaConf.structured(self.settings)
        OmegaConf.update(config, "overwrite", False)
        return OmegaConf.to_yaml(config)


class MetricsFile(Logger):
    """Keeps what a training logs and writes it as CSV, one line a step.

    Args:
        path: The file; trainings logged one after the other go into the same.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.lines: list[dict[str, Any]] = []
        self._labels: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def version(self) -> str:
        """Empty: a folder has one run."""
        return ""

    def labelled(self, **labels: str | int) -> MetricsFile:
        """The same file, with columns that tell the next training's lines from others."""
        self._labels = labels
        return self

    def curves(self, column: str) -> dict[str, Array]:  # shapes: (seeds, steps)
        """The values of a column over steps, for each label ``row`` that has it."""
        found: dict[str, dict[int, list[float]]] = {}
        for line in self.lines:
            if column in line:
                seeds = found.setdefault(line["row"], {})
                seeds.setdefault(line["seed"], []).append(line[column])
        return {row: np.array(list(seeds.values())) for row, seeds in found.items()}

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the settings are in ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keeps a line."""
        self.lines.append({**self._labels, "step": step, **metrics})

    @rank_zero_only
    def finalize(self, status: str) -> None:  # noqa: ARG002
        """Writes all lines so far, at the end of each training."""
        columns = list(dict.fromkeys(name for line in self.lines for name in line))
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.lines)


@contextmanager
def wandb_run(
    settings: LoggerSettings,
    folder: Path,
    *,
    name: str,
    group: str,
    job_type: str,
    config: Mapping[str, Any],
) -> Iterator[list[WandbLogger]]:
    """A W&B run below ``folder``, ended with the block; an empty list if the settings want none.

    Offline, it asks for no account and no network. ``wandb sync`` sends it later.
    """
    if settings.name != "wandb":
        yield []
        return
    run = wandb.init(
        project=settings.project,
        dir=folder,
        mode="online" if settings.mode == "online" else "offline",
        name=name,
        group=group,
        job_type=job_type,
        config=dict(config),
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
    )
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    try:
        yield [WandbLogger(experiment=run)]
    except BaseException:
        run.finish(exit_code=1)  # what was logged stays readable
        raise
    run.finish()


def provenance() -> dict[str, Any]:
    """Versions, hardware and commit, for the record."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "hardware": {
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "platform": platform.platform(),
        },
        "commit": commit(),
        "command": sys.argv[1:],
    }


def commit() -> str | None:
    """The checkout's commit, with "+" if files have changed since; None without git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40"]
    try:
        told = subprocess.run(
            [*command, "--dirty=+", "--exclude=*"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return told.stdout.strip()


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"gmje-plugin": gmje_plugin.__version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
