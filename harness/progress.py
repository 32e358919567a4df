"""A progress bar in a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

Report = Callable[[int, str], None]  # takes the units done since the last call, and what is new


@contextmanager
def reporting(console: Console, *, total: int, done: int = 0) -> Iterator[Report]:
    """Within it, the function given shows how far the work is.

    Args:
        console: Where to.
        total: Units of all the work.
        done: Those done before.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=total, completed=done)

        def report(units: int, text: str) -> None:
            progress.advance(task, units)
            if text and console.is_terminal:
                progress.update(task, description=text)
            elif text:
                progress.console.print(text, soft_wrap=True)

        yield report


def named(report: Report, name: str) -> Report:
    """A report of one of several pieces of work, whose name comes before what is new."""
    return lambda units, text: report(units, text and f"{name}: {text}")
