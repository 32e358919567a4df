"""Failures beside their remedies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Curves = dict[str, list[float]]

_FAILURE, _REMEDY = "#D55E00", "#0072B2"  # Okabe and Ito (2008), "Color universal design"
_COLUMNS = 4
_LINES = ("-", "--")  # of the curves of a side


@dataclass(frozen=True)
class Demonstration:
    """A failure beside its remedy.

    Attributes:
        title: What fails.
        quantity: What is measured at every step.
        failure: For each label, the quantity over the steps; the headline number is the median over
            the last tenth of the first curve.
        remedy: The same.
        logarithmic: Whether orders of magnitude matter.
    """

    title: str
    quantity: str
    failure: Curves
    remedy: Curves
    logarithmic: bool = False

    @property
    def numbers(self) -> tuple[float, float]:
        """The headline numbers of the failure and of the remedy."""
        failure, remedy = (next(iter(side.values())) for side in (self.failure, self.remedy))
        return end(failure), end(remedy)


def end(curve: Sequence[float]) -> float:
    """Where a curve that may be noisy ends."""
    return median(curve[-max(1, len(curve) // 10) :])


def failure_panels(demonstrations: Sequence[Demonstration]) -> Figure:
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
