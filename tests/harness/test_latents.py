"""Densities of embeddings: Table 2's metrics, fit, samples, detection, conditionals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2, multivariate_normal
from torch import Tensor
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from gmje_plugin import JointStudentTMixture
from harness.evaluation.conditional import (
    LEVELS,
    best_of,
    calibration,
    coverage,
    modes,
    ranks,
)
from harness.evaluation.latents import (
    component_log_probs,
    fit_statistics,
    sample,
    shape_statistics,
)
from harness.evaluation.mixtures import GaussianMixtures
from harness.evaluation.ood import auroc, out_of_distribution_images


def mixture_of(weights: Tensor, means: Tensor, covariances: Tensor) -> GaussianMixtures:
    return GaussianMixtures(weights, means, torch.linalg.cholesky(covariances)).double()


def test_the_papers_table_2_from_a_simplex_on_the_sphere() -> None:
    dim, number = 128, 50
    corners = torch.eye(number, dim) - 1.0 / number * (torch.arange(dim) < number)
    means = torch.nn.functional.normalize(corners, dim=1)
    density = mixture_of(
        torch.full((number,), 1.0 / number), means, torch.eye(dim).expand(number, -1, -1) / dim
    )
    found = shape_statistics(density)
    assert found["log_det"] == pytest.approx(-dim * math.log(dim))  # -621.06
    assert found["trace"] == pytest.approx(1.0)
    assert found["spread"] == pytest.approx(math.sqrt(2 * number / (number - 1)), abs=1e-6)
    assert "spread" not in shape_statistics(
        mixture_of(torch.ones(1), means[:1], torch.eye(dim)[None])
    )


def test_components_that_hold_nothing_have_no_shape() -> None:
    covariances = torch.stack([torch.eye(3), 4.0 * torch.eye(3), 1e-6 * torch.eye(3)])
    means = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0, 0, 0]])
    found = shape_statistics(mixture_of(torch.tensor([0.5, 0.5, 1e-9]), means, covariances))
    expected = {"components": 2.0, "log_det": 1.5 * math.log(4), "trace": 7.5, "spread": 2.0}
    assert found == pytest.approx(expected)


def test_log_densities_and_what_components_are_of() -> None:
    generator = torch.Generator().manual_seed(0)
    weights, means = (
        torch.tensor([0.5, 0.3, 0.2]),
        torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 99.0]]),
    )
    factors = torch.randn(3, 2, 2, generator=generator)
    covariances = factors @ factors.mT + torch.eye(2)
    density = mixture_of(weights, means, covariances)
    labels = torch.tensor([0, 0, 1, 1]).repeat(150)
    points = torch.randn(600, 2, generator=generator) + means[labels]
    expected = [
        np.log(w) + multivariate_normal(m, c).logpdf(points)
        for w, m, c in zip(weights.tolist(), means, covariances, strict=True)
    ]
    joint = component_log_probs(density, points)
    assert np.allclose(joint.numpy(), np.stack(expected, axis=1))
    found = fit_statistics(density, points, labels)
    assert found["log_likelihood"] == pytest.approx(float(joint.exp().sum(dim=1).log().mean()))
    assert found["components_used"] == pytest.approx(2.0, abs=0.2)  # the third is far away
    assert found["purity"] > 0.95
    assert (
        fit_statistics(density, points, labels[torch.randperm(600, generator=generator)])["purity"]
        < 0.6
    )


def test_samples_are_on_the_sphere_and_a_function_of_the_seed() -> None:
    density = mixture_of(torch.ones(2) / 2, torch.eye(2, 3), 0.01 * torch.eye(3).expand(2, -1, -1))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = sample(density, 400, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.norm(dim=1).allclose(torch.ones(400))
    assert torch.equal(first, sample(density, 400, seed=3))
    assert not torch.equal(first, sample(density, 400, seed=4))
    near = (first @ torch.eye(2, 3).T).max(dim=1).values
    assert near.mean() > 0.97


def test_out_of_distribution_images_are_images_of_mnists_size() -> None:
    digits = torch.randint(256, (20, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator())
    found = out_of_distribution_images(digits, seed=1)
    for images in found.values():
        assert images.shape[1:] == (1, 32, 32)
        assert images.dtype == torch.uint8
    assert torch.equal(found["quarter turn"][3, 0], torch.rot90(digits[3, 0]))
    again = out_of_distribution_images(digits, seed=1)
    assert all(torch.equal(images, again[name]) for name, images in found.items())
    other = found["other digits"]
    assert other[:, :, 6:26, 6:26].sum() == other.sum()
    assert other.max() > 200
    assert found["photographs"].float().std() > 20.0


def test_auroc() -> None:
    in_distribution, out_of_distribution = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.5, 3.0])
    assert auroc(in_distribution, out_of_distribution) == pytest.approx(
        5 / 6
    )  # pairs in the right order
    assert auroc(out_of_distribution, in_distribution) == pytest.approx(1 / 6)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_coverage_of_a_density_too_narrow_right_or_too_wide(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(2000, 4, generator=generator)
    targets = centres + torch.randn(2000, 4, generator=generator)
    found = coverage(ranks(Independent(Normal(centres, scale), 1), targets, seed=1))
    for level in LEVELS:  # of balls around the centre
        expected = chi2.cdf(scale**2 * chi2.ppf(level, df=4), df=4)
        # Four standard errors of a share of 2,000, and the regions' by 100 draws.
        assert found[f"coverage_{level}"] == pytest.approx(expected, abs=0.06)


def test_coverage_of_a_mixture_of_student_t_by_its_own_draws() -> None:
    density = JointStudentTMixture(
        torch.tensor([0.7, 0.3]),
        torch.tensor([[0.0, 0.0, 0.0], [1.0, 4.0, 0.0]]),
        torch.eye(3).expand(2, -1, -1),
        split=1,
        df=torch.full((2, 2), 3.0),
        coupling="independent",
    )
    z = density.sample((1500,), generator=torch.Generator().manual_seed(0))
    found = ranks(density.condition(z[:, :1]), z[:, 1:], seed=1)
    for level in LEVELS:
        assert coverage(found)[f"coverage_{level}"] == pytest.approx(level, abs=0.06)
    assert calibration(found)[9] == coverage(found)["coverage_0.5"]


@pytest.mark.parametrize("full", [True, False])
def test_coverage_of_a_mixture_by_its_own_draws(full: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 8.0]]).expand(1500, 3, 2)
    factor = torch.tensor([[1.0, 0.0], [0.9, 0.5]]) if full else torch.eye(2)
    weights = torch.tensor([0.6, 0.3, 0.1]).expand(1500, 3)
    parts = (
        MultivariateNormal(means, scale_tril=factor.expand(1500, 3, 2, 2))
        if full
        else Independent(Normal(means, 1.0), 1)
    )
    drawn = torch.multinomial(weights[0], 1500, replacement=True, generator=generator)
    noise = torch.randn(1500, 2, generator=generator) @ factor.T
    targets = means[0][drawn] + noise
    found = coverage(ranks(MixtureSameFamily(Categorical(weights), parts), targets, seed=1))
    for level in LEVELS:
        assert found[f"coverage_{level}"] == pytest.approx(level, abs=0.06)


def test_modes_are_the_heaviest_means_or_the_mean_and_draws() -> None:
    means = torch.arange(3.0)[:, None] * torch.ones(3, 2)
    mixture = mixture_of(torch.tensor([0.2, 0.5, 0.3]), means, torch.eye(2).expand(3, -1, -1))
    batched = MixtureSameFamily(
        Categorical(mixture.weights.expand(4, -1)),
        MultivariateNormal(means.double().expand(4, -1, -1), torch.eye(2).double()),
    )
    found = modes(batched, 2, seed=0)
    assert found.shape == (2, 4, 2)
    assert found[:, 0, 0].tolist() == [1.0, 2.0]
    more = modes(batched, 5, seed=0)
    assert torch.equal(more[:2], found)
    assert more[2, 0, 0] == 0.0
    assert not torch.equal(more[3], more[4])
    gaussian = MultivariateNormal(torch.ones(4, 2), 0.01 * torch.eye(2))
    drawn = modes(gaussian, 3, seed=0)
    assert drawn.shape == (3, 4, 2)
    assert torch.equal(drawn[0], torch.ones(4, 2))
    assert not torch.equal(drawn[1], drawn[2])


def test_best_of_counts_a_class_that_was_among_the_modes_once() -> None:
    predicted = torch.tensor([[0, 1, 2, 3], [1, 1, 1, 1], [0, 1, 2, 4]])
    assert best_of(predicted, torch.tensor([0, 2, 1, 4])) == [0.25, 0.5, 0.75]
