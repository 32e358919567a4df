"""Figures of sampled latents and what they decode to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.figures.style import DASHED, DIGIT_COLOURS, GREY, Array, hide_axes, panels

Pixels = npt.NDArray[np.uint8]


def latent_map(
    points: Array,  # shape: (N, 2)
    labels: Sequence[int],
    sampled: Array,  # shape: (M, 2)
    *,
    title: str,
) -> Figure:
    """The paper's Figure 9 (Huang 2026): real embeddings by class, and sampled ones."""
    figure, (axis,) = panels(1, columns=1, width=6.4, height=4.6)
    colours = [DIGIT_COLOURS[label] for label in labels]
    axis.scatter(points[:, 0], points[:, 1], c=colours, s=5, alpha=0.55, linewidths=0)
    axis.scatter(sampled[:, 0], sampled[:, 1], marker="x", c="black", s=16, linewidths=0.8)
    hide_axes(axis)
    axis.set_title(title, fontsize=11)
    handles = [
        Line2D([], [], linestyle="none", marker="o", color=DIGIT_COLOURS[digit], label=str(digit))
        for digit in sorted(set(labels))
    ]
    handles.append(Line2D([], [], linestyle="none", marker="x", color="black", label="sampled"))
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=9)
    return figure


def image_grids(
    grids: Pixels,  # shape: (G, 16, H, W)
    titles: Sequence[str],
) -> Figure:
    """The paper's Figure 10 (Huang 2026): a 4 x 4 grid of images for each seed, five in a row."""
    figure, axes = panels(len(grids), columns=5, width=1.9, height=2.0)
    for axis, grid, title in zip(axes, grids, titles, strict=True):
        _show(axis, _tiled(grid, columns=4))
        axis.set_title(title, fontsize=9)
    return figure


def image_rows(
    rows: Mapping[str, Pixels],  # shapes: (N, H, W)
    *,
    title: str,
) -> Figure:
    """Rows of images that belong together from top to bottom, each with its name."""
    width = 1.4 + 0.6 * len(next(iter(rows.values())))
    figure, axes = panels(len(rows), columns=1, width=width, height=0.66)
    for axis, (name, images) in zip(axes, rows.items(), strict=True):
        _show(axis, _tiled(images, columns=len(images)))
        axis.set_ylabel(name, fontsize=9, rotation=0, ha="right", va="center")
        axis.set_anchor("E")  # what room is left is the names'
    figure.suptitle(title, fontsize=10)
    return figure


def calibration(levels: Sequence[float], curves: Mapping[str, Sequence[float]]) -> Figure:
    """What regions hold beside what they should: honest ones lie on the diagonal.

    Args:
        levels: Shares that the regions should hold.
        curves: By density, the shares that they hold.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=DASHED)
    for (name, held), colour in zip(curves.items(), cycle(DIGIT_COLOURS), strict=False):
        axis.plot(levels, held, marker=".", color=colour, label=name)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="a region should hold", ylabel="it holds")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    return figure


def _show(axis: Axes, image: Pixels) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    hide_axes(axis)


def _tiled(
    images: Pixels,  # shape: (N, H, W)
    *,
    columns: int,
) -> Pixels:
    """Images side by side with a white line of two pixels between them."""
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=255)
    count, height, width = framed.shape
    tiles = framed.reshape(count // columns, columns, height, width)
    return tiles.transpose(0, 2, 1, 3).reshape(-1, columns * width)
