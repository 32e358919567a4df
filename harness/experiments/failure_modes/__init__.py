"""Every failure of the paper's objectives beside its remedy: a panel and two numbers each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from harness import tracking
from harness.experiments.failure_modes.demonstrations import DEMONSTRATIONS
from harness.figures.failure_modes import Curves, Demonstration, end, failure_panels
from harness.files import write_png
from harness.settings import FailureModesSettings, Settings
from harness.tracking import RunFolder

__all__ = ["prepare", "show", "summary"]


def prepare(
    settings: Settings,
    experiment: FailureModesSettings,
) -> Callable[[RunFolder, Console], dict[str, Any]]:
    """What it returns makes all demonstrations."""

    def make(folder: RunFolder, console: Console) -> dict[str, Any]:
        made = {}
        for name, demonstrate in DEMONSTRATIONS.items():
            with console.status(name):
                made[name] = demonstrate(settings.seed)
        _draw(made, folder)
        return {
            "experiment": experiment.name,
            "data": "random vectors",
            "seed": settings.seed,
            "demonstrations": {name: _numbers(one) for name, one in made.items()},
            **tracking.provenance(),
        }

    return make


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


def _draw(made: Mapping[str, Demonstration], folder: RunFolder) -> None:
    """Draws all together and each alone."""
    pictures = folder.path / "figures"
    pictures.mkdir(exist_ok=True)
    drawn = {"failure_modes": partial(failure_panels, list(made.values()))}
    drawn |= {name: partial(failure_panels, [one]) for name, one in made.items()}
    for name, draw in drawn.items():
        write_png(pictures / f"{name}.png", draw(), dpi=110)


def summary(results: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
    """Columns and rows of the table that loggers get."""
    cells = [[made["title"], *_headlines(made)] for made in results["demonstrations"].values()]
    return ["demonstration", "failure", "remedy"], cells


def _headlines(made: Mapping[str, Any]) -> list[float]:
    return [next(iter(made[side].values()))["end"] for side in ("failure", "remedy")]


def show(results: Mapping[str, Any], console: Console) -> None:
    """Prints both numbers of each demonstration."""
    table = Table(
        title=f"Failure modes, seed {results['seed']}", title_justify="left", box=box.SIMPLE_HEAD
    )
    table.add_column("what fails: what is measured")
    for heading in ("failure", "remedy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for made in results["demonstrations"].values():
        told = f"{made['title']}: {made['quantity']}"
        table.add_row(told, *(f"{number:.2g}" for number in _headlines(made)))
    console.print(table)
