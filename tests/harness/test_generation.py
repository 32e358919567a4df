"""Generated against real features: independent references, limits, what the figures tell apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from harness.evaluation.generation import (
    frechet_distance,
    label_statistics,
    nearest_distances,
    neighbourhood_metrics,
)


def features(count: int, *, seed: int, shift: float = 0.0, dim: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(9))
    return torch.randn(count, dim, generator=generator) @ mixing + shift


def test_frechet_distance_is_the_formula() -> None:
    one, other = features(300, seed=1), 1.5 * features(200, seed=2, shift=0.4)
    first, second = np.cov(one.double().numpy().T), np.cov(other.double().numpy().T)
    means = one.double().mean(0) - other.double().mean(0)
    expected = means.square().sum() + np.trace(first + second - 2.0 * sqrtm(first @ second).real)
    assert frechet_distance(one, other) == pytest.approx(float(expected), rel=1e-8)
    assert frechet_distance(one, one) == pytest.approx(0.0, abs=1e-9)


def test_frechet_distance_of_features_that_never_fire() -> None:
    one, other = features(50, seed=1), features(50, seed=2)
    dead = torch.zeros(50, 3)
    padded = [torch.cat([some, dead], dim=1) for some in (one, other)]
    assert frechet_distance(*padded) == pytest.approx(frechet_distance(one, other), rel=1e-6)


def memberships(points: Tensor, among: Tensor, k: int) -> np.ndarray:
    neighbours = NearestNeighbors(n_neighbors=k + 1).fit(among.numpy())
    radii = neighbours.kneighbors(among.numpy())[0][:, k]
    distances = np.linalg.norm(points.numpy()[:, None] - among.numpy()[None], axis=2)
    return np.asarray(distances <= radii)


def test_precision_recall_density_coverage_by_their_definitions() -> None:
    real, generated = features(120, seed=1), features(150, seed=2, shift=1.0)
    found = neighbourhood_metrics(real, generated)
    assert found["precision"] == memberships(generated, real, 3).any(axis=1).mean()
    assert found["recall"] == memberships(real, generated, 3).any(axis=1).mean()
    inside = memberships(generated, real, 5)
    assert found["density"] == pytest.approx(inside.sum() / (5 * 150))
    assert found["coverage"] == inside.any(axis=0).mean()
    assert 0.0 < found["coverage"] < 1.0


def test_a_generator_that_repeats_one_image_is_precise_and_covers_nothing() -> None:
    real = features(200, seed=1)
    repeated = real[:1].expand(200, -1) + 1e-3 * features(200, seed=2)
    found = neighbourhood_metrics(real, repeated)
    assert (found["precision"], found["recall"]) == (1.0, pytest.approx(0.0, abs=0.02))
    assert found["coverage"] < 0.1
    names = ("precision", "recall", "density", "coverage")
    assert neighbourhood_metrics(real, real + 1000.0) == dict.fromkeys(names, 0.0)


def test_nearest_of_sets_longer_than_a_chunk() -> None:
    points, among = features(1500, seed=1), features(1100, seed=2)
    expected = NearestNeighbors(n_neighbors=2).fit(among.numpy()).kneighbors(points.numpy())
    distances, places = nearest_distances(points, among, 2)
    assert np.allclose(distances.numpy(), expected[0], atol=1e-3)
    assert (places.numpy() == expected[1]).mean() > 0.999


def test_label_statistics() -> None:
    balanced = torch.eye(4).repeat(5, 1)
    assert label_statistics(balanced) == {"confident": 1.0, "classes": pytest.approx(4.0)}
    sure_of_one = torch.tensor([[0.95, 0.05], [0.9, 0.1], [0.6, 0.4]])
    assert label_statistics(sure_of_one) == {
        "confident": pytest.approx(1 / 3),
        "classes": pytest.approx(1.0),
    }
