"""Figures show the numbers they were given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from harness.evaluation.density import PlanarDensity
from harness.figures.latents import calibration
from harness.figures.training import (
    accuracy_dots,
    bank_curves,
    density,
    ess_curves,
    loss_curves,
    run_curves,
)

CURVES = {f"method {n}": np.array([[3.0, 2.0, 1.0, 0.5], [5.0, 4.0, 3.0, 0.5]]) for n in range(4)}
STEPS = np.array([0.0, 7.0, 14.0, 21.0])  # every seventh is logged
FOUND = {
    "A": {"kNN": [0.9, 0.92], "linear": [0.95, 0.97]},
    "B": {"kNN": [0.88, 0.9], "linear": [0.91, 0.93]},
}
UNTRAINED = {"kNN": [0.75, 0.77], "linear": [0.85, 0.85]}


def drawn(figure: Figure) -> None:
    figure.draw_without_rendering()
    for axis in figure.axes:
        assert axis.get_xlabel() or axis.get_ylabel() or figure.get_supxlabel()


def test_loss_curves_are_means_over_seeds_in_a_panel_each_from_the_second_step_on() -> None:
    terms = {"method 2": {"nll": CURVES["method 2"] - 1.0, "guard": np.ones((2, 4))}}
    curves = {title: (STEPS, values) for title, values in CURVES.items()}
    figure = loss_curves(curves, terms, note="why it rises")
    drawn(figure)
    panels = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in panels] == list(CURVES)
    for axis in panels:
        assert axis.lines[0].get_xydata().tolist() == [[7.0, 3.0], [14.0, 2.0], [21.0, 0.5]]
    assert [len(axis.lines) for axis in panels] == [1, 1, 3, 1]
    loss, *parts = panels[2].lines
    assert [line.get_label() for line in parts] == ["nll", "guard"]
    summed = np.sum([line.get_ydata() for line in parts], axis=0)
    assert summed.tolist() == loss.get_ydata().tolist()
    assert "why it rises" in figure.get_supxlabel()


def test_calibration_is_a_curve_a_density_beside_the_diagonal() -> None:
    curves = {"A": [0.1, 0.6], "B": [0.2, 0.7]}
    figure = calibration([0.25, 0.75], curves)
    drawn(figure)
    diagonal, *lines = figure.axes[0].lines
    assert diagonal.get_xydata().tolist() == [[0.0, 0.0], [1.0, 1.0]]
    assert {line.get_label(): list(line.get_ydata()) for line in lines} == curves
    assert all(list(line.get_xdata()) == [0.25, 0.75] for line in lines)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(curves)


def test_ess_curves_are_running_means_at_the_steps_they_end_at() -> None:
    curves = {title: (STEPS, values) for title, values in CURVES.items()}
    figure = ess_curves(curves, thresholds=[0.5], epochs=2)
    drawn(figure)
    line = figure.axes[0].lines[0]
    assert line.get_xdata().tolist() == [7, 14, 21]
    assert line.get_ydata().tolist() == [3.5, 2.5, 1.25]
    assert len({line.get_color() for line in figure.axes[0].lines}) == 5
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == [*curves, "resampled below (default)"]


def test_accuracy_dots_are_means_in_percent_with_deviations_beside_the_untrained_network() -> None:
    figure = accuracy_dots(FOUND, UNTRAINED)
    drawn(figure)
    expected = {"kNN": ([91.0, 89.0], 76.0), "linear": ([96.0, 92.0], 85.0)}
    for axis, (protocol, (means, baseline)) in zip(figure.axes, expected.items(), strict=True):
        (bars,) = axis.containers
        dots, _, (spans,) = bars
        assert dots.get_xdata() == pytest.approx(means)
        for segment, mean in zip(spans.get_segments(), means, strict=True):
            assert segment[:, 0] == pytest.approx([mean - 2.0**0.5, mean + 2.0**0.5])
        (line,) = [line for line in axis.lines if line.get_linestyle() == "--"]
        assert line.get_xdata()[0] == pytest.approx(baseline)
        low, high = axis.get_xlim()
        assert low < 76.0 < 97.0 < high
        assert axis.get_title() == f"{protocol}, %"
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == list(FOUND)


def test_density_shows_every_embedding_in_the_colour_of_its_digit() -> None:
    points = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    means = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    mixture = MixtureSameFamily(
        Categorical(probs=torch.tensor([0.5, 0.5])),
        MultivariateNormal(means, torch.eye(2).expand(2, 2, 2)),
    )
    planar = PlanarDensity(points=points, means=means, density=mixture, explained=0.314)
    labels = [n % 3 for n in range(20)]
    figure = density(planar, labels)
    drawn(figure)
    axis = figure.axes[0]
    *classes, prototypes = axis.lines
    assert [text.get_text() for text in axis.texts] == ["0", "1", "2"]
    for label, (dots, name) in enumerate(zip(classes, axis.texts, strict=True)):
        own = points[torch.tensor(labels) == label].double().numpy()
        assert dots.get_xydata().tolist() == own.tolist()
        assert name.get_position() == pytest.approx(np.median(own, axis=0))
        assert name.get_color() == dots.get_color()
    assert len({dots.get_color() for dots in classes}) == 3
    assert prototypes.get_xydata().tolist() == means.tolist()
    assert "31%" in axis.get_title()


NAN = float("nan")
LOSSES = {
    "A": np.array([[4.0, NAN, 2.0, 1.0], [6.0, NAN, NAN, 2.0]]),
    "B": np.array([[3.0, 3.0, 3.0, 3.0]]),
}


def test_bank_curves_are_means_and_ranges_over_the_seeds_that_logged_them() -> None:
    both = {"train/loss": LOSSES["A"], "bank/ess_ratio": LOSSES["A"]}
    facets = {
        "M = 256": {"A": both, "B": {"train/loss": LOSSES["B"]}},
        "M = 4096": {"B": {"train/loss": LOSSES["B"]}},
    }
    figure = bank_curves(facets, epochs=2)
    figure.draw_without_rendering()
    first, ess, second, hidden = figure.axes
    a, b = first.lines
    assert a.get_xydata().tolist() == [[0.5, 5.0], [1.5, 2.0], [2.0, 1.5]]
    assert b.get_ydata().tolist() == [3.0] * 4
    band = first.collections[0].get_paths()[0].vertices
    assert {(0.5, 4.0), (0.5, 6.0), (2.0, 1.0), (2.0, 2.0)} <= {(x, y) for x, y in band.tolist()}
    assert b.get_color() == second.lines[0].get_color() != a.get_color()
    assert b.get_linestyle() == second.lines[0].get_linestyle() != a.get_linestyle()
    assert not hidden.get_visible()
    assert (ess.get_title(), ess.get_xlabel()) == ("ESS / pool size", "epoch")
    assert [axis.get_ylabel() for axis in (first, second)] == list(facets)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A", "B"]


def test_run_curves_have_a_line_a_run_and_a_heading_on_the_first_panel_there_is() -> None:
    both = {"train/loss": LOSSES["A"], "eval/online_accuracy": LOSSES["A"]}
    rows = {"no $\\loss": {"eval/online_accuracy": LOSSES["B"]}, "A": both}
    figure = run_curves(rows, epochs=4)
    figure.draw_without_rendering()
    hidden, first, loss, online = figure.axes
    assert not hidden.get_visible()
    assert (first.get_title(), first.get_ylabel()) == ("online probe, %", "no $\\loss")
    assert first.lines[0].get_ydata().tolist() == [300.0] * 4  # in percent
    assert (loss.get_title(), loss.get_ylabel()) == ("loss", "A")
    assert [line.get_xydata().tolist() for line in loss.lines] == [
        [[1.0, 4.0], [3.0, 2.0], [4.0, 1.0]],
        [[1.0, 6.0], [4.0, 2.0]],
    ]
    assert all(tick == int(tick) for axis in (first, loss) for tick in axis.get_xticks())
    assert first.get_ylim() == online.get_ylim()  # shared, so that rows can be compared
