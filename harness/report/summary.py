"""Runs as the rows of tables: what counts as one configuration, and what stands beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]

from harness.metrics import METRICS, Metric, metric
from harness.report.reading import Array, Run
from harness.settings import is_neutral

_PAPER = Path(__file__).parents[1] / "results" / "paper.yaml"
# What besides cannot change a metric. The options of an experiment say which trainings to run; what
# acts is in the training's own.
_NO_DIFFERENCE = re.compile(r"seed|experiment\.(?!name$).*|trainer\.(threads|(log|probe)_every)")
# What makes the rows of one table; all else is the same for the whole table.
_OF_A_ROW = re.compile(r"(method|bank)(\..*)?")


@dataclass(frozen=True)
class Row:
    """A configuration: runs whose options that can change a result are the same but the seed.

    Attributes:
        title: What a table calls it, unlike any other row's of the table.
        config: The settings that can change a result, by their dotted names.
        runs: One a seed, in the seeds' order.
    """

    title: str
    config: Mapping[str, Any]
    runs: Sequence[Run]

    def values(self, metric: str) -> list[float]:
        """A metric of every run that has it."""
        found = [run.results["metrics"] for run in self.runs if run.results]
        return [float(metrics[metric]) for metrics in found if metric in metrics]

    def curves(self) -> dict[str, Array]:  # shapes: (seeds, points)
        """The curves of each column of metrics.csv, of the runs that logged it."""
        names = dict.fromkeys(name for run in self.runs for name in run.curves)
        return {
            name: np.stack([run.curves[name] for run in self.runs if name in run.curves])
            for name in names
        }


@dataclass(frozen=True)
class Section:
    """The rows of one table: the same experiment, data, network, training length and evaluation.

    ``untrained`` are the runs of no epochs of the same data, network, evaluation and seeds.
    """

    experiment: str
    data: str
    config: Mapping[str, Any]
    rows: Sequence[Row]
    untrained: Row

    @property
    def metrics(self) -> list[Metric]:
        """All metrics that a run has, those of the table first and in its order."""
        found = [run.results["metrics"] for row in self.rows for run in row.runs if run.results]
        names = dict.fromkeys(name for metrics in found for name in metrics)
        known = [name for name in METRICS if name in names]
        return [metric(name) for name in dict.fromkeys([*known, *names])]

    @property
    def ranked(self) -> list[Row]:
        """The rows and the untrained network, by the first accuracy that there is."""
        rows = [*self.rows, self.untrained] if self.untrained.runs else list(self.rows)
        by = next((shown.name for shown in self.metrics if shown.is_accuracy), "")
        return sorted(rows, key=lambda row: -fmean(row.values(by) or [0.0]))


def sections(runs: Sequence[Run]) -> tuple[list[Section], list[str]]:
    """The finished runs in tables, and a line for each that repeats another one.

    Returns:
        The tables, and what was left out.
    """
    tables: dict[str, dict[str, dict[int, Run]]] = {}  # each row's runs by their seeds
    left_out: list[str] = []
    untrained: dict[str, dict[int, Run]] = {}
    for run in runs:
        if not run.results:
            continue
        if run.epochs == 0:
            untrained.setdefault(_start(run), {})[run.config["seed"]] = run
            continue
        config = _matters(run)
        shared = {name: value for name, value in config.items() if not _OF_A_ROW.fullmatch(name)}
        table = json.dumps([run.results["experiment"], run.results["data"], shared], sort_keys=True)
        alike = tables.setdefault(table, {}).setdefault(json.dumps(config, sort_keys=True), {})
        twin = alike.setdefault(run.config["seed"], run)
        if twin is not run:
            left_out.append(f"{run.folder} repeats {twin.folder}: same settings, same seed")
    found = [_section(table.values(), untrained) for table in tables.values()]
    found.sort(key=lambda section: (section.experiment, section.data))
    return found, left_out


def differences(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The options that do not have one value in all configs; one that is absent differs."""
    names = dict.fromkeys(name for config in configs for name in config)
    return [name for name in names if len({option(config, name) for config in configs}) > 1]


def option(config: Mapping[str, Any], name: str) -> str:
    """An option's value as one reads it; a dash where a method or bank has no such option."""
    if name not in config:
        return "—"
    words = {True: "yes", False: "no", None: "none"}
    value = config[name]
    return words[value] if value is None or isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Source:
    """Numbers printed elsewhere: an entry of ``paper.yaml``, which explains the fields."""

    source: str
    experiment: str
    beside: bool
    metric: str
    protocol: str
    rows: Sequence[Mapping[str, Any]]
    where: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def compared(self) -> list[str]:
        """The settings that are compared with the printed ones."""
        of_rows = (name for row in self.rows for name in row.get("settings", {}))
        return list(dict.fromkeys([*self.settings, *of_rows]))

    def stands_beside(self, rows: Sequence[Row]) -> dict[str, tuple[float | None, list[str]]]:
        """For titles of rows, the number printed for the same method and bank.

        And in what the row differs from its protocol. Of several rows that it may stand beside,
        those that differ the least have it.
        """
        placed = {}
        for printed in self.rows:
            where = {**self.where, **printed["where"]}
            fitting = {
                row.title: deviations(row.config, printed.get("settings", {}))
                for row in rows
                if all(_agrees(row.config, name, wanted) for name, wanted in where.items())
            }
            least = min(map(len, fitting.values()), default=0)
            for title, found in fitting.items():
                if len(found) == least:
                    placed[title] = (printed["accuracy"], found)
        return placed


def sources(experiment: str) -> list[Source]:
    """What others printed for an experiment."""
    entries = yaml.safe_load(_PAPER.read_text())
    found = [Source(**{"where": {}, "settings": {}, **entry}) for entry in entries]
    return [source for source in found if source.experiment == experiment]


def _matters(run: Run) -> dict[str, Any]:
    """The settings that can change a result."""
    config = {
        name: value
        for name, value in run.config.items()
        if not (is_neutral(name) or _NO_DIFFERENCE.fullmatch(name))
    }
    if config.get("data.name") in ("digits", "cifar10", "mnist"):
        config.pop("data.root", None)  # another machine's place for the same images
    return config


def _start(run: Run) -> str:
    """What an untrained network's metrics depend on, but for the seed."""
    parts = ("data.", "backbone.", "evaluation.")
    config = {name: value for name, value in _matters(run).items() if name.startswith(parts)}
    return json.dumps(config, sort_keys=True)


def _section(
    groups: Iterable[Mapping[int, Run]], untrained: Mapping[str, Mapping[int, Run]]
) -> Section:
    runs = [[group[seed] for seed in sorted(group)] for group in groups]
    configs = [_matters(group[0]) for group in runs]
    first = runs[0][0].results
    titles = _distinct([str(group[0].results["title"]) for group in runs], configs)
    rows = [Row(*parts) for parts in zip(titles, configs, runs, strict=True)]
    rows.sort(key=lambda row: _by_number(row.title))
    shared = {name: value for name, value in configs[0].items() if not _OF_A_ROW.fullmatch(name)}
    seeds = {seed for group in groups for seed in group}
    start = [run for seed, run in untrained.get(_start(runs[0][0]), {}).items() if seed in seeds]
    none = Row("untrained network", {}, start)
    return Section(first["experiment"], first["data"], shared, rows, none)


def _distinct(titles: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The titles; where several are the same, with the options that tell them apart."""
    found = []
    for title, config in zip(titles, configs, strict=True):
        alike = [other for name, other in zip(titles, configs, strict=True) if name == title]
        told = [f"{name} {option(config, name)}" for name in differences(alike)]
        found.append(f"{title} ({', '.join(told)})" if told else title)
    return found


def _by_number(title: str) -> list[tuple[str, int]]:
    """Sorts "M = 256" before "M = 4096"."""
    return [(word, int(number or 0)) for word, number in re.findall(r"(\D*)(\d*)", title)]


def _agrees(config: Mapping[str, Any], name: str, wanted: Any) -> bool:
    return name in config and config[name] in (wanted if isinstance(wanted, list) else [wanted])


def deviations(config: Mapping[str, Any], printed: Mapping[str, Any]) -> list[str]:
    """In what settings differ from the printed ones."""
    return [
        f"{name} {option(config, name)} (paper: {option(printed, name)})"
        for name in printed
        if not _agrees(config, name, printed[name])
    ]
