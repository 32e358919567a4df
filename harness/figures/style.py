"""What figures share: colours and panels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

# Okabe and Ito (2008), "Color universal design".
BLUE, ORANGE, GREEN, VERMILLION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#555555"
DIGIT_COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7",
    "#56B4E9", "#B15928", "#8C6D00", "#7B3294", "#666666",
)  # fmt: skip
DASHED = (0, (4, 2))


def panels(
    count: int, *, columns: int, width: float, height: float, **sharing: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of panels, row by row.

    Args:
        count: Panels.
        columns: At most.
        width: Of a panel, in inches.
        height: The same.
        sharing: Of axes, as ``Figure.subplots`` takes it.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.6), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **sharing).flat)
    for axis in axes:
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def hide_axes(panel: Axes) -> None:
    """Leaves of a panel only what is drawn in it."""
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
