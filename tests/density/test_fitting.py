import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Generator, Tensor

from gmje_plugin.density import JointGaussian, JointGaussianMixture, mixture
from gmje_plugin.density.fitting import nearest_seed

SKLEARN = {"full": "full", "diagonal": "diag", "isotropic": "spherical"}
FLOOR = 1e-6


def blobs(rows: int = 300, *, spread: float = 0.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows around (1, 1, 1), (-3, 0, 2) and (2, -2, -1) times 3, and the labels."""
    generator = Generator().manual_seed(seed)
    centres = 3 * torch.tensor([[1, 1, 1], [-3, 0, 2], [2, -2, -1]], dtype=torch.float64)
    labels = torch.randint(3, (rows,), generator=generator)
    noise = torch.randn(rows, 3, dtype=torch.float64, generator=generator)
    return centres[labels] + spread * noise, labels


def fit(z: Tensor, count: int, *, seed: int = 0, **options: object) -> JointGaussianMixture:
    generator = Generator().manual_seed(seed)
    return JointGaussianMixture.fit(z[:, :1], z[:, 1:], count, generator=generator, **options)


def precisions(covariances: Tensor) -> np.ndarray:
    return (covariances.inverse() if covariances.ndim == 3 else 1 / covariances).numpy()


@pytest.mark.parametrize("kind", SKLEARN)
def test_steps_are_those_of_scikit_learn(kind: str) -> None:
    # Overlapping clusters, so that responsibilities are soft and EM is far from its end.
    z, _ = blobs(spread=4.0)
    start = fit(z, 4, covariance=kind, max_steps=1)
    oracle = GaussianMixture(
        4,
        covariance_type=SKLEARN[kind],
        tol=0.0,
        max_iter=6,
        reg_covar=FLOOR * float(z.var(dim=0, correction=0).mean()),
        weights_init=start.weights.numpy(),
        means_init=start.means.numpy(),
        precisions_init=precisions(start.covariances),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        oracle.fit(z.numpy())
    fitted = fit(z, 4, covariance=kind, max_steps=7, tolerance=0.0, covariance_floor=FLOOR)
    assert (fitted.means - start.means).abs().max() > 0.1
    for actual, expected in (
        (fitted.weights, oracle.weights_),
        (fitted.means, oracle.means_),
        (fitted.covariances, oracle.covariances_),
        (fitted.log_prob(z), oracle.score_samples(z.numpy())),
    ):
        torch.testing.assert_close(actual, torch.from_numpy(expected), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", SKLEARN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_separated_clusters_are_found(kind: str, dtype: torch.dtype) -> None:
    # The clusters' own weights, means and variances; from any of these seeds.
    z, labels = blobs()
    for seed in range(5):
        fitted = fit(z.to(dtype), 3, seed=seed, covariance=kind)
        assert fitted.means.dtype == dtype
        for label in range(3):
            rows = z[labels == label]
            component = int((fitted.means - rows.mean(dim=0)).norm(dim=1).argmin())
            assert float(fitted.weights[component]) == pytest.approx(len(rows) / 300, abs=1e-4)
            torch.testing.assert_close(
                fitted.means[component].double(), rows.mean(dim=0), rtol=0, atol=1e-4
            )
            found = fitted.covariances[component].double()
            variance = found.diagonal().mean() if kind == "full" else found.mean()
            expected = rows.var(dim=0, correction=0).mean()
            torch.testing.assert_close(variance, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", SKLEARN)
def test_one_component_is_the_gaussian_but_for_the_floor(kind: str) -> None:
    z, _ = blobs(spread=2.0)
    fitted = fit(z, 1, covariance=kind, covariance_floor=1e-12)
    gaussian = JointGaussian.fit(z[:, :1], z[:, 1:], covariance=kind)
    torch.testing.assert_close(fitted.means[0], gaussian.mean)
    torch.testing.assert_close(fitted.covariances[0], gaussian.covariance, rtol=1e-9, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(list(SKLEARN)), count=st.integers(1, 5), seed=st.integers(0, 1000))
def test_every_step_raises_the_likelihood(kind: str, count: int, seed: int) -> None:
    z, _ = blobs(120, spread=3.0, seed=seed)
    likelihoods = [
        float(
            fit(
                z,
                count,
                seed=seed,
                covariance=kind,
                max_steps=steps,
                tolerance=0.0,
                covariance_floor=1e-12,
            )
            .log_prob(z)
            .mean()
        )
        for steps in (1, 2, 3, 10)
    ]
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(likelihoods))


def test_tolerance_ends_the_steps() -> None:
    z, _ = blobs(spread=4.0)
    eager = fit(z, 4, tolerance=1e9)
    torch.testing.assert_close(eager.means, fit(z, 4, max_steps=2).means, rtol=0, atol=0)
    assert not torch.equal(eager.means, fit(z, 4, max_steps=3).means)


def test_floor_is_relative_and_keeps_components_from_shrinking() -> None:
    # As many components as rows: each would shrink onto its row.
    z, _ = blobs(8)
    for scale in (1e-3, 1.0, 1e3):
        fitted = fit(scale * z, 8, covariance="isotropic", covariance_floor=1e-4)
        floor = 1e-4 * (scale * z).var(dim=0, correction=0).mean()
        assert (fitted.covariances >= floor * (1 - 1e-9)).all()
        torch.testing.assert_close(fitted.covariances.min(), floor)


@pytest.mark.parametrize("kind", SKLEARN)
def test_repeated_rows_leave_components_empty_but_nothing_nan(kind: str) -> None:
    z = torch.tensor([[0.0, 0.0], [5.0, 1.0]], dtype=torch.float64).repeat(10, 1)
    fitted = fit(z, 4, covariance=kind)
    assert torch.isfinite(fitted.log_prob(z)).all()
    assert (fitted.weights > 0).sum() == 2
    assert float(fitted.weights.sum()) == pytest.approx(1.0)


def test_far_from_the_origin_in_float32() -> None:
    # Two clusters 1 apart, 1,000 from the origin, where float32 is spaced 6e-5.
    z = blobs(200, spread=0.01)[0].float() * 0.01 + 1000
    z[:100] += 1.0
    fitted = fit(z, 2)
    order = fitted.means[:, 0].argsort()
    torch.testing.assert_close(fitted.weights, torch.full((2,), 0.5))
    for component, rows in zip(order, (z[100:], z[:100]), strict=True):
        torch.testing.assert_close(
            fitted.means[component].double(), rows.double().mean(dim=0), rtol=0, atol=1e-3
        )


def test_a_fit_is_a_function_of_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    z, _ = blobs(spread=4.0)
    state = torch.get_rng_state()
    first = fit(z, 4, seed=3)
    torch.testing.assert_close(first.means, fit(z, 4, seed=3).means, rtol=0, atol=0)
    assert not torch.equal(first.means, fit(z, 4, seed=4).means)
    assert torch.equal(torch.get_rng_state(), state)
    # Nor does it matter how many rows an E-step takes at a time.
    monkeypatch.setattr(mixture, "_CHUNK_ELEMENTS", 100)
    torch.testing.assert_close(first.means, fit(z, 4, seed=3).means)


def test_a_fit_has_no_gradient_and_ignores_autocast() -> None:
    z = blobs(spread=4.0)[0].float().requires_grad_()
    plain = fit(z, 3)
    assert not plain.means.requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrowed = fit(z, 3)
    torch.testing.assert_close(plain.covariances, narrowed.covariances, rtol=0, atol=0)


def test_seeds_are_drawn_by_squared_distance() -> None:
    # One row of 1,000 lies far away: it holds 99.9 % of the squared distance from a first seed
    # among the others, so with 2 draws a seed lands on it but for 1e-6 of the runs. Seeds 0..99.
    z = torch.randn(1000, 2, generator=Generator().manual_seed(0), dtype=torch.float64)
    z[0] = 1500.0
    for seed in range(100):
        memberships = nearest_seed(z, 2, Generator().manual_seed(seed))
        assert memberships.sum(dim=0).sort().values.tolist() == [1, 999]


def test_bad_fits() -> None:
    z, _ = blobs(6)
    for match, z_c, count, options in (
        ("num_components must be at most the number of rows, got 7 for 6 rows", z, 7, {}),
        ("num_components must be an integer of at least 1", z, 0, {}),
        ("z_c must be finite", z / 0, 2, {}),
        ("covariance must be one of", z, 2, {"covariance": "tied"}),
        ("max_steps must be an integer", z, 2, {"max_steps": 0}),
        ("tolerance must be a finite number", z, 2, {"tolerance": -1.0}),
        ("covariance_floor must be a finite number", z, 2, {"covariance_floor": 0.0}),
        ("z_c and z_t must have the same number of rows", z[:5], 2, {}),
    ):
        with pytest.raises(ValueError, match=match):
            JointGaussianMixture.fit(z_c, z, count, **options)
    with pytest.raises(ValueError, match="must have a positive variance"):
        JointGaussianMixture.fit(torch.ones(4, 2), torch.ones(4, 1), 2)
