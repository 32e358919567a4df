"""Failures beside their remedies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.figures.style import BLUE, VERMILLION, panels

Curves = dict[str, list[float]]

_SIDES = {"failure": VERMILLION, "remedy": BLUE}
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


def end(curve: Sequence[float]) -> float:
    """Where a curve that may be noisy ends."""
    return median(curve[-max(1, len(curve) // 10) :])


def failure_panels(demonstrations: Sequence[Demonstration]) -> Figure:
    """A panel each, of what is measured over the steps.

    Above a panel stand the labels of its curves with the numbers at which they end.
    """
    figure, axes = panels(len(demonstrations), columns=4, width=3.4, height=3.3)
    for axis, demonstration in zip(axes, demonstrations, strict=True):
        _panel(axis, demonstration)
    handles = [Line2D([], [], color=colour, linewidth=3) for colour in _SIDES.values()]
    figure.legend(
        handles,
        list(_SIDES),
        loc="outside upper left",
        ncols=2,
        frameon=False,
        title="numbers: median over the last tenth of the steps",
        title_fontsize=9,
        alignment="left",
    )
    return figure


def _panel(axis: Axes, demonstration: Demonstration) -> None:
    sides = (demonstration.failure, demonstration.remedy)
    for curves, colour in zip(sides, _SIDES.values(), strict=True):
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
