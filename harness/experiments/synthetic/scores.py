"""A predicted conditional density against the true one: how far, and where the mass lies."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from harness.evaluation.mixtures import GaussianMixtures

_DRAWS = 200  # for each context, of the truth and of the prediction
_NEAR = 3.0  # noise deviations
_POINTS = 300  # of a distribution function
_DIRECTIONS = 4  # of a half circle
_LEAST_WEIGHT = 0.05  # of a branch that a prediction has


def score(
    predicted: GaussianMixtures, truth: GaussianMixtures, *, noise: float, seed: int
) -> dict[str, float]:
    """Metrics, averaged over the contexts.

    Args:
        predicted: What a model says of N contexts.
        truth: What is true: one component a branch.
        noise: Standard deviation of the targets around their branch.
        seed: Of the draws; the same for all models gives them the same true draws.

    Returns:
        By name:

        - ``excess_nll``: E[log truth - log predicted] of true targets, in nats: the conditional
          negative log-likelihood beyond the lowest possible; 200 draws a context.
        - ``wasserstein``: Wasserstein-1 distance of the two conditionals, in the target's unit; in
          two dimensions the mean over 4 directions of that along each (sliced).
        - ``near_branches``: share of the predicted mass within 3 noise deviations of a branch.
        - ``coverage_50``, ``coverage_90``: share of true targets in the regions of highest density
          that the prediction gives 50 and 90 %.
        - ``branch_rmse``: root mean square distance of the branches to the mean of the components
          that are nearest to each, or of all components where those weigh less than 0.05.
        - ``noise``: standard deviation of the components, root mean square by weight.
        - ``weight_error``: half the sum of absolute errors of the branches' weights, each that of
          the components nearest to it, where branches are 6 noise deviations apart or more.
        - ``answers``: exp of the entropy of the components' weights, the number in use.
    """
    generator = Generator().manual_seed(seed)
    real = truth.sample(_DRAWS, generator=generator)
    drawn = predicted.sample(_DRAWS, generator=generator)
    levels, density = predicted.log_prob(drawn), predicted.log_prob(real)
    weights, means = _branches(predicted, truth)
    components = predicted.weights
    return {
        "excess_nll": float((truth.log_prob(real) - density).mean()),
        "wasserstein": float(sliced_wasserstein(predicted, truth).mean()),
        "near_branches": _near_branches(drawn, truth, noise),
        "coverage_50": _coverage(density, levels, 0.5),
        "coverage_90": _coverage(density, levels, 0.9),
        "branch_rmse": float((means - truth.means).square().sum(dim=-1).mean().sqrt()),
        "noise": float((components * predicted.component_variances).sum(dim=1).mean().sqrt()),
        "weight_error": _weight_error(weights, truth, noise),
        "answers": float(torch.special.entr(components).sum(dim=1).exp().mean()),
    }


def sliced_wasserstein(p: GaussianMixtures, q: GaussianMixtures) -> Tensor:  # shape: (N,)
    """Mean over directions of the Wasserstein-1 distance along each: in one dimension, itself.

    Along a direction it is the integral of |difference of the distribution functions|.
    """
    if p.means.shape[2] == 1:
        directions = p.means.new_ones(1, 1)
    else:
        angles = torch.arange(_DIRECTIONS, dtype=torch.float64) * math.pi / _DIRECTIONS
        directions = torch.stack([angles.cos(), angles.sin()], dim=1)
    return torch.stack([_wasserstein(p, q, direction) for direction in directions]).mean(dim=0)


def _wasserstein(
    p: GaussianMixtures, q: GaussianMixtures, direction: Tensor
) -> Tensor:  # shape: (N,)
    means, deviations = (
        torch.cat(parts, dim=1)
        for parts in zip(p.project(direction), q.project(direction), strict=True)
    )
    low = (means - 6.0 * deviations).amin(dim=1, keepdim=True)
    high = (means + 6.0 * deviations).amax(dim=1, keepdim=True)
    points = low + (high - low) * torch.linspace(0.0, 1.0, _POINTS, dtype=torch.float64)
    difference = (p.cdf(points, direction) - q.cdf(points, direction)).abs()
    return torch.trapezoid(difference, points, dim=1)


def _near_branches(drawn: Tensor, truth: GaussianMixtures, noise: float) -> float:
    """The share of draws, shape (S, N, d), that a branch has within 3 deviations."""
    distances = (drawn[:, :, None] - truth.means).norm(dim=-1).amin(dim=-1)
    return float((distances <= _NEAR * noise).double().mean())


def _coverage(density: Tensor, levels: Tensor, share: float) -> float:
    """The share of true targets in the region of highest density with a share of the mass.

    Args:
        density: Predicted log-density at true targets, shape (S, N).
        levels: The same at targets drawn from the prediction, whose quantile bounds the region.
        share: Of the predicted mass.
    """
    return float((density >= levels.quantile(1.0 - share, dim=0)).double().mean())


def _branches(
    predicted: GaussianMixtures, truth: GaussianMixtures
) -> tuple[Tensor, Tensor]:  # shapes: (N, B), (N, B, d)
    """Weight and mean of each branch, every component counted for its nearest branch.

    The mean of a branch that has next to no weight is that of the whole prediction.
    """
    nearest = torch.cdist(predicted.means, truth.means).argmin(dim=-1)
    assigned = one_hot(nearest, truth.means.shape[1]).mT * predicted.weights[:, None]  # (N, B, K)
    weights = assigned.sum(dim=-1)
    means = assigned @ predicted.means / weights.clamp_min(_LEAST_WEIGHT)[..., None]
    return weights, torch.where(weights[..., None] >= _LEAST_WEIGHT, means, predicted.mean[:, None])


def _weight_error(weights: Tensor, truth: GaussianMixtures, noise: float) -> float:
    """The error of weights of shape (N, B) where no two branches meet."""
    meeting = torch.cdist(truth.means, truth.means) < 2 * _NEAR * noise
    apart = meeting.sum(dim=(1, 2)) == truth.weights.shape[1]
    return float(0.5 * (weights - truth.weights)[apart].abs().sum(dim=1).mean())
