"""How measured numbers are shown: the one table of their labels, scales and decimals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rich import box
from rich.table import Table


@dataclass(frozen=True)
class Metric:
    """A number that something measures.

    Attributes:
        name: In ``results.json``; with a namespace, a column of ``metrics.csv``.
        label: Heading of a table's column or of a panel.
        scale: What it is multiplied by to be shown.
        decimals: Of a table's cell.
        is_accuracy: Whether a table is sorted by it and its best value is in bold.
    """

    name: str
    label: str
    scale: float = 1.0
    decimals: int = 2
    is_accuracy: bool = False

    def text(self, value: float) -> str:
        """A value as a table shows it."""
        return f"{self.scale * value:.{self.decimals}f}"

    def mean_and_std(self, values: Sequence[float], *, decimals: int | None = None) -> str:
        """``mean ± sample standard deviation``; the mean alone of one value, a dash of none."""
        if not values:
            return "—"
        places = self.decimals if decimals is None else decimals
        scaled = [self.scale * value for value in values]
        std = f" ± {stdev(scaled):.{places}f}" if len(scaled) > 1 else ""
        return f"{fmean(scaled):.{places}f}{std}"


_SHOWN = (
    # Frozen features, in the order of a table's columns.
    Metric("linear_accuracy", "linear %", 100.0, is_accuracy=True),
    Metric("knn_accuracy", "kNN %", 100.0, is_accuracy=True),
    Metric("online_accuracy", "online %", 100.0, is_accuracy=True),
    Metric("effective_rank", "effective rank", decimals=1),
    Metric("uniformity", "uniformity"),
    Metric("alignment", "alignment"),
    Metric("dead_dimensions", "dead dimensions"),
    # Columns of metrics.csv that are drawn, in the order of the panels.
    Metric("train/loss", "loss", decimals=3),
    Metric("eval/online_accuracy", "online probe, %", 100.0),
    Metric("bank/ess_ratio", "ESS / pool size"),
    Metric("bank/unique_fraction", "unique share"),
    Metric("bank/age_mean", "mean age (steps)"),
    Metric("bank/false_negatives", "false negatives"),
    # Experiment 1.
    Metric("excess_nll", "gap"),
    Metric("wasserstein", "W1"),
    Metric("near_branches", "near", 100.0, decimals=0),
    Metric("coverage_50", "50", 100.0, decimals=0),
    Metric("coverage_90", "90", 100.0, decimals=0),
    Metric("branch_rmse", "RMSE", decimals=3),
    Metric("noise", "noise", decimals=3),
    Metric("weight_error", "weights"),
    Metric("fit_cpu_s", "s", decimals=1),
    # Experiment 3: a density's shape, its fit, and what its samples decode to.
    Metric("log_det", "log det"),
    Metric("trace", "trace"),
    Metric("spread", "spread"),
    Metric("log_likelihood", "log-lik.", decimals=1),
    Metric("components_used", "used", decimals=1),
    Metric("purity", "purity"),
    Metric("frechet", "Fréchet", decimals=1),
    Metric("precision", "prec."),
    Metric("recall", "recall"),
    Metric("coverage", "cover."),
    Metric("confident", "> 0.9"),
    Metric("classes", "classes", decimals=1),
    Metric("nearest", "nearest", decimals=1),
)
METRICS = {metric.name: metric for metric in _SHOWN}
CURVES = [name for name in METRICS if "/" in name]  # the columns of metrics.csv


def metric(name: str) -> Metric:
    """The table's entry of a name, or one made up for a name that it does not have."""
    return METRICS.get(name) or Metric(name, name.replace("_", " "), decimals=3)


def terminal_table(title: str, **style: Any) -> Table:
    """An experiment's table without columns; ``style`` as rich's takes it."""
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, **style)
