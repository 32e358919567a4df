"""The paper's Experiment 2, a training at a time: banks (2a) and benchmark (2b)."""

from __future__ import annotations

import torch
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from harness import data, runs, training
from harness.settings import Settings
from harness.tracking import RunFolder


def run(settings: Settings, folder: RunFolder) -> None:
    """Trains and evaluates one method from one seed; prints its figures."""
    console = Console(quiet=rank_zero_only.rank != 0)
    finished = folder.finished_results() is not None
    torch.set_num_threads(settings.trainer.threads)
    if settings.method is None:
        raise AssertionError("checked by settings.resolve")
    title = runs.title(settings.method, settings.bank)
    with runs.progress(console) as progress:
        bar = runs.EpochBar(progress, settings.trainer.epochs)
        bar.describe(f"{title}, seed {settings.seed}")
        if finished:
            results = folder.finished_results()
        else:
            images = data.load(settings.data, seed=settings.seed)
            training.check(settings, images)
            results = runs.run_training(
                settings, images, folder, title=title, name=folder.path.name, callbacks=[bar]
            )
    if results is None:
        return
    console.print(f"{results['title']}, seed {results['seed']}; {results['data']}", soft_wrap=True)
    for metric, value in results["metrics"].items():
        console.print(f"  {metric:20}{value:8.4f}")
    again = "Finished before (overwrite=true repeats it): " if finished else ""
    console.print(f"{again}{folder.path}", soft_wrap=True)
