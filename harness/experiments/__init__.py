"""Experiments, one a module.

``single_run`` is a training at a time, which several processes may share. The others gather many
parts in one folder: each has ``make(folder, experiment, images, console)``, which returns what
``results.json`` is to hold beside name and provenance and fills the folder's ``figures``,
``summary(results)`` for loggers, and ``show(results, console)``.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from rich.console import Console

from harness import data, training
from harness.experiments import failure_modes, mnist_latents, quickstart, single_run, synthetic
from harness.settings import (
    FailureModesSettings,
    MNISTLatentsSettings,
    QuickstartSettings,
    Settings,
    SingleRunSettings,
    SyntheticSettings,
)
from harness.tracking import RunFolder, check_logger, log_summary, provenance

_GATHERING: dict[type, Any] = {
    QuickstartSettings: quickstart,
    SyntheticSettings: synthetic,
    MNISTLatentsSettings: mnist_latents,
    FailureModesSettings: failure_modes,
}


def run(settings: Settings, folder: RunFolder) -> None:
    """Runs the experiment that the settings are of, or shows what it has found before."""
    experiment = settings.experiment
    if isinstance(experiment, SingleRunSettings):
        single_run.run(settings, folder)
        return
    console = Console()
    module = _GATHERING[type(experiment)]
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
        columns, cells = module.summary(results)
        log_summary(settings, folder.path, columns=columns, cells=cells)
    module.show(results, console)
    console.print(f"{results['wall_time_s']:.0f} s. Everything is in {folder.path}", soft_wrap=True)
