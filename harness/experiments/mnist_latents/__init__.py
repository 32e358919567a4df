"""The paper's Experiment 3: latent densities of MNIST, sampled, decoded and measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from harness import data, tracking, training, workers
from harness.experiments.mnist_latents import jobs
from harness.experiments.mnist_latents.completion import draw
from harness.report.latents import tables
from harness.settings import MNISTLatentsSettings, Settings
from harness.tracking import RunFolder

__all__ = ["prepare", "show", "summary"]


def prepare(
    settings: Settings, experiment: MNISTLatentsSettings
) -> Callable[[RunFolder, Console], dict[str, Any]]:
    """Loads the data to refuse early; what it returns trains, samples and measures every row."""
    images = data.load(settings.data, seed=settings.seed)
    training.check(settings, images)

    def make(folder: RunFolder, console: Console) -> dict[str, Any]:
        workers.carry_out(
            jobs.jobs(settings, experiment, folder.path),
            workers=experiment.workers,
            threads=settings.trainer.threads,
            console=console,
        )
        found = jobs.results(experiment, folder.path)
        draw(folder.path, found["completion"])
        return {
            "experiment": experiment.name,
            "data": images.variant,
            "seed": settings.seed,
            **found,
            **tracking.provenance(),
        }

    return make


def summary(results: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
    """Columns and rows of the table that loggers get."""
    table_2, *_ = tables(results)
    return table_2.header, table_2.rows


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
