"""How far banks are from all training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from harness.figures.style import BLUE, DASHED, GREEN, GREY, ORANGE, VERMILLION, panels

_ERRORS = {"error": "error of log Z (nats)", "gradient_error": "relative error of its gradient"}
_LINES = list(zip((BLUE, GREEN, ORANGE, VERMILLION), "osD^", strict=True))


def bank_errors(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Errors over the size of a bank, with the slope of a random sample.

    Args:
        rows: Of ``bench bank_error``: ``bank``, ``size``, ``error`` and ``gradient_error``.
    """
    banks = list(dict.fromkeys(row["bank"] for row in rows))
    sizes = sorted({row["size"] for row in rows})
    figure, axes = panels(len(_ERRORS), columns=2, width=3.8, height=3.0, sharex=True)
    for axis, (name, label) in zip(axes, _ERRORS.items(), strict=True):
        for bank, (colour, marker) in zip(banks, _LINES[: len(banks)], strict=True):
            points = [(row["size"], row[name]) for row in rows if row["bank"] == bank]
            axis.plot(*zip(*points, strict=True), color=colour, marker=marker, label=bank)
        first = next(row[name] for row in rows if row["size"] == sizes[0])
        falling = [first * (sizes[0] / size) ** 0.5 for size in sizes]
        axis.plot(sizes, falling, color=GREY, linestyle=DASHED, zorder=0, label="1/√M")
        axis.set(xscale="log", yscale="log", xlabel="entries M", ylabel=label)
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.xaxis.set_minor_locator(NullLocator())
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=5, frameon=False
    )
    return figure
