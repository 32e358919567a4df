"""Figures of Experiment 1: conditional densities beside the true branches, arms, and gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from harness.figures.style import BLUE, DASHED, GREEN, GREY, ORANGE, VERMILLION, Array, panels

_COLOURS = (BLUE, ORANGE, GREEN)  # of components


@dataclass(frozen=True)
class DensityPanel:
    """What a panel of :func:`conditional_densities` shows of a model.

    Attributes:
        density: p(target | context) on the grid, shape (targets, contexts).
        band: Mean and standard deviation, shape (2, contexts), of a single Gaussian.
        means: Of the components of a joint mixture, shape (K, 2).
        covariances: Of the same, shape (K, 2, 2).
    """

    density: Array
    band: Array | None = None
    means: Array | None = None
    covariances: Array | None = None


def conditional_densities(
    contexts: Array,  # shape: (C,)
    targets: Array,  # shape: (T,)
    branches: Array,  # shape: (C, K)
    models: Mapping[str, DensityPanel],
    *,
    pairs: Array,  # shape: (N, 2)
    title: str,
) -> Figure:
    """The paper's Figures 4 and 6 (Huang 2026): every model's conditional density, same axes.

    Args:
        contexts: Places of the grid, evenly spaced.
        targets: The same.
        branches: The true branches.
        models: For each title; the first is the truth, with the pairs as dots.
        pairs: Some of the training pairs.
        title: Of the figure.
    """
    figure, axes = panels(len(models), columns=3, width=3.3, height=2.6, sharex=True, sharey=True)
    # Of a branch that lies alone; where branches meet it is higher.
    highest = float(np.median(next(iter(models.values())).density.max(axis=0)))
    shades = colormaps["Blues"].resampled(32)  # files of half the size
    for axis, (name, panel) in zip(axes, models.items(), strict=True):
        image = axis.imshow(
            panel.density,
            extent=(contexts[0], contexts[-1], targets[0], targets[-1]),
            origin="lower",
            aspect="auto",
            cmap=shades,
            norm=PowerNorm(0.5, vmin=0.0, vmax=highest, clip=True),
        )
        for branch in branches.T:
            axis.plot(contexts, branch, color=VERMILLION, linewidth=0.9, linestyle=DASHED)
        _overlay(axis, contexts, panel)
        axis.set_title(name, fontsize=10)
    axes[0].plot(*pairs.T, ".", color="black", markersize=1.5, alpha=0.5)
    axes[0].set(xlim=(contexts[0], contexts[-1]), ylim=(targets[0], targets[-1]))
    figure.colorbar(image, ax=axes, label="p(target | context)", shrink=0.6, extend="max")
    figure.supxlabel("context", fontsize=10)
    figure.supylabel("target", fontsize=10)
    figure.suptitle(
        f"{title}: true branches dashed; ellipses: 2 deviations of joint components;"
        " lines: mean and 2 deviations",
        fontsize=10,
    )
    return figure


def _overlay(axis: Axes, contexts: Array, panel: DensityPanel) -> None:
    if panel.band is not None:
        mean, deviation = panel.band
        axis.plot(contexts, mean, color="black", linewidth=1.2)
        for edge in (mean - 2 * deviation, mean + 2 * deviation):
            axis.plot(contexts, edge, color="black", linewidth=0.7, linestyle=":")
    if panel.means is None:
        return
    many = len(panel.means) > 100  # hundreds of ellipses hide the density
    axis.plot(*panel.means.T, ".", color="black", markersize=2 if many else 4)
    if panel.covariances is not None and not many:
        variances, directions = np.linalg.eigh(panel.covariances)
        sizes = 4.0 * np.sqrt(variances)  # diameters of 2 deviations
        angles = np.degrees(np.arctan2(directions[:, 1, 1], directions[:, 0, 1]))
        ellipses = EllipseCollection(
            sizes[:, 1],
            sizes[:, 0],
            angles,
            units="xy",
            offsets=panel.means,
            offset_transform=axis.transData,
            facecolors="none",
            edgecolors="black",
            linewidths=0.8,
        )
        axis.add_collection(ellipses)


def branch_parameters(
    contexts: Array,  # shape: (C,)
    branches: Array,  # shape: (C, B)
    weights: Array,  # shape: (C, K)
    means: Array,  # shape: (C, K)
    deviations: Array,  # shape: (C, K)
    *,
    noise: float,
    title: str,
) -> Figure:
    """The paper's Figures 5 and 7: what a mixture density network says over the context.

    Args:
        contexts: Places, evenly spaced.
        branches: The true branches.
        weights: Of the components.
        means: The same; as thick as the component's weight.
        deviations: The same.
        noise: The true deviation.
        title: Of the figure.
    """
    figure, axes = panels(3, columns=3, width=3.3, height=2.6, sharex=True)
    axes[0].xaxis.set_major_locator(MaxNLocator(4))
    for branch in branches.T:
        axes[1].plot(contexts, branch, color=VERMILLION, linewidth=1.2, linestyle=DASHED)
    for weight, mean, deviation, colour in zip(
        weights.T, means.T, deviations.T, _COLOURS, strict=True
    ):
        axes[0].plot(contexts, weight, color=colour, linewidth=1.4)
        axes[2].plot(contexts, deviation, color=colour, linewidth=1.4)
        line = np.stack([contexts, mean], axis=1)
        segments = np.stack([line[:-1], line[1:]], axis=1)
        axes[1].add_collection(
            LineCollection(list(segments), colors=colour, linewidths=6.0 * weight[:-1], alpha=0.7)
        )
    for axis, truth in ((axes[0], 1.0 / branches.shape[1]), (axes[2], noise)):
        axis.axhline(truth, color=VERMILLION, linewidth=1.2, linestyle=DASHED, label="truth")
    axes[0].set_ylim(0.0, 1.0)
    axes[1].set_ylim(branches.min() - 0.4, branches.max() + 0.4)
    axes[0].legend(frameon=False, fontsize=9)
    axes[2].set_yscale("log")
    axes[2].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes[2].yaxis.set_major_formatter("{x:g}")
    axes[2].yaxis.set_minor_formatter(NullFormatter())
    axes[2].set_ylim(0.2 * noise, max(5.0 * noise, 1.2 * deviations.max()))
    for axis, name in zip(axes, ("weights", "means", "standard deviations"), strict=True):
        axis.set_title(name, fontsize=10)
        axis.margins(x=0)
    figure.supxlabel("context", fontsize=10)
    figure.suptitle(f"{title}: a colour a component, means as thick as their weights", fontsize=10)
    return figure


def arms(
    models: Mapping[str, Array],  # shapes: (S, 2, 2)
    hand: Array,  # shape: (2,)
    *,
    title: str,
) -> Figure:
    """Arms at angles drawn from each model for one position of the hand.

    Args:
        models: For each title, the elbows and hands of S arms.
        hand: Where the hand should be.
        title: Of the figure.
    """
    figure, axes = panels(len(models), columns=3, width=2.85, height=2.75, sharex=True, sharey=True)
    for axis, (name, drawn) in zip(axes, models.items(), strict=True):
        lines = np.concatenate([np.zeros_like(drawn[:, :1]), drawn], axis=1)
        axis.add_collection(LineCollection(list(lines), colors=BLUE, linewidths=0.8, alpha=0.35))
        axis.plot(*drawn[:, 0].T, ".", color=GREY, markersize=3)
        axis.plot(*drawn[:, 1].T, ".", color=BLUE, markersize=3)
        axis.plot(*hand, "+", color=VERMILLION, markersize=16, markeredgewidth=2)
        axis.set_title(name, fontsize=10)
        axis.set_aspect("equal")
    axes[0].set(xlim=(-0.02, 1.0), ylim=(-0.02, 1.0))
    figure.supxlabel("horizontal position; the upper arm has length 0.8", fontsize=10)
    figure.supylabel("vertical position", fontsize=10)
    figure.suptitle(f"{title}: arms drawn from each model for the hand at the cross", fontsize=10)
    return figure


def gaps(facets: Mapping[str, Mapping[str, Sequence[float]]], *, label: str) -> Figure:
    """A measure of every model on every dataset, a dot a seed and a bar at the median.

    Args:
        facets: For each dataset's title, for each model's, one value a seed, above 0.
        label: What the measure is.
    """
    models = list(next(iter(facets.values())))
    count, height = len(facets), 0.3 * len(models) + 0.7
    figure, axes = panels(
        count, columns=count, width=10.0 / count, height=height, sharex=True, sharey=True
    )
    for axis, (title, found) in zip(axes, facets.items(), strict=True):
        for row, values in enumerate(found.values()):
            axis.plot(values, [row] * len(values), "o", color=BLUE, markersize=5, alpha=0.4)
            axis.plot(np.median(values), row, "|", color="black", markersize=13)
        axis.set_title(title, fontsize=10)
        axis.set_xscale("log")
        axis.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)
    axes[0].set_yticks(range(len(models)), models, fontsize=9)
    axes[0].invert_yaxis()
    figure.supxlabel(f"{label}; dots are seeds, bars medians", fontsize=10)
    return figure
