"""The paper's Experiment 3: latent densities of MNIST, sampled, decoded and measured."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from gmje_plugin import GMJEPrototypeLoss
from harness import data, runs, tracking, training
from harness.data import ImageData
from harness.experiments.mnist_latents import drawing
from harness.experiments.mnist_latents.completion import TITLES, complete
from harness.experiments.mnist_latents.densities import densities, save
from harness.experiments.mnist_latents.evaluating import Judge, measure, measure_strangeness
from harness.experiments.mnist_latents.phases import CLASSIFIER_EPOCHS, Phases
from harness.experiments.mnist_latents.tables import tables
from harness.runs import EpochBar
from harness.settings import MNISTLatentsSettings, Settings
from harness.tracking import RunFolder

__all__ = ["run"]


def run(settings: Settings, experiment: MNISTLatentsSettings, folder: RunFolder) -> None:
    """Trains, samples and measures every row; prints tables, leaves all in the folder."""
    console = Console()
    results = folder.finished_results()
    if results is not None:
        _print(results, console)
        console.print(f"Finished before: {folder.path} (overwrite=true repeats it)", soft_wrap=True)
        return
    started = time.perf_counter()
    torch.set_num_threads(settings.trainer.threads)
    images = data.load(settings.data, seed=settings.seed)
    training.check(settings, images)
    with folder.started():
        results = _results(settings, experiment, images, folder, console)
        results["wall_time_s"] = round(time.perf_counter() - started, 1)
        folder.write_results(results)
    _print(results, console)
    console.print(f"{results['wall_time_s']:.0f} s. Everything is in {folder.path}", soft_wrap=True)


def _results(
    settings: Settings,
    experiment: MNISTLatentsSettings,
    images: ImageData,
    folder: RunFolder,
    console: Console,
) -> dict[str, Any]:
    """Everything that ``results.json`` is to hold, but for the time."""
    of_rows = len(experiment.rows) * (settings.trainer.epochs + experiment.decoder_epochs)
    epochs = of_rows + CLASSIFIER_EPOCHS + len(TITLES) * experiment.completion_epochs
    with runs.progress(console) as progress:
        bar = EpochBar(progress, epochs)
        phases = Phases(settings, images, folder, bar)
        trained = {
            name: phases.row(name, row, decoder_epochs=experiment.decoder_epochs)
            for name, row in experiment.rows.items()
        }
        judge = Judge.of(phases.classifier(), images)
        results: dict[str, Any] = {
            "experiment": experiment.name,
            "data": images.variant,
            "seed": settings.seed,
            "classifier_accuracy": judge.accuracy,
            "real": judge.metrics(judge.test.images),
            "rows": {},
            **tracking.provenance(),
        }
        found = {}
        for name, row in trained.items():
            bar.describe(f"{row.settings.title}: densities")
            found[name] = densities(
                row.criterion,
                row.train,
                num_components=experiment.num_components,
                seed=settings.seed,
            )
            if isinstance(row.criterion, GMJEPrototypeLoss):
                save(row.criterion.mixture(), folder.path / "densities" / f"{name}.pt")
            results["rows"][name] = measure(row, found[name], judge, seed=settings.seed)
            density = found[name][row.settings.density]
            drawing.draw(name, row, density, judge, folder.path / "figures")
        bar.describe("strange images")
        results["strange"] = measure_strangeness(trained, found, judge, images, seed=settings.seed)
        results["completion"] = complete(
            phases,
            trained[experiment.completed],
            judge,
            epochs=experiment.completion_epochs,
            num_prototypes=experiment.num_components,
        )
    return results


def _print(results: Mapping[str, Any], console: Console) -> None:
    console.print(results["data"], soft_wrap=True)
    for found in tables(results):
        table = Table(
            title=found.caption, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
        )
        for place, heading in enumerate(found.header):
            table.add_column(heading, justify="right" if place else "left", no_wrap=not place)
        for row in found.rows:
            table.add_row(*row)
        console.print(table)
