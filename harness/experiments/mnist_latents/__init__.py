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
from harness.runs import EpochBar
from harness.settings import MNISTLatentsSettings, Settings
from harness.tracking import RunFolder

__all__ = ["run"]

# What a table calls a figure, and its decimals.
_TABLE_2 = {
    **{"log_det": ("log det", 2), "trace": ("trace", 2), "spread": ("spread", 2)},
    **{"log_likelihood": ("test log-lik.", 1), "components_used": ("used", 1)},
    "purity": ("purity", 2),
}
_GENERATION = {
    **{"frechet": ("Fréchet", 1), "precision": ("prec.", 2), "recall": ("recall", 2)},
    **{"density": ("dens.", 2), "coverage": ("cover.", 2), "confident": (">0.9", 2)},
    **{"classes": ("classes", 1), "nearest": ("nearest", 1)},
}


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
    """Table 2 with each row's density, then what every density's samples decode to."""
    accuracy = results["classifier_accuracy"]
    console.print(
        f"{results['data']}; classifier: {accuracy:.2%} of the test images", soft_wrap=True
    )
    shapes = _table(
        "Table 2: the density of each row (log-likelihoods of one encoder compare)", _TABLE_2
    )
    samples = _table(
        "Decoded samples; nearest: distance to the closest training image", _GENERATION
    )
    samples.add_row("test images", *_cells(results["real"], _GENERATION), end_section=True)
    for row in results["rows"].values():
        shapes.add_row(row["title"], *_cells(row["densities"][row["density"]], _TABLE_2))
        samples.add_row(
            f"{row['title']}: test images decoded", *_cells(row["decoder"], _GENERATION)
        )
        for kind, found in row["densities"].items():
            mark = " *" if kind == row["density"] else ""
            samples.add_row(f"  {kind}{mark}", *_cells(found, _GENERATION))
    console.print(shapes)
    console.print(samples)


def _table(title: str, columns: Mapping[str, tuple[str, int]]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for heading, _ in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _cells(found: Mapping[str, float], columns: Mapping[str, tuple[str, int]]) -> list[str]:
    return [
        f"{found[name]:.{decimals}f}" if name in found else ""
        for name, (_, decimals) in columns.items()
    ]
