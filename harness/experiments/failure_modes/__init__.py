"""Every failure of the paper's objectives beside its remedy: a panel and two numbers each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from harness.experiments.failure_modes.demonstrations import DEMONSTRATIONS
from harness.figures.failure_modes import Curves, Demonstration, end, failure_panels
from harness.files import write_figures
from harness.metrics import terminal_table
from harness.settings import FailureModesSettings
from harness.tracking import RunFolder


def make(
    folder: RunFolder,
    experiment: FailureModesSettings,  # noqa: ARG001  # only the seed can be chosen
    images: None,  # noqa: ARG001
    console: Console,
) -> dict[str, Any]:
    """Makes and draws all demonstrations."""
    seed = folder.settings.seed
    made = {}
    for name, demonstrate in DEMONSTRATIONS.items():
        with console.status(name):
            made[name] = demonstrate(seed)
    drawn = {name: failure_panels([one]) for name, one in made.items()}
    drawn["failure_modes"] = failure_panels(list(made.values()))
    write_figures(folder.path / "figures", drawn, dpi=110)
    numbers = {name: _numbers(one) for name, one in made.items()}
    return {"data": "random vectors", "seed": seed, "demonstrations": numbers}


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


def summary(results: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
    """Columns and rows of the table that loggers get."""
    cells = [[made["title"], *_headlines(made)] for made in results["demonstrations"].values()]
    return ["demonstration", "failure", "remedy"], cells


def _headlines(made: Mapping[str, Any]) -> list[float]:
    return [next(iter(made[side].values()))["end"] for side in ("failure", "remedy")]


def show(results: Mapping[str, Any], console: Console) -> None:
    """Prints both numbers of each demonstration."""
    table = terminal_table(f"Failure modes, seed {results['seed']}")
    table.add_column("what fails: what is measured")
    for heading in ("failure", "remedy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for made in results["demonstrations"].values():
        told = f"{made['title']}: {made['quantity']}"
        table.add_row(told, *(f"{number:.2g}" for number in _headlines(made)))
    console.print(table)
