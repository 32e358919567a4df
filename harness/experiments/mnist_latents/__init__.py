"""The paper's Experiment 3: latent densities of MNIST, sampled, decoded and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from harness import workers
from harness.data import ImageData
from harness.experiments.mnist_latents import jobs
from harness.experiments.mnist_latents.drawing import draw_completions
from harness.metrics import terminal_table
from harness.report.latents import tables
from harness.settings import MNISTLatentsSettings
from harness.tracking import RunFolder


def make(
    folder: RunFolder, experiment: MNISTLatentsSettings, images: ImageData, console: Console
) -> dict[str, Any]:
    """Trains, samples and measures every row."""
    waiting, threads = jobs.every_job(folder, experiment), folder.settings.trainer.threads
    workers.run_jobs(waiting, workers=experiment.workers, threads=threads, console=console)
    found = jobs.results(folder, experiment)
    draw_completions(found["completion"], folder.path)
    return {"data": images.variant, "seed": folder.settings.seed, **found}


def summary(results: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
    """Columns and rows of the table that loggers get."""
    table_2, *_ = tables(results)
    return table_2.header, table_2.rows


def show(results: Mapping[str, Any], console: Console) -> None:
    """Prints the tables."""
    console.print(results["data"], soft_wrap=True)
    for found in tables(results):
        table = terminal_table(found.caption, padding=0)  # all columns in 80
        for column, heading in enumerate(found.header):
            table.add_column(heading, justify="right" if column else "left", no_wrap=not column)
        for row in found.rows:
            table.add_row(*row)
        console.print(table)
