import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist
from torch import Generator, Tensor

from gmje_plugin.kernels import (
    check_kernel,
    distances,
    gram,
    gram_diagonal,
    median_distance,
    random_fourier_features,
    random_fourier_frequencies,
    squared_distances,
)
from tests.references.kernels import kernel_matrix


def points(rows: int, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = Generator().manual_seed(seed)
    return torch.randn(rows, 3, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
@pytest.mark.parametrize("length_scale", [0.3, 2.0])
def test_gram_against_scipy(kernel: str, length_scale: float) -> None:
    x, y = points(7), points(5, seed=1)
    expected = kernel_matrix(x.numpy(), y.numpy(), kernel=kernel, length_scale=length_scale)
    for width in (length_scale, torch.tensor(length_scale, dtype=torch.float64)):
        actual = gram(x, y, kernel=kernel, length_scale=width)
        np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_gram_diagonal(kernel: str) -> None:
    x = points(7)
    torch.testing.assert_close(
        gram_diagonal(x, kernel=kernel), gram(x, x, kernel=kernel, length_scale=0.7).diagonal()
    )


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 12), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_rbf_matrices_are_positive_semi_definite(seed: int, rows: int, scale: float) -> None:
    x = scale * points(rows, seed=seed)
    values = gram(x, x, kernel="rbf", length_scale=scale)
    assert values.min() >= 0.0
    assert values.max() <= 1.0
    assert torch.linalg.eigvalsh(values).min() > -1e-12


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("count", [None, 1, 5])
def test_distances_far_from_the_origin(offset: float, count: int | None) -> None:
    generator = Generator().manual_seed(0)
    x, y = (offset + torch.randn(rows, 3, generator=generator) for rows in (6, 5))
    precisions = torch.rand(count, 3, generator=generator) + 0.5 if count else None
    scale = np.sqrt(precisions.double().expand(5, 3).numpy()) if count else np.ones((5, 3))
    expected = np.stack(
        [
            cdist(scale[i] * x.double().numpy(), (scale * y.double().numpy())[i : i + 1])[:, 0]
            for i in range(5)
        ],
        axis=1,
    )
    found = squared_distances(x, y, precisions)
    np.testing.assert_allclose(found.numpy(), expected**2, rtol=1e-5, atol=1e-5)
    if count is None:
        np.testing.assert_allclose(distances(x, y).numpy(), expected, rtol=1e-5)


def test_squared_distances_have_a_gradient_at_zero() -> None:
    x = points(4).requires_grad_()
    squared_distances(x, x).sum().backward()
    expected = 4.0 * (len(x) * x - x.sum(dim=0))
    torch.testing.assert_close(x.grad, expected.detach())


@pytest.mark.parametrize("rows", [2, 3, 8, 9])
def test_median_distance_against_scipy(rows: int) -> None:
    x = points(rows).requires_grad_()
    median = median_distance(x)
    assert not median.requires_grad
    expected = np.percentile(pdist(x.detach().numpy()), 50, method="lower")
    assert float(median) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_median_distance_of_equal_rows_can_be_squared_and_divided_by(dtype: torch.dtype) -> None:
    median = median_distance(torch.full((5, 3), 0.7, dtype=dtype))
    assert median.dtype == dtype
    assert median.square() > 0.0
    assert (1.0 / median.square()).isfinite()


def test_frequencies_are_a_function_of_the_seed_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, same, other = (random_fourier_frequencies(3, 8, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])
    assert one[0].shape == (8, 3)
    assert one[1].shape == (8,)


def test_frequencies_and_phases_have_their_distributions() -> None:
    # Seed 0; bounds of five standard errors, so another seed fails less than once in 10^5.
    frequencies, phases = random_fourier_frequencies(2, 20_000, seed=0)
    error = 5.0 / math.sqrt(frequencies.numel())
    assert abs(float(frequencies.mean())) < error
    assert abs(float(frequencies.var()) - 1.0) < math.sqrt(2.0) * error
    assert float(phases.min()) >= 0.0
    assert float(phases.max()) < 2.0 * math.pi
    assert abs(float(phases.mean()) - math.pi) < 5.0 * math.pi / math.sqrt(3.0 * len(phases))


def test_random_features_by_the_formula() -> None:
    x = points(4)
    frequencies, phases = random_fourier_frequencies(3, 10, seed=2)
    actual = random_fourier_features(x, frequencies, phases, length_scale=0.6)
    expected = np.sqrt(2 / 10) * np.cos(x.numpy() @ frequencies.numpy().T / 0.6 + phases.numpy())
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12, atol=1e-14)


def test_error_of_random_features_falls_as_one_over_the_root_of_their_number() -> None:
    """Slope of log error over log D, over 40 draws (seeds 0 to 39) of each of four sizes.

    Over twelve blocks of 40 seeds the slope is -0.498 with a standard deviation of 0.008; the
    tolerance is 0.05.
    """
    x = points(20)
    exact = gram(x, x, kernel="rbf", length_scale=1.5)
    sizes = [32, 128, 512, 2048]
    errors = []
    for size in sizes:
        squares = []
        for seed in range(40):
            drawn = random_fourier_frequencies(3, size, seed=seed)
            features = random_fourier_features(x, *drawn, length_scale=1.5)
            squares.append((features @ features.mT - exact).square().mean())
        errors.append(float(torch.stack(squares).mean().sqrt()))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.05)


def test_unknown_kernel() -> None:
    assert check_kernel("rbf") == "rbf"
    with pytest.raises(ValueError, match="kernel must be one of linear, rbf, got 'cosine'"):
        check_kernel("cosine")
