"""Failures beside their remedies as figures: pure functions of data, as in ``harness.figures``."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.experiments.failure_modes.demonstrations import Demonstration, end

_FAILURE, _REMEDY = "#D55E00", "#0072B2"  # Okabe and Ito (2008), "Color universal design"
_COLUMNS = 4
_LINES = ("-", "--")  # of the curves of a side


def panels(demonstrations: Sequence[Demonstration]) -> Figure:
    """A panel each, of what is measured over the steps.

    Above a panel stand the labels of its curves with the numbers at which they end.
    """
    columns = min(len(demonstrations), _COLUMNS)
    rows = -(-len(demonstrations) // columns)
    figure = Figure(figsize=(3.3 * columns + 0.4, 3.3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, demonstration in zip(axes.flat, demonstrations, strict=False):
        _panel(axis, demonstration)
    for axis in axes.flat[len(demonstrations) :]:
        axis.set_visible(False)
    return figure


def _panel(axis: Axes, demonstration: Demonstration) -> None:
    sides = ((demonstration.failure, _FAILURE), (demonstration.remedy, _REMEDY))
    for curves, colour in sides:
        for (label, curve), style in zip(curves.items(), _LINES, strict=False):
            axis.plot(
                curve,
                color=colour,
                linestyle=style,
                linewidth=1.6,
                label=f"{label}: {end(curve):.2g}",
            )
    if demonstration.logarithmic:
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=-0.03)
    axis.set_xlabel("step", fontsize=9)
    axis.set_ylabel(demonstration.quantity, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    legend = axis.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        borderpad=0.0,
        frameon=False,
        fontsize=9,
        labelcolor="linecolor",
        title=demonstration.title,
        title_fontproperties={"weight": "bold", "size": 10},
        alignment="left",
    )
    legend.set_in_layout(True)
