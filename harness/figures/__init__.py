"""Figures as pure functions of data; none touches a file or matplotlib's global state."""

from harness.figures.failure_modes import Curves, Demonstration, end, failure_panels
from harness.figures.latents import (
    Pixels,
    calibration,
    image_grids,
    image_rows,
    latent_map,
)
from harness.figures.style import Array
from harness.figures.synthetic import (
    DensityPanel,
    arms,
    branch_parameters,
    conditional_densities,
    gaps,
)
from harness.figures.training import (
    accuracy_dots,
    bank_curves,
    density,
    ess_curves,
    loss_curves,
    run_curves,
    shown_metrics,
)

__all__ = [
    "Array",
    "Curves",
    "Demonstration",
    "DensityPanel",
    "Pixels",
    "accuracy_dots",
    "arms",
    "bank_curves",
    "branch_parameters",
    "calibration",
    "conditional_densities",
    "density",
    "end",
    "ess_curves",
    "failure_panels",
    "gaps",
    "image_grids",
    "image_rows",
    "latent_map",
    "loss_curves",
    "run_curves",
    "shown_metrics",
]
