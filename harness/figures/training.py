"""Figures of trainings: curves, accuracies, banks, the learned density."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from harness.evaluation.density import PlanarDensity
from harness.figures.style import (
    BLUE,
    DIGIT_COLOURS,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    Array,
    panels,
)
from harness.metrics import METRICS, Metric

Curves = tuple[Array, Array]  # the steps, shape (N,), and the seeds' values there, (seeds, N)
_SEED: dict[str, Any] = {"color": GREY, "markersize": 3, "alpha": 0.5}

# At least 3:1 on white and on a dark page, and told apart without colour.
_LINES: tuple[dict[str, Any], ...] = tuple(
    {"color": colour, "linestyle": style}
    for style, colour in zip(
        ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))),
        (BLUE, VERMILLION, GREEN, "#B0609A", "#8C6D00"),
        strict=True,
    )
)


def loss_curves(
    curves: Mapping[str, Curves],
    terms: Mapping[str, Mapping[str, Array]],  # shapes: (seeds, N)
    *,
    note: str = "",
) -> Figure:
    """One panel a pipeline: the loss over steps but the first, mean and range over seeds.

    The first step's loss is of an empty bank, or of a network that has seen nothing.

    Args:
        curves: For each pipeline's title.
        terms: For some titles, what the loss is the sum of, by their names, at the same steps.
        note: Below the figure.
    """
    figure, axes = panels(len(curves), columns=3, width=4.0, height=2.4, sharex=True)
    for axis, (title, (steps, values)) in zip(axes, curves.items(), strict=True):
        steps = steps[1:]
        _band(axis, steps, values[:, 1:], color=BLUE, label="loss")
        for (name, parts), colour in zip(
            terms.get(title, {}).items(), (ORANGE, GREEN), strict=False
        ):
            _band(axis, steps, parts[:, 1:], color=colour, label=name)
        if title in terms:
            axis.legend(frameon=False, fontsize=8)
        axis.set_title(title, fontsize=10)
    figure.supxlabel(f"training step\n{note}".rstrip(), fontsize=10)
    figure.supylabel("loss (nats; not comparable between criteria)", fontsize=10)
    return figure


def ess_curves(
    curves: Mapping[str, Curves],
    *,
    thresholds: Collection[float],
    epochs: int,
) -> Figure:
    """Effective sample size of the banks over steps, as a share of the pool.

    It jumps whenever a bank is resampled, so the curves are means over an epoch's values.

    Args:
        curves: For each pipeline's title.
        thresholds: Where banks start to resample.
        epochs: Of each curve.
    """
    figure, (axis,) = panels(1, columns=1, width=8.0, height=3.4)
    for (title, (steps, values)), style in zip(
        curves.items(), itertools.cycle(_LINES), strict=False
    ):
        window = max(1, len(steps) // epochs)
        smooth = np.lib.stride_tricks.sliding_window_view(values, window, axis=1).mean(axis=-1)
        _band(axis, steps[window - 1 :], smooth, **style, label=title)
    for threshold in thresholds:
        axis.axhline(
            threshold, color=GREY, linestyle="--", linewidth=1, label="resampled below (default)"
        )
    axis.set(ylim=(0.0, 1.05), xlabel="training step", ylabel="effective sample size / pool size")
    axis.set_title("mean over an epoch's steps; bands are the range over seeds", fontsize=10)
    axis.legend(frameon=False, loc="lower left", ncols=2, fontsize=9)
    return figure


def accuracy_dots(
    accuracies: Mapping[str, Mapping[str, Sequence[float]]],
    untrained: Mapping[str, Sequence[float]],
) -> Figure:
    """Accuracies in percent, a panel a protocol: a dot a pipeline, the seeds' as small ones.

    Args:
        accuracies: For each pipeline's title, for each protocol's name, one share a seed.
        untrained: The same of the untrained network.
    """
    height = 0.3 * len(accuracies) + 0.5
    figure, axes = panels(
        len(untrained), columns=2, width=4.6, height=height, sharex=True, sharey=True
    )
    positions = np.arange(len(accuracies))
    for axis, protocol in zip(axes, untrained, strict=True):
        seeds = 100.0 * np.array([found[protocol] for found in accuracies.values()])
        start = 100.0 * np.array(untrained[protocol])
        axis.axvline(start.mean(), color=GREY, linestyle="--", linewidth=1.2)
        axis.axvspan(start.mean() - _std(start), start.mean() + _std(start), color=GREY, alpha=0.12)
        axis.plot(seeds, np.repeat(positions[:, None], seeds.shape[1], axis=1), "o", **_SEED)
        axis.errorbar(
            seeds.mean(axis=1), positions, xerr=_std(seeds), fmt="o", color=BLUE, markersize=6
        )
        axis.set_title(f"{protocol}, %", fontsize=10)
        axis.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)
    axes[0].set_yticks(positions, list(accuracies), fontsize=9)
    axes[0].invert_yaxis()
    figure.supxlabel(
        "test accuracy: mean ± standard deviation over seeds, which are the small dots;\n"
        "dashed line and grey band: the untrained network's",
        fontsize=9,
    )
    return figure


def density(planar: PlanarDensity, labels: Sequence[int]) -> Figure:
    """The learned density in the principal plane, the embeddings as dots in their class's colour.

    A class's name stands at the median of its dots.
    """
    figure, (axis,) = panels(1, columns=1, width=6.6, height=5.0)
    points = planar.points.double().cpu().numpy()
    margin = 0.15 * np.ptp(points, axis=0)
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    grid_x, grid_y = np.meshgrid(
        np.linspace(low[0], high[0], 120), np.linspace(low[1], high[1], 120)
    )
    grid = torch.tensor(np.stack([grid_x, grid_y], axis=-1)).to(planar.means)
    log_density: torch.Tensor = planar.density.log_prob(grid)  # type: ignore[no-untyped-call]
    values = log_density.exp().cpu().numpy()
    axis.contourf(grid_x, grid_y, values, levels=7, cmap="Greys", alpha=0.35)
    classes = np.array(labels)
    for label in sorted(set(labels)):
        own = points[classes == label]
        colour = DIGIT_COLOURS[label % len(DIGIT_COLOURS)]
        axis.plot(*own.T, ".", color=colour, markersize=5, alpha=0.7)
        x, y = np.median(own, axis=0)
        name = axis.text(x, y, str(label), color=colour, fontsize=15, weight="bold")
        name.set(ha="center", va="center", path_effects=[withStroke(linewidth=3, foreground="w")])
    means = planar.means.cpu().numpy()
    axis.plot(*means.T, "x", color="black", markersize=4, markeredgewidth=0.8, label="prototypes")
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[], aspect="equal")
    axis.set(xlabel="first principal direction", ylabel="second principal direction")
    axis.set_title(
        f"test embeddings in the plane of their largest variance ({planar.explained:.0%} of it);\n"
        "shaded: density of the learned mixture",
        fontsize=10,
    )
    axis.legend(frameon=False, loc="upper right", fontsize=9)
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
    figure, axes = _grid(there, epochs=epochs, height=2.1)
    for (facet, shown), axis in axes.items():
        for line, curves in facets[facet].items():
            if shown.name in curves:
                values = shown.scale * curves[shown.name]
                _band(axis, _epochs_of(values[0], epochs), values, linewidth=1.6, **styles[line])
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
    figure, axes = _grid(rows, epochs=epochs, height=1.35)
    for (row, shown), axis in axes.items():
        for values in rows[row].get(shown.name, []):
            there = np.isfinite(values)
            axis.plot(
                _epochs_of(values, epochs)[there],
                shown.scale * values[there],
                color=BLUE,
                linewidth=0.9,
                marker="." if there.sum() == 1 else None,  # a lone value has no line
            )
    return figure


def _grid(
    rows: Mapping[str, Collection[str]], *, epochs: int, height: float
) -> tuple[Figure, dict[tuple[str, Metric], Axes]]:
    """A panel for each row and each column of metrics.csv that the row has.

    All but the first column share their vertical axis; the first is the loss, which cannot be
    compared between rows.
    """
    columns = shown_metrics(rows.values())
    count = len(rows) * len(columns)
    figure, axes = panels(
        count, columns=len(columns), width=10.0 / len(columns), height=height, sharex=True
    )
    axis_of = dict(zip(itertools.product(rows, columns), axes, strict=True))
    for axis in axes:
        axis.grid(color=GREY, alpha=0.25, linewidth=0.6)
        axis.set_xlim(0.0, 1.03 * epochs)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))  # whole epochs
    for row, there in rows.items():
        of_row = [axis_of[row, shown] for shown in columns]
        for axis, shown in zip(of_row, columns, strict=True):
            axis.set_visible(shown.name in there)
        first = next(axis for axis in of_row if axis.get_visible())
        first.set_ylabel("\n".join(textwrap.wrap(row, 26)), labelpad=8, parse_math=False)
        first.yaxis.label.set(fontsize=9, rotation=0, ha="right", va="center")
    for column, shown in enumerate(columns):
        visible = [axis_of[row, shown] for row in rows if axis_of[row, shown].get_visible()]
        for axis in visible[1:] if column else []:
            axis.sharey(visible[0])
        visible[0].set_title(shown.label, fontsize=10, parse_math=False)
        visible[-1].set_xlabel("epoch", fontsize=9)
        visible[-1].tick_params(labelbottom=True)
    return figure, axis_of


def shown_metrics(rows: Iterable[Collection[str]]) -> list[Metric]:
    """The metrics that are in any of the rows, in the order of their panels."""
    there = {name for row in rows for name in row}
    return [shown for name, shown in METRICS.items() if name in there]


def _epochs_of(values: Array, epochs: int) -> Array:
    return np.arange(1, len(values) + 1) * epochs / len(values)


def _std(values: Array) -> Array:
    """Over the last dimension; 0 for a single value."""
    found: Array = values.std(axis=-1, ddof=min(1, values.shape[-1] - 1))
    return found


def _band(
    axis: Axes,
    x: Array,  # shape: (points,)
    values: Array,  # shape: (runs, points)
    *,
    color: str,
    **style: Any,
) -> None:
    """Mean and range over runs; values may have gaps."""
    there = np.isfinite(values).any(axis=0)
    x, values = x[there], values[:, there]
    axis.plot(x, np.nanmean(values, axis=0), color=color, **{"linewidth": 1.2, **style})
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    axis.fill_between(x, low, high, color=color, alpha=0.22, linewidth=0)
