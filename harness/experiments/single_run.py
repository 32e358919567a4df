"""The paper's Experiment 2, a training at a time: banks (2a) and benchmark (2b)."""

from __future__ import annotations

from typing import Any

import torch
from rich.console import Console

from harness import data, runs, training
from harness.metrics import metric
from harness.processes import is_first_process
from harness.progress import named, reporting
from harness.settings import Settings
from harness.tracking import RunFolder, check_logger


def run(settings: Settings, folder: RunFolder) -> None:
    """Trains and evaluates one method from one seed; prints its metrics."""
    is_first = is_first_process(settings.trainer)
    console = Console(quiet=not is_first)
    results = folder.finished_results()
    again = "Finished before (overwrite=true repeats it): " if results else ""
    if results is None:
        results = _train(settings, folder, console)
    if not is_first:
        return
    console.print(f"{results['title']}, seed {results['seed']}; {results['data']}", soft_wrap=True)
    for name, value in results["metrics"].items():
        shown = metric(name)
        console.print(f"  {shown.label:18}{shown.text(value):>8}")
    console.print(f"{again}{folder.path}", soft_wrap=True)


def _train(settings: Settings, folder: RunFolder, console: Console) -> dict[str, Any]:
    check_logger(settings.logger)
    torch.set_num_threads(settings.trainer.threads)
    images = data.load(settings.data, seed=settings.seed)
    training.check(settings, images)
    title = runs.title(settings)
    with reporting(console, total=settings.trainer.epochs) as report:
        told = named(report, f"{title}, seed {settings.seed}")
        return runs.run_training(images, folder, title=title, name=folder.path.name, report=told)
