"""The results in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

_Format = Callable[[Sequence[float]], str]

_LEGEND = (
    "gap: conditional NLL above the truth's, nats; W1: Wasserstein distance to the truth; near:\n"
    "% of the mass within 3 noise deviations of a branch; 50, 90: % of the targets in regions\n"
    "said to hold 50, 90 %; RMSE: of the branches; noise: deviation of components; weights:\n"
    "error of the branches' weights; s: CPU seconds a fit"
)


def show(results: dict[str, Any], console: Console) -> None:
    """Prints a table a dataset, of means over the seeds."""
    console.print(results["data"], soft_wrap=True)
    columns = _columns()
    for dataset in results["datasets"].values():
        table = Table(
            title=f"{dataset['title']}; mean over {len(results['seeds'])} seeds (± deviation)",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        table.add_column("model", no_wrap=True)
        for heading, _ in columns.values():
            table.add_column(heading, justify="right", no_wrap=True)
        for name, row in dataset["rows"].items():
            cells = [form(row[key]) if key in row else "" for key, (_, form) in columns.items()]
            table.add_row(row["title"], *cells, end_section=name == "truth")
        console.print(table)
    console.print(_LEGEND, soft_wrap=True)


def _columns() -> dict[str, tuple[str, _Format]]:
    """Heading and format by measure."""
    return {
        "excess_nll": ("gap", _spread),
        "wasserstein": ("W1", _decimals(2)),
        "near_branches": ("near", _percent),
        "coverage_50": ("50", _percent),
        "coverage_90": ("90", _percent),
        "branch_rmse": ("RMSE", _decimals(3)),
        "noise": ("noise", _decimals(3)),
        "weight_error": ("weights", _decimals(2)),
        "fit_cpu_s": ("s", _decimals(1)),
    }


def _spread(values: Sequence[float]) -> str:
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{fmean(values):.2f}{spread}"


def _percent(values: Sequence[float]) -> str:
    return f"{100 * fmean(values):.0f}"


def _decimals(number: int) -> _Format:
    return lambda values: f"{fmean(values):.{number}f}"
