"""Figures show the numbers they were given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from harness import figures
from harness.evaluation.density import PlanarDensity

CURVES = {f"method {n}": np.array([[3.0, 2.0, 1.0, 0.5], [5.0, 4.0, 3.0, 0.5]]) for n in range(4)}
FOUND = {
    "A": {"kNN": [0.9, 0.92], "linear": [0.95, 0.97]},
    "B": {"kNN": [0.88, 0.9], "linear": [0.91, 0.93]},
}
UNTRAINED = {"kNN": [0.75, 0.77], "linear": [0.85, 0.85]}


def drawn(figure: Figure) -> None:
    figure.draw_without_rendering()
    for axis in figure.axes:
        assert axis.get_xlabel() or axis.get_ylabel() or figure.get_supxlabel()


def test_loss_curves_are_means_over_seeds_in_a_panel_each() -> None:
    figure = figures.loss_curves(CURVES)
    drawn(figure)
    panels = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in panels] == list(CURVES)
    for axis in panels:
        assert axis.lines[0].get_ydata().tolist() == [4.0, 3.0, 2.0, 0.5]


def test_ess_curves_are_running_means_at_the_steps_they_end_at() -> None:
    curves = dict(list(CURVES.items())[:2])
    figure = figures.ess_curves(curves, thresholds=[0.5], window=2)
    drawn(figure)
    line = figure.axes[0].lines[0]
    assert line.get_xdata().tolist() == [1, 2, 3]
    assert line.get_ydata().tolist() == [3.5, 2.5, 1.25]
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == [*curves, "resampled below (default)"]


def test_accuracy_bars_are_means_in_percent_beside_the_untrained_network() -> None:
    figure = figures.accuracy_bars(FOUND, UNTRAINED)
    drawn(figure)
    axis = figure.axes[0]
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([91.0, 89.0, 96.0, 92.0])
    baselines = [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == "--"]
    assert baselines == pytest.approx([76.0, 85.0])
    assert axis.get_xlim() == (75.0, 100.0)
    assert "starts at 75" in axis.get_xlabel()


def test_density_shows_every_embedding_as_its_digit() -> None:
    points = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    means = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    mixture = MixtureSameFamily(
        Categorical(probs=torch.tensor([0.5, 0.5])),
        MultivariateNormal(means, torch.eye(2).expand(2, 2, 2)),
    )
    planar = PlanarDensity(points=points, means=means, density=mixture, explained=0.314)
    figure = figures.density(planar, [n % 10 for n in range(20)])
    drawn(figure)
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.texts] == [str(n % 10) for n in range(20)]
    assert axis.lines[0].get_xydata().tolist() == means.tolist()
    assert "31%" in axis.get_title()
