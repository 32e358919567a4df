"""metrics.csv: what a training logs, one line a step, in step with its checkpoints.

Names are ``train/`` the loss and its terms, ``bank/`` the state of a memory bank, ``eval/`` what
test images say of the features. All are functions of the settings, so that a run that was
interrupted has the lines of one that was not.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pytorch_lightning.loggers import Logger

from harness.files import replacing
from harness.settings import SettingsError

Array = npt.NDArray[np.float64]
MetricsRow = dict[str, int | float]


class MetricsFile(Logger):
    """Appends what a training logs to a CSV file, each line as it comes.

    Args:
        path: The file. Lines in it from ``first_step`` on are cut off; those before it stay.
        first_step: The step that the training starts from, of its checkpoint.

    Raises:
        SettingsError: If there is a checkpoint but no line of the steps before it.
    """

    def __init__(self, path: Path, *, first_step: int = 0) -> None:
        super().__init__()
        self.path = path
        self.rows = [row for row in read_metrics(path) if row["step"] < first_step]
        if first_step and not self.rows:
            raise SettingsError(
                f"{path} is missing or empty but a checkpoint is not: use "
                f"overwrite=true to start anew"
            )
        self._rewrite()

    @property
    def name(self) -> str:
        """No subfolder."""
        return ""

    @property
    def version(self) -> str:
        """One file a run."""
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the settings are in ``config.yaml``."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds a line, and a column where there is none for a metric."""
        row: MetricsRow = {"step": step or 0, **metrics}
        self.rows.append(row)
        if row.keys() <= self._columns.keys():
            self._writer.writerow(row)
        else:
            self._rewrite()

    def finalize(self, status: str) -> None:  # noqa: ARG002
        """Closes the file."""
        self._file.close()

    def _rewrite(self) -> None:
        """Puts the file in order, whole or not at all, and opens it for more lines."""
        self._columns = dict.fromkeys(name for row in self.rows for name in row)
        with replacing(self.path) as unfinished, unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self.rows)
        # Line by line, so that a crash loses none.
        self._file = self.path.open("a", newline="", buffering=1)
        self._writer = csv.DictWriter(self._file, self._columns)


def read_metrics(path: Path) -> list[MetricsRow]:
    """The lines of a metrics file, without one that a crash left incomplete; empty if none."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        whole = [line for line in file if line.endswith("\n")]
    return [
        {
            name: (int if name in ("step", "epoch") else float)(cell)
            for name, cell in line.items()
            if cell
        }
        for line in csv.DictReader(whole)
    ]


def curve(rows: Sequence[MetricsRow], column: str) -> tuple[Array, Array]:  # shapes: (N,), (N,)
    """The steps at which a column has values, and the values."""
    found = [(row["step"], row[column]) for row in rows if column in row]
    steps, values = np.array(found, dtype=float).reshape(-1, 2).T
    return steps, values
