"""Every failure of the paper's objectives beside its remedy: a panel and two numbers each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from harness import failure_figures, tracking
from harness.experiments.failure_modes.demonstrations import (
    DEMONSTRATIONS,
    Curves,
    Demonstration,
    end,
)
from harness.files import replacing
from harness.settings import Settings
from harness.tracking import RunFolder

__all__ = ["run"]


def run(settings: Settings, folder: RunFolder) -> None:
    """Makes all demonstrations; prints a table, leaves numbers and figures in the folder."""
    console = Console()
    results = folder.finished_results()
    if results is not None:
        _print(results, console)
        console.print(f"Finished before: {folder.path} (overwrite=true repeats it)", soft_wrap=True)
        return
    started = time.perf_counter()
    torch.set_num_threads(settings.trainer.threads)
    with folder.started():
        made = {}
        for name, demonstrate in DEMONSTRATIONS.items():
            with console.status(name):
                made[name] = demonstrate(settings.seed)
        results = {
            "experiment": settings.experiment.name,
            "data": "random vectors",
            "seed": settings.seed,
            "demonstrations": {name: _numbers(one) for name, one in made.items()},
            **tracking.provenance(),
        }
        _draw(made, settings, folder)
        results["wall_time_s"] = round(time.perf_counter() - started, 1)
        folder.write_results(results)
    _print(results, console)
    console.print(f"{results['wall_time_s']:.0f} s. Everything is in {folder.path}", soft_wrap=True)


def _numbers(made: Demonstration) -> dict[str, Any]:
    """Where each curve starts and ends; the first of a side is its headline."""

    def ends(curves: Curves) -> dict[str, dict[str, float]]:
        return {label: {"start": curve[0], "end": end(curve)} for label, curve in curves.items()}

    return {
        "title": made.title,
        "quantity": made.quantity,
        "failure": ends(made.failure),
        "remedy": ends(made.remedy),
    }


def _draw(made: Mapping[str, Demonstration], settings: Settings, folder: RunFolder) -> None:
    """Draws all together and each alone, and logs the pictures with the table."""
    pictures = folder.path / "figures"
    pictures.mkdir(exist_ok=True)
    drawn = {"failure_modes": partial(failure_figures.panels, list(made.values()))}
    drawn |= {name: partial(failure_figures.panels, [one]) for name, one in made.items()}
    paths = {name: pictures / f"{name}.png" for name in drawn}
    for name, draw in drawn.items():
        _save(draw(), paths[name])
    tracking.log_summary(
        settings,
        folder.path,
        pictures=paths,
        columns=["demonstration", "failure", "remedy"],
        cells=[[one.title, *one.numbers] for one in made.values()],
    )


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=110, format="png")


def _print(results: Mapping[str, Any], console: Console) -> None:
    table = Table(
        title=f"Failure modes, seed {results['seed']}", title_justify="left", box=box.SIMPLE_HEAD
    )
    table.add_column("what fails: what is measured")
    for heading in ("failure", "remedy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for made in results["demonstrations"].values():
        numbers = [next(iter(made[side].values()))["end"] for side in ("failure", "remedy")]
        told = f"{made['title']}: {made['quantity']}"
        table.add_row(told, *(f"{number:.2g}" for number in numbers))
    console.print(table)
