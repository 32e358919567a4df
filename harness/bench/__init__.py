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
from typing import Any, NoReturn, TypeVar

import torch

_COMMANDS = ("bank", "step", "losses", "mixture", "drop_in", "bank_error")
_Name = TypeVar("_Name")


def main(arguments: Sequence[str]) -> None:
    """Runs the bench that the first argument names with the others."""
    parser = OneLineParser(prog="python -m harness bench", description=__doc__)
    parser.add_argument("what", choices=_COMMANDS)
    what = parser.parse_args(arguments[:1]).what
    # The measurements import lightly and Lightning, which takes seconds.
    importlib.import_module(f"harness.bench.{what}").main(arguments[1:])


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, and whose description stays as it is written."""

    def __init__(self, *, prog: str, description: str | None) -> None:
        super().__init__(
            prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        """Ends the process with the message and exit code 2."""
        self.exit(2, f"python -m harness bench: {message}\n")

    def add_common_options(self, *, threads: int, out: Path) -> None:
        """Adds the options of every measurement, with defaults for threads and file."""
        self.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
        self.add_argument("--threads", type=count, default=threads, help="of one CPU operation")
        self.add_argument("--out", type=Path, default=out)

    def check_device(self, device: str) -> None:
        """Ends the process if there is no such device."""
        if device == "cuda" and not torch.cuda.is_available():
            self.error("--device cuda: torch sees no GPU")

    def checked(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The options, with the device there and the file's folder made, before minutes pass."""
        options = self.parse_args(arguments)
        self.check_device(options.device)
        try:
            options.out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.error(f"--out: cannot make {options.out.parent}: {error.strerror}")
        if options.out.is_dir() or not os.access(options.out.parent, os.W_OK):
            self.error(f"--out: cannot write {options.out}")
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


def synchronize(device: torch.device) -> None:
    """Waits for what the device has still to do."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(step: Callable[[], object], device: torch.device) -> float:
    """What a step takes, waiting for the device before and after."""
    synchronize(device)
    started = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - started


def write(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    """Writes what was asked, what came out and on what."""
    from harness.tracking import provenance  # Lightning and W&B take seconds to import

    asked = {name: value for name, value in vars(options).items() if name != "out"}
    options.out.write_text(json.dumps({**asked, "rows": rows, **provenance()}, indent=2) + "\n")
