"""Generated images against real ones, in the features of a classifier of real images."""

from __future__ import annotations

import torch
from torch import Tensor

_NEIGHBOURS_OF_RECALL = 3  # Kynkäänniemi et al. 2019
_NEIGHBOURS_OF_COVERAGE = 5  # Naeem et al. 2020
_CONFIDENT = 0.9
_CHUNK = 1000


def frechet_distance(
    real: Tensor,  # shape: (N, F)
    generated: Tensor,  # shape: (M, F)
) -> float:
    """Squared distance of the Gaussians of two sets of features (Heusel et al. 2017).

    ||m - m'||^2 + tr(S + S' - 2 (S S')^1/2); its size depends on the features.
    """
    (mean, root), (other_mean, other_root) = map(_moments, (real, generated))
    # The trace of (S S')^1/2 is the sum of the singular values of R^T R', with S = R R^T.
    cross = torch.linalg.svdvals(root.T @ other_root).sum()
    squares = root.square().sum() + other_root.square().sum()
    return float((mean - other_mean).square().sum() + squares - 2.0 * cross)


def neighbourhood_metrics(
    real: Tensor,  # shape: (N, F)
    generated: Tensor,  # shape: (M, F)
) -> dict[str, float]:
    """Which images of each set lie among the other's.

    The neighbourhood of an image reaches to its third or fifth neighbour in its own set.

    Returns:
        ``precision`` and ``recall`` (Kynkäänniemi et al. 2019): share of generated images in a real
        neighbourhood of three, and of real ones in a generated one. ``density`` and ``coverage``,
        which single outliers do not move (Naeem et al. 2020): how many real neighbourhoods of five
        a generated image is in, over the five expected if both were the same set; share of real
        neighbourhoods that hold a generated image.
    """
    near, far = _NEIGHBOURS_OF_RECALL, _NEIGHBOURS_OF_COVERAGE
    nearest = nearest_distances(real, generated, 1)[0][:, 0]
    return {
        "precision": float((_memberships(generated, real, near) > 0).double().mean()),
        "recall": float((_memberships(real, generated, near) > 0).double().mean()),
        "density": float(_memberships(generated, real, far).double().mean() / far),
        "coverage": float((nearest <= _radii(real, far)).double().mean()),
    }


def label_statistics(
    probabilities: Tensor,  # shape: (M, C)
) -> dict[str, float]:
    """Of a classifier's probabilities of images.

    Returns:
        ``confident``, the share above 0.9; ``classes``, the exponential of the entropy of the
        predicted classes: their number if all are equally frequent.
    """
    best, predicted = probabilities.max(dim=1)
    shares = predicted.bincount(minlength=probabilities.shape[1]).double() / len(predicted)
    return {
        "confident": float((best > _CONFIDENT).double().mean()),
        "classes": float(torch.special.entr(shares).sum().exp()),
    }


def nearest_distances(
    points: Tensor,  # shape: (N, F)
    among: Tensor,  # shape: (M, F)
    number: int,
) -> tuple[Tensor, Tensor]:  # shapes: (N, number), (N, number)
    """Distances to the nearest of other points, ascending, and which these are."""
    found = [
        torch.cdist(chunk, among).topk(number, largest=False)
        for chunk in torch.split(points, _CHUNK)
    ]
    distances, indices = map(torch.cat, zip(*found, strict=True))
    return distances, indices


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (F,), (F, F)
    """The mean and a square root of the covariance, also where that is singular."""
    centred = features.double() - features.double().mean(dim=0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / (len(features) - 1))
    return features.double().mean(dim=0), vectors * values.clamp_min(0.0).sqrt()


def _radii(points: Tensor, k: int) -> Tensor:  # shape: (N,)
    """Distance of each point's k-th neighbour, itself not counted."""
    return nearest_distances(points, points, k + 1)[0][:, k]


def _memberships(points: Tensor, among: Tensor, k: int) -> Tensor:  # shape: (N,)
    """For each point, how many neighbourhoods of other points it lies in."""
    radii = _radii(among, k)
    chunks = torch.split(points, _CHUNK)
    return torch.cat([(torch.cdist(chunk, among) <= radii).sum(dim=1) for chunk in chunks])
