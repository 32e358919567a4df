"""Training folders as runs: what is whole is used, what is not is told."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml  # type: ignore[import-untyped]

from harness.metrics import CURVES
from harness.settings import SettingsError
from harness.tracking import CONFIG, METRICS_FILE, RESULTS, leaves

Array = npt.NDArray[np.float64]

_POINTS = 100  # of a curve at least, where the training has as many steps
_NEEDED_SETTINGS = {"experiment.name": str, "method.name": str, "trainer.epochs": int, "seed": int}
_NEEDED_RESULTS: dict[str, type | tuple[type, ...]] = {
    "experiment": str,
    "title": str,
    "seed": int,
    "data": str,
    "metrics": dict,
    "wall_time_s": (int, float),
    "versions": dict,
    "hardware": dict,
    "commit": (str, type(None)),
    "command": list,
}


class _DamagedError(Exception):
    """A file that cannot be used; the message names it."""


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        folder: Where it is.
        config: Its settings by their dotted names.
        curves: For each quantity that was logged, its means over parts of an epoch (or a whole one
            in a long training), shape (points,), NaN where nothing was logged.
        results: What ``results.json`` holds; nothing if the training has not finished.
    """

    folder: Path
    config: Mapping[str, Any]
    curves: Mapping[str, Array]
    results: Mapping[str, Any]

    @property
    def epochs(self) -> int:
        """How many epochs were asked for."""
        return int(self.config["trainer.epochs"])


def read(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Reads every training folder at any depth.

    Returns:
        The runs, and for each thing left out a line that names the file and says why.

    Raises:
        SettingsError: If a folder holds no training, or no training can be used.
    """
    found: dict[Path, Path] = {}  # resolved, so that no folder counts twice
    for folder in folders:
        if not folder.is_dir():
            raise SettingsError(f"{folder}: there is no such folder")
        trainings = _training_folders(folder)
        if not trainings:
            raise SettingsError(f"{folder} holds no training, that is no folder with a {CONFIG}")
        found.update({path.resolve(): path for path in trainings})
    runs, left_out = [], []
    for path in found.values():
        try:
            run, remarks = _read_run(path)
        except _DamagedError as error:
            left_out.append(str(error))
        else:
            runs.append(run)
            left_out += remarks
    if not runs:
        raise SettingsError(f"no training can be read: {left_out[0]}")
    return runs, left_out


def experiments(folders: Sequence[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """What every ``results.json`` at any depth holds, in the order of their folders.

    Damaged ones are left out; those of trainings are told of where they are read.
    """
    paths = {path.resolve(): path for folder in folders for path in folder.rglob(RESULTS)}
    found = []
    for path in sorted(paths.values()):
        with suppress(_DamagedError):
            _settings(path.with_name(CONFIG))
            found.append((path.parent, _json(path)))
    return found


def untrained(found: Sequence[tuple[Path, Mapping[str, Any]]]) -> list[Run]:
    """Runs of no epochs for what experiments of many trainings say of the network they start from.

    Args:
        found: As :func:`experiments` returns it.
    """
    runs = []
    for folder, results in found:
        measured = results.get("untrained", {})
        for index, seed in enumerate(results["seeds"] if measured else []):
            config = {**_settings(folder / CONFIG), "seed": seed, "trainer.epochs": 0}
            metrics = {name: values[index] for name, values in measured.items()}
            runs.append(Run(folder, config, {}, {"metrics": metrics}))
    return runs


def _training_folders(folder: Path) -> list[Path]:
    """Folders of trainings, finished or not, but not those that only gather the trainings below."""
    found = {
        path.parent
        for name in (CONFIG, METRICS_FILE, RESULTS)
        for path in folder.rglob(name)
        if "wandb" not in path.relative_to(folder).parts  # has config.yaml too
    }
    return sorted(filter(_is_training, found))


def _is_training(folder: Path) -> bool:
    with suppress(_DamagedError):
        if "metrics" in _json(folder / RESULTS):
            return True
    try:
        return "method.name" in _settings(folder / CONFIG)
    except _DamagedError:
        return (folder / METRICS_FILE).exists()


def _read_run(folder: Path) -> tuple[Run, list[str]]:
    config = _settings(folder / CONFIG)
    _check(folder / CONFIG, config, _NEEDED_SETTINGS)
    results = _results(folder / RESULTS) if (folder / RESULTS).exists() else {}
    try:
        curves, remarks = _curves(folder / METRICS_FILE, epochs=config["trainer.epochs"])
    except _DamagedError as error:
        curves, remarks = {}, [f"{error}; its curves are left out"]
    return Run(folder, config, curves, results), remarks


def _settings(path: Path) -> dict[str, Any]:
    with _reading(path):
        config = yaml.safe_load(path.read_text())
    return dict(leaves(config)) if isinstance(config, dict) else {}


def _results(path: Path) -> dict[str, Any]:
    results = _json(path)
    _check(path, results, _NEEDED_RESULTS)
    _check(path, results["metrics"], dict.fromkeys(results["metrics"], (int, float)))
    return results


def _json(path: Path) -> dict[str, Any]:
    with _reading(path):
        found = json.loads(path.read_text())
    return found if isinstance(found, dict) else {}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Says of what goes wrong that the file is damaged."""
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise _DamagedError(f"cannot read {path}: {why}") from error
    except json.JSONDecodeError as error:
        raise _DamagedError(f"{path} is damaged or cut off: {error}") from error
    except (csv.Error, ValueError, yaml.YAMLError) as error:
        told = str(error).splitlines() or [type(error).__name__]
        raise _DamagedError(f"{path} is damaged: {told[0]}") from error


def _check(
    path: Path, found: Mapping[str, Any], needed: Mapping[str, type | tuple[type, ...]]
) -> None:
    for name, kind in needed.items():
        if name not in found:
            raise _DamagedError(f"{path} says nothing of {name}: it is no training's, or damaged")
        if not isinstance(found[name], kind):
            raise _DamagedError(f"{path} is damaged: {name} is {found[name]!r}")


def _curves(path: Path, *, epochs: int) -> tuple[dict[str, Array], list[str]]:
    """The quantities' curves, and what of them is left out."""
    if epochs == 0:
        return {}, []
    with _reading(path):
        header, *lines = [*csv.reader(path.read_text().splitlines())] or [[]]
        if "epoch" not in header:
            raise _DamagedError(f"{path} has no column epoch")
        whole = [line for line in lines if len(line) == len(header)]
        cells = {name: [line[column] for line in whole] for column, name in enumerate(header)}
        numbers = {
            name: np.array([float(cell or "nan") for cell in cells[name]])
            for name in ("epoch", *CURVES)
            if name in cells
        }
        epoch = numbers.pop("epoch")
    if (np.diff(epoch) < 0).any() or not ((epoch >= 0) & (epoch < epochs)).all():
        raise _DamagedError(f"{path} is damaged: its epochs do not go up from 0 to {epochs - 1}")
    epoch = epoch.astype(int)
    remarks = []
    if cut_off := len(lines) - len(whole):
        remarks.append(f"{path}: lines cut off and left out: {cut_off}")
    for name, column in numbers.items():
        broken = sum(cell != "" for cell in cells[name]) - int(np.isfinite(column).sum())
        if broken:
            remarks.append(f"{path}: values of {name} not finite and left out: {broken}")
    training = np.isnan(numbers.get("eval/online_accuracy", np.full(len(whole), np.nan)))
    curves = {
        name: binned(epoch[mask], column[mask], epochs=epochs)
        for name, column in numbers.items()
        for mask in [~training if name == "eval/online_accuracy" else training]
        if np.isfinite(column[mask]).any()
    }
    return curves, remarks


def binned(
    epoch: npt.NDArray[np.int_],  # shape: (lines,), ascending
    values: Array,  # shape: (lines,)
    *,
    epochs: int,
) -> Array:  # shape: (points,)
    """Means over equal parts of the training, each the same number of parts of an epoch or one.

    A line lies where its share of its epoch ends, so that the last is at the epoch's end.
    """
    parts = max(1, _POINTS // epochs)
    _, first, count = np.unique(epoch, return_index=True, return_counts=True)
    rank = np.arange(len(epoch)) - np.repeat(first, count) + 1
    part = epoch * parts + -(-rank * parts // count.max()) - 1
    filled = np.isfinite(values)
    sums = np.bincount(part[filled], values[filled], minlength=epochs * parts)
    counts = np.bincount(part[filled], minlength=epochs * parts)
    means: Array = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    return means
