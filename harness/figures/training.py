"""Figures of trainings: curves, accuracies, banks, the learned density."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.evaluation.density import PlanarDensity
from harness.metrics import METRICS, Metric

Array = npt.NDArray[np.float64]

# Okabe and Ito (2008), "Color universal design".
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#555555"
_VERMILLION = "#D55E00"
# At least 3:1 on white and on a dark page, and told apart without colour.
_LINES: tuple[dict[str, Any], ...] = tuple(
    {"color": colour, "linestyle": style}
    for style, colour in zip(
        ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))),
        (BLUE, _VERMILLION, GREEN, "#B0609A", "#8C6D00"),
        strict=True,
    )
)
DIGIT_COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7",
    "#56B4E9", "#000000", "#8C6D00", "#7B3294", "#666666",
)  # fmt: skip


def loss_curves(
    curves: Mapping[str, Array],  # shapes: (seeds, steps)
) -> Figure:
    """One panel a pipeline: the loss over steps, mean and range over seeds."""
    columns = 3
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(4.0 * columns, 2.4 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axis, (title, values) in zip(axes.flat, curves.items(), strict=False):
        _band(axis, values, colour=BLUE)
        axis.set_title(title, fontsize=10)
    for axis in axes.flat[len(curves) :]:
        axis.set_visible(False)
    figure.supxlabel("training step", fontsize=10)
    figure.supylabel("loss (nats; not comparable between criteria)", fontsize=10)
    return figure


def ess_curves(
    curves: Mapping[str, Array],  # shapes: (seeds, steps)
    *,
    thresholds: Collection[float],
    window: int,
) -> Figure:
    """Effective sample size of the banks over steps, as a share of the pool.

    It jumps whenever a bank is resampled, so the curves are means over ``window`` steps.

    Args:
        curves: For each pipeline's title, shape (seeds, steps).
        thresholds: Where banks start to resample.
        window: Steps to take the mean over.
    """
    figure = Figure(figsize=(8.0, 4.0), layout="constrained")
    axis = figure.subplots()
    for (title, values), colour in zip(curves.items(), (BLUE, ORANGE, GREEN), strict=False):
        smooth = np.lib.stride_tricks.sliding_window_view(values, window, axis=1).mean(axis=-1)
        _band(axis, smooth, colour=colour, label=title, first=window - 1)
    for threshold in thresholds:
        axis.axhline(
            threshold, color=GREY, linestyle="--", linewidth=1, label="resampled below (default)"
        )
    axis.set_ylim(0.0, 1.05)
    axis.set_xlabel("training step")
    axis.set_ylabel("effective sample size / pool size")
    axis.set_title(f"mean over {window} steps; bands are the range over seeds", fontsize=10)
    axis.legend(frameon=False, loc="lower left", ncols=2, fontsize=9)
    return figure


def accuracy_bars(
    accuracies: Mapping[str, Mapping[str, Sequence[float]]],
    untrained: Mapping[str, Sequence[float]],
) -> Figure:
    """Mean accuracies in percent with every seed's, beside the untrained network's.

    Args:
        accuracies: For each pipeline's title, for each protocol's name, one share a seed.
        untrained: The same of the untrained network.
    """
    figure = Figure(figsize=(8.0, 0.62 * len(accuracies) + 1.4), layout="constrained")
    axis = figure.subplots()
    places = np.arange(len(accuracies), dtype=float)
    height = 0.36
    lowest = 100.0
    for number, (protocol, colour) in enumerate(zip(untrained, (BLUE, ORANGE), strict=False)):
        shift = (number - 0.5) * height
        seeds = 100.0 * np.array([list(found[protocol]) for found in accuracies.values()])
        axis.barh(places + shift, seeds.mean(axis=1), height, color=colour, label=protocol)
        axis.plot(
            seeds,
            np.broadcast_to((places + shift)[:, None], seeds.shape),
            linestyle="none",
            marker="o",
            markersize=4,
            markerfacecolor="white",
            markeredgecolor="black",
            markeredgewidth=0.8,
        )
        baseline = 100.0 * float(np.mean(untrained[protocol]))
        axis.axvline(
            baseline, color=colour, linestyle="--", linewidth=1.5, label=f"{protocol}, untrained"
        )
        lowest = min(lowest, baseline, float(seeds.min()))
    axis.set_yticks(places, list(accuracies))
    axis.invert_yaxis()
    start = 5.0 * np.floor((lowest - 1.0) / 5.0)
    axis.set_xlim(start, 100.0)
    axis.set_xlabel(f"test accuracy in percent (the axis starts at {start:.0f}); dots are seeds")
    handles, names = axis.get_legend_handles_labels()
    order = np.argsort(["untrained" in name for name in names], kind="stable")
    figure.legend(
        [handles[place] for place in order],
        [names[place] for place in order],
        loc="outside upper center",
        ncols=4,
        frameon=False,
        fontsize=9,
    )
    return figure


def density(
    planar: PlanarDensity,
    labels: Sequence[int],
) -> Figure:
    """The learned density in the principal plane, the embeddings as the digits they show."""
    figure = Figure(figsize=(7.0, 5.6), layout="constrained")
    axis = figure.subplots()
    points = planar.points.double().cpu().numpy()
    margin = 0.15 * np.ptp(points, axis=0)
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    grid_x, grid_y = np.meshgrid(
        np.linspace(low[0], high[0], 120), np.linspace(low[1], high[1], 120)
    )
    places = torch.tensor(np.stack([grid_x, grid_y], axis=-1)).to(planar.means)
    log_density: torch.Tensor = planar.density.log_prob(places)  # type: ignore[no-untyped-call]
    values = log_density.exp().cpu().numpy()
    filled = axis.contourf(grid_x, grid_y, values, levels=12, cmap="Blues", alpha=0.5)
    figure.colorbar(filled, ax=axis, label="density of the learned mixture (per unit area)")
    means = planar.means.cpu().numpy()
    axis.plot(*means.T, "x", color="black", markersize=5, label="prototypes")
    for (x, y), label in zip(points, labels, strict=True):
        axis.text(
            x, y, str(label), color=DIGIT_COLOURS[label % 10], fontsize=8, ha="center", va="center"
        )
    axis.set_xlim(low[0], high[0])
    axis.set_ylim(low[1], high[1])
    axis.set_xlabel("first principal direction")
    axis.set_ylabel("second principal direction")
    axis.set_aspect("equal")
    axis.set_title(
        f"test embeddings in the plane of their largest variance ({planar.explained:.0%} of it)",
        fontsize=10,
    )
    axis.legend(frameon=True, loc="upper right")
    return figure


def bank_curves(
    facets: Mapping[str, Mapping[str, Mapping[str, Array]]],  # shapes: (seeds, points)
    *,
    epochs: int,
) -> Figure:
    """The paper's Figure 8 (Huang 2026): quantities side by side, a line a bank.

    Args:
        facets: For each row of panels, for each line, its curves over the whole training by their
            columns of metrics.csv, a panel each.
        epochs: The training's length.
    """
    lines = dict.fromkeys(line for facet in facets.values() for line in facet)
    styles = {line: _LINES[number % len(_LINES)] for number, line in enumerate(lines)}
    there = {
        facet: {quantity for curves in banks.values() for quantity in curves}
        for facet, banks in facets.items()
    }
    figure, panels = _grid(there, height=2.1)
    for (facet, shown), axis in panels.items():
        for line, curves in facets[facet].items():
            if shown.name in curves:
                values = shown.scale * curves[shown.name]
                _range_over_seeds(axis, values, epochs=epochs, style=styles[line])
    handles = [Line2D([], [], linewidth=1.6, **styles[line]) for line in lines]
    figure.legend(
        handles, lines, loc="outside upper center", ncols=3, frameon=False, handlelength=3
    )
    return figure


def run_curves(
    rows: Mapping[str, Mapping[str, Array]],  # shapes: (runs, points)
    *,
    epochs: int,
) -> Figure:
    """Every run's curves: a row of panels a configuration, a thin line a run.

    Args:
        rows: For each configuration, the runs' curves over the whole training by their columns of
            metrics.csv, a panel each.
        epochs: The training's length.
    """
    figure, panels = _grid(rows, height=1.35)
    for (row, shown), axis in panels.items():
        for values in rows[row].get(shown.name, []):
            _logged(axis, shown.scale * values, epochs=epochs)
    return figure


def _grid(
    rows: Mapping[str, Collection[str]], *, height: float
) -> tuple[Figure, dict[tuple[str, Metric], Axes]]:
    """A panel for each row and each column of metrics.csv that the row has.

    All but the first column share their vertical axis; the first is the loss, which cannot be
    compared between rows.
    """
    columns = shown_metrics(rows.values())
    figure = Figure(figsize=(10.0, height * len(rows) + 0.8), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True)
    for panels, (row, there) in zip(axes, rows.items(), strict=True):
        for axis, shown in zip(panels, columns, strict=True):
            axis.set_visible(shown.name in there)
            axis.grid(color=GREY, alpha=0.25, linewidth=0.6)
            axis.tick_params(labelsize=8)
            axis.spines[["top", "right"]].set_visible(False)
        first = next(axis for axis in panels if axis.get_visible())
        first.set_ylabel(
            "\n".join(textwrap.wrap(row, 26)),
            **{"fontsize": 9, "rotation": 0, "ha": "right", "va": "center", "labelpad": 8},
            parse_math=False,
        )
    for column, shown in enumerate(columns):
        visible = [axis for axis in axes[:, column] if axis.get_visible()]
        for axis in visible[1:] if column else []:
            axis.sharey(visible[0])
        visible[0].set_title(shown.label, fontsize=10, parse_math=False)
        visible[-1].set_xlabel("epoch", fontsize=9)
        visible[-1].tick_params(labelbottom=True)
    places = itertools.product(rows, columns)
    return figure, dict(zip(places, axes.flat, strict=True))


def shown_metrics(rows: Iterable[Collection[str]]) -> list[Metric]:
    """The metrics that are in any of the rows, in the order of their panels."""
    there = {name for row in rows for name in row}
    return [shown for name, shown in METRICS.items() if name in there]


def _epochs_of(values: Array, epochs: int) -> Array:
    return np.arange(1, len(values) + 1) * epochs / len(values)


def _logged(axis: Axes, values: Array, *, epochs: int) -> None:
    """One run's curve over the places where it has a value; a lone value is a dot."""
    there = np.isfinite(values)
    axis.plot(
        _epochs_of(values, epochs)[there],
        values[there],
        color=BLUE,
        linewidth=0.9,
        marker="." if there.sum() == 1 else None,
    )


def _range_over_seeds(axis: Axes, values: Array, *, epochs: int, style: Mapping[str, Any]) -> None:
    """Mean and range over the runs of values of shape (runs, points) that may have gaps."""
    there = np.isfinite(values).any(axis=0)
    places, values = _epochs_of(values[0], epochs)[there], values[:, there]
    axis.plot(places, np.nanmean(values, axis=0), linewidth=1.6, **style)
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    axis.fill_between(places, low, high, color=style["color"], alpha=0.2, linewidth=0)


def _band(
    axis: Axes, values: Array, *, colour: str, label: str | None = None, first: int = 0
) -> None:
    """Mean and range over seeds of values of shape (seeds, steps), from step ``first`` on."""
    steps = np.arange(first, first + values.shape[1])
    axis.plot(steps, values.mean(axis=0), color=colour, linewidth=1.2, label=label)
    axis.fill_between(
        steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.25, linewidth=0
    )
