"""``python -m harness bench``: the plugin beside lightly.

``bank`` measures time and memory of a loss and bank step, ``step`` the images per second of whole
training steps, ``losses`` how the costs of losses and densities grow with their sizes, ``mixture``
log-densities beside scikit-learn's: all variants in turn in one process. ``drop_in`` measures the
accuracy that README's diffs reach at lightly's own settings, ``bank_error`` how well banks stand in
for all training images. ``bench bank --help`` and the others' say how.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NoReturn, TypeVar

import torch
from rich.console import Console
from rich.table import Table

from harness.files import write_text
from harness.workers import limit_threads

_COMMANDS = ("bank", "step", "losses", "mixture", "drop_in", "bank_error")
_Name = TypeVar("_Name")


def main(arguments: Sequence[str]) -> None:
    """Runs the bench that the first argument names with the others."""
    parser = OneLineParser("bench", __doc__)
    parser.add_argument("what", choices=_COMMANDS)
    what = parser.parse_args(arguments[:1]).what
    # The measurements import lightly and Lightning, which takes seconds.
    importlib.import_module(f"harness.bench.{what}").main(arguments[1:])


class OneLineParser(argparse.ArgumentParser):
    """A parser of ``python -m harness COMMAND`` whose errors are one line."""

    def __init__(self, command: str, description: str | None) -> None:
        super().__init__(
            prog=f"python -m harness {command}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Ends the process with the message and exit code 2."""
        self.exit(2, f"{self.prog}: {message}\n")

    def add_choices(self, name: str, choices: Sequence[str], **options: Any) -> None:
        """Adds an option that takes some of the choices, by default all."""
        self.add_argument(name, choices=choices, nargs="+", default=choices, **options)

    def check_device(self, device: str) -> None:
        """Ends the process if there is no such device."""
        if device == "cuda" and not torch.cuda.is_available():
            self.error("--device cuda: torch sees no GPU")

    def measurement(self, arguments: Sequence[str], *, threads: int = 1) -> argparse.Namespace:
        """The options with those of every measurement; sets the number of threads.

        What cannot be is refused now, before minutes pass.

        Args:
            arguments: The command line.
            threads: The default of ``--threads``.
        """
        name = self.prog.rpartition(" ")[2]
        self.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
        self.add_argument("--threads", type=count, default=threads, help="of one CPU operation")
        self.add_argument("--out", type=Path, default=Path(f"outputs/bench/{name}.json"))
        options = self.parse_args(arguments)
        self.check_device(options.device)
        try:
            options.out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.error(f"--out: cannot make {options.out.parent}: {error.strerror}")
        if options.out.is_dir() or not os.access(options.out.parent, os.W_OK):
            self.error(f"--out: cannot write {options.out}")
        limit_threads(options.threads)
        return options


def count(text: str) -> int:
    """A positive whole number of the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, got {text!r}")
    return int(text)


def in_turn(
    measurements: Mapping[_Name, Callable[[], float]], *, rounds: int, warmup: int = 0
) -> dict[_Name, list[float]]:
    """Makes all measurements one after the other, again and again.

    So whatever else the machine does meets all of them.

    Args:
        measurements: Each gives seconds.
        rounds: How often each is made and counts.
        warmup: How often each is made before.
    """
    seconds: dict[_Name, list[float]] = {name: [] for name in measurements}
    for number in range(warmup + rounds):
        for name, measure in measurements.items():
            taken = measure()
            if number >= warmup:
                seconds[name].append(taken)
    return seconds


def now() -> float:
    """Seconds, once a GPU has done what it still had to do.

    As ``torch.utils.benchmark.timer``, whose import warns where CUDA is installed without a GPU.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(step: Callable[[], object]) -> float:
    """What a step takes."""
    started = now()
    step()
    return now() - started


def timing(seconds: Sequence[float], *, unit: str = "ms") -> dict[str, float]:
    """A row's ``median_ms``, ``min_ms`` and ``max_ms``; ``unit`` may be "s"."""
    scale = 1e3 if unit == "ms" else 1.0
    return {f"{of.__name__}_{unit}": scale * of(seconds) for of in (median, min, max)}


def interval(row: Mapping[str, Any], *, unit: str = "ms", form: str = ".2f") -> str:
    """A table's cell of these: "median (min to max)"."""
    middle, low, high = (f"{row[f'{name}_{unit}']:{form}}" for name in ("median", "min", "max"))
    return f"{middle} ({low} to {high})"


def table(title: str | None, *headings: str, words: int = 1) -> Table:
    """A table without rows, whose first columns hold words and the others numbers."""
    made = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        of_words = number < words
        made.add_column(heading, justify="left" if of_words else "right", no_wrap=not of_words)
    return made


def write(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    """Writes what was asked, what came out and on what."""
    from harness.tracking import provenance  # Lightning and W&B take seconds to import

    asked = {name: value for name, value in vars(options).items() if name != "out"}
    write_text(options.out, json.dumps({**asked, "rows": rows, **provenance()}, indent=2) + "\n")


def finish(rows: Sequence[dict[str, Any]], options: argparse.Namespace, *tables: Table) -> None:
    """Prints the tables, writes the file and says where."""
    write(rows, options)
    show(options, *tables)


def show(options: argparse.Namespace, *tables: Table) -> None:
    """Prints the tables and says where their numbers are."""
    console = Console()
    for each in tables:
        console.print(each)
    console.print(f"written to {options.out}", soft_wrap=True)
