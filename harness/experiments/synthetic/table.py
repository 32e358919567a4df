"""The results in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from harness.metrics import METRICS

_COLUMNS = (
    *("excess_nll", "wasserstein", "near_branches", "coverage_50", "coverage_90", "branch_rmse"),
    *("noise", "weight_error", "fit_cpu_s"),
)
_LEGEND = (
    "gap: conditional NLL above the truth's, nats; W1: Wasserstein distance to the truth; near:\n"
    "% of the mass within 3 noise deviations of a branch; 50, 90: % of the targets in regions\n"
    "said to hold 50, 90 %; RMSE: of the branches; noise: deviation of components; weights:\n"
    "error of the branches' weights; s: CPU seconds a fit"
)


def show(results: dict[str, Any], console: Console) -> None:
    """Prints a table a dataset, of means over the seeds."""
    console.print(results["data"], soft_wrap=True)
    for dataset in results["datasets"].values():
        table = Table(
            title=f"{dataset['title']}; mean over {len(results['seeds'])} seeds (± deviation)",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        table.add_column("model", no_wrap=True)
        for name in _COLUMNS:
            table.add_column(METRICS[name].label, justify="right", no_wrap=True)
        for name, row in dataset["rows"].items():
            cells = [_cell(column, row[column]) if column in row else "" for column in _COLUMNS]
            table.add_row(row["title"], *cells, end_section=name == "truth")
        console.print(table)
    console.print(_LEGEND, soft_wrap=True)


def _cell(column: str, values: Sequence[float]) -> str:
    shown = METRICS[column]
    return shown.mean_and_std(values if column == "excess_nll" else [fmean(values)])
