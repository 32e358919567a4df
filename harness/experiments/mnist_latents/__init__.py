"""The paper's Experiment 3: latent densities of MNIST, sampled, decoded and measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from gmje_plugin import GMJEPrototypeLoss
from harness import data, runs, tracking, training
from harness.data import ImageData
from harness.experiments.mnist_latents import drawing
from harness.experiments.mnist_latents.completion import TITLES, complete
from harness.experiments.mnist_latents.densities import densities, save
from harness.experiments.mnist_latents.evaluating import Judge, measure
from harness.experiments.mnist_latents.phases import CLASSIFIER_EPOCHS, Phases
from harness.experiments.mnist_latents.tables import tables
from harness.files import write_text
from harness.runs import EpochBar
from harness.settings import MNISTLatentsSettings, Settings
from harness.tracking import RunFolder

__all__ = ["prepare", "show"]


def prepare(
    settings: Settings, experiment: MNISTLatentsSettings
) -> Callable[[RunFolder, Console], dict[str, Any]]:
    """Loads the data; what it returns trains, samples and measures every row."""
    images = data.load(settings.data, seed=settings.seed)
    training.check(settings, images)

    def make(folder: RunFolder, console: Console) -> dict[str, Any]:
        results = _results(settings, experiment, images, folder, console)
        table_2, *_ = tables(results)
        tracking.log_summary(
            settings,
            folder.path,
            pictures={path.stem: path for path in sorted((folder.path / "figures").glob("*.png"))},
            columns=table_2.header,
            cells=table_2.rows,
        )
        return results

    return make


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

        def measured(name: str) -> dict[str, Any]:
            bar.describe(f"{name}: densities")
            row = trained[name]
            number, seed = experiment.num_components, settings.seed
            found = densities(row.criterion, row.train, num_components=number, seed=seed)
            if isinstance(row.criterion, GMJEPrototypeLoss):
                save(row.criterion.mixture(), folder.path / "densities" / f"{name}.pt")
            drawing.draw(name, row, found[row.settings.density], judge, folder.path / "figures")
            return measure(row, found, judge, images, seed=seed)

        def completed() -> dict[str, Any]:
            return complete(
                phases,
                trained[experiment.completed],
                judge,
                epochs=experiment.completion_epochs,
                num_prototypes=experiment.num_components,
            )

        return {
            "experiment": experiment.name,
            "data": images.variant,
            "seed": settings.seed,
            "classifier": _once(folder, "classifier", judge.about_itself),
            "rows": {name: _once(folder, name, partial(measured, name)) for name in trained},
            "completion": _once(folder, "completion", completed),
            **tracking.provenance(),
        }


def _once(folder: RunFolder, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured by this or an interrupted process."""
    path = folder.path / "measured" / f"{name}.json"
    if not path.exists():
        found = measure()
        path.parent.mkdir(exist_ok=True)
        write_text(path, json.dumps(found, indent=2) + "\n")
    measured: dict[str, Any] = json.loads(path.read_text())
    return measured


def show(results: Mapping[str, Any], console: Console) -> None:
    """Prints the tables."""
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
