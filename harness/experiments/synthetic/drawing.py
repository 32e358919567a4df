"""The figures of one dataset's fitted models."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor

from harness.evaluation.mixtures import GaussianMixtures
from harness.experiments.synthetic.datasets import DATASETS, Dataset, joints
from harness.experiments.synthetic.models import MODELS, Fitted
from harness.figures.style import Array
from harness.figures.synthetic import DensityPanel, arms, branch_parameters, conditional_densities
from harness.settings import SyntheticSettings

_HEIGHT = 240  # values of the target
_ARMS = 60  # drawn from each model
_ANGLES = (0.75, 1.1)  # of shoulder and elbow: the hand is where both solutions lie well apart
_DOTS = 500  # pairs that are shown


def figures_of(
    name: str,
    fitted: Mapping[str, Fitted],
    z_c: Tensor,  # shape: (N, d_c)
    z_t: Tensor,  # shape: (N, d)
    settings: SyntheticSettings,
) -> dict[str, Figure]:
    """The figures of the dataset of a name, by names that start with it."""
    dataset = DATASETS[name]
    with torch.no_grad():
        if z_t.shape[1] > 1:
            return {name: _arms(dataset, fitted, settings)}
        return {
            name: _densities(dataset, fitted, z_c, z_t, settings),
            f"{name}_mdn": _parameters(dataset, fitted["mdn"], settings),
        }


def _densities(
    dataset: Dataset,
    fitted: Mapping[str, Fitted],
    z_c: Tensor,
    z_t: Tensor,
    settings: SyntheticSettings,
) -> Figure:
    contexts = dataset.test_contexts()
    low, high = z_t.min() - 0.4, z_t.max() + 0.4
    targets = torch.linspace(float(low), float(high), _HEIGHT, dtype=torch.float64)
    truth = dataset.truth(contexts, settings.noise)
    panels = {
        f"truth and {_DOTS} pairs": DensityPanel(_on_grid(truth, targets)),
        **{
            MODELS[name].title: _panel(model, model.condition(contexts), targets)
            for name, model in fitted.items()
        },
    }
    return conditional_densities(
        contexts[:, 0].numpy(),
        targets.numpy(),
        truth.means[..., 0].numpy(),
        panels,
        pairs=torch.cat([z_c, z_t], dim=1)[:_DOTS].numpy(),
        title=dataset.title,
    )


def _on_grid(density: GaussianMixtures, targets: Tensor) -> Array:  # shape: (T, C)
    points = targets[:, None, None].expand(-1, len(density.weights), 1)
    return density.log_prob(points).exp().numpy()


def _panel(model: Fitted, density: GaussianMixtures, targets: Tensor) -> DensityPanel:
    grid = _on_grid(density, targets)
    if model.mixture is None and model.num_components == 1:
        deviation = density.component_variances[:, 0].sqrt()
        return DensityPanel(grid, band=torch.stack([density.mean[:, 0], deviation]).numpy())
    if model.mixture is None:
        return DensityPanel(grid)
    means, covariances = model.mixture.means, model.mixture.covariances
    return DensityPanel(grid, means=means.numpy(), covariances=covariances.numpy())


def _parameters(dataset: Dataset, mdn: Fitted, settings: SyntheticSettings) -> Figure:
    contexts = dataset.test_contexts()
    density = mdn.condition(contexts)
    return branch_parameters(
        contexts[:, 0].numpy(),
        dataset.branches(contexts)[..., 0].numpy(),
        density.weights.numpy(),
        density.means[..., 0].numpy(),
        density.factors[..., 0, 0].numpy(),
        noise=settings.noise,
        title=f"{MODELS['mdn'].title}, {dataset.title}",
    )


def _arms(dataset: Dataset, fitted: Mapping[str, Fitted], settings: SyntheticSettings) -> Figure:
    hand = joints(torch.tensor([_ANGLES], dtype=torch.float64))[1]
    densities = {
        "truth": dataset.truth(hand, settings.noise),
        **{MODELS[name].title: model.condition(hand) for name, model in fitted.items()},
    }
    panels = {}
    for title, density in densities.items():
        angles = density.sample(_ARMS, generator=Generator().manual_seed(0))[:, 0]
        panels[title] = torch.stack(joints(angles), dim=1).numpy()
    return arms(panels, hand[0].numpy(), title=dataset.title)
