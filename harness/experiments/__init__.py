"""Experiments, one a module of its name.

``single_run`` is a training at a time, which several processes may share. The others gather many
parts in one folder: each has ``make(folder, experiment, images, console)``, which returns what
``results.json`` is to hold beside name and provenance and fills the folder's ``figures``,
``summary(results)`` for loggers, and ``show(results, console)``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import WandbLogger
from rich.console import Console

from harness import data, training
from harness.experiments import single_run
from harness.settings import Settings, SingleRunSettings
from harness.tracking import RunFolder, check_logger, curve_loggers, leaves, provenance


def run(settings: Settings, folder: RunFolder) -> None:
    """Runs the experiment that the settings are of, or shows what it has found before."""
    experiment = settings.experiment
    if isinstance(experiment, SingleRunSettings):
        single_run.run(settings, folder)
        return
    module: Any = import_module(f"{__name__}.{experiment.name}")
    console = Console()
    results = folder.finished_results()
    if results is not None:
        module.show(results, console)
        console.print(f"Finished before: {folder.path} (overwrite=true repeats it)", soft_wrap=True)
        return
    check_logger(settings.logger)
    started = time.perf_counter()
    torch.set_num_threads(settings.trainer.threads)
    images = None
    if "data" in experiment.uses:  # what cannot be run is refused before there is a folder
        images = data.load(settings.data, seed=settings.seed)
        training.check(settings, images)
    with folder.started():
        results = {
            "experiment": experiment.name,
            **module.make(folder, experiment, images, console),
            **provenance(),
            "wall_time_s": round(time.perf_counter() - started, 1),
        }
        folder.write_results(results)  # whatever then becomes of a logger
        _log_summary(settings, folder.path, *module.summary(results))
    module.show(results, console)
    console.print(f"{results['wall_time_s']:.0f} s. Everything is in {folder.path}", soft_wrap=True)


def _log_summary(
    settings: Settings, folder: Path, columns: Sequence[str], cells: Sequence[Sequence[Any]]
) -> None:
    """Logs the folder's figures and a table as a run of its own, where the logger takes them."""
    with curve_loggers(
        settings.logger,
        folder,
        name="summary",
        group=settings.experiment.name,
        job_type="summary",
        config={**dict(leaves(asdict(settings))), **provenance()},
    ) as loggers:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                for picture in sorted((folder / "figures").glob("*.png")):
                    logger.log_image(picture.stem, [str(picture)])
                logger.log_table("results", columns=list(columns), data=[list(c) for c in cells])
