import copy
import itertools
import math
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
from gmje_plugin.density.fitting import (
    assign_to_nearest,
    covariance_floor,
    kmeans_plus_plus,
    rounding,
    weighted_covariance,
)

SKLEARN = {"full": "full", "diagonal": "diag", "isotropic": "spherical"}
FLOOR = 1e-6


def blobs(rows: int = 300, *, std: float = 0.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows around (1, 1, 1), (-3, 0, 2) and (2, -2, -1) times 3, and the labels."""
    generator = Generator().manual_seed(seed)
    centres = 3 * torch.tensor([[1, 1, 1], [-3, 0, 2], [2, -2, -1]], dtype=torch.float64)
    labels = torch.randint(3, (rows,), generator=generator)
    noise = torch.randn(rows, 3, dtype=torch.float64, generator=generator)
    return centres[labels] + std * noise, labels


def fit(z: Tensor, count: int, *, seed: int = 0, **options: object) -> JointGaussianMixture:
    generator = Generator().manual_seed(seed)
    return JointGaussianMixture.fit(z[:, :1], z[:, 1:], count, generator=generator, **options)


def precisions(covariances: Tensor) -> np.ndarray:
    return (covariances.inverse() if covariances.ndim == 3 else 1 / covariances).numpy()


@pytest.mark.parametrize("kind", SKLEARN)
def test_steps_are_those_of_scikit_learn(kind: str) -> None:
    # Overlapping clusters, so that responsibilities are soft and EM is far from its end. Whitened,
    # so that a share of their covariance is scikit-learn's multiple of the identity.
    z, _ = blobs(std=4.0)
    z = (z - z.mean(dim=0)) @ torch.linalg.inv(torch.linalg.cholesky(z.mT.cov(correction=0))).mT
    start = fit(z, 4, covariance=kind, max_steps=1)
    oracle = GaussianMixture(
        4,
        covariance_type=SKLEARN[kind],
        tol=0.0,
        max_iter=6,
        reg_covar=FLOOR,
        weights_init=start.weights.numpy(),
        means_init=start.means.numpy(),
        precisions_init=precisions(start.covariances),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        oracle.fit(z.numpy())
    options = {"covariance": kind, "tolerance": 0.0, "covariance_floor": FLOOR}
    fitted = fit(z, 4, init=start, max_steps=6, **options)
    torch.testing.assert_close(fitted.means, fit(z, 4, max_steps=7, **options).means)
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
    z, _ = blobs(std=2.0)
    fitted = fit(z, 1, covariance=kind, covariance_floor=1e-12)
    gaussian = JointGaussian.fit(z[:, :1], z[:, 1:], covariance=kind)
    torch.testing.assert_close(fitted.means[0], gaussian.mean)
    torch.testing.assert_close(fitted.covariances[0], gaussian.covariance, rtol=1e-9, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(list(SKLEARN)), count=st.integers(1, 5), seed=st.integers(0, 1000))
def test_every_step_raises_the_likelihood(kind: str, count: int, seed: int) -> None:
    z, _ = blobs(120, std=3.0, seed=seed)
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
    z, _ = blobs(std=4.0)
    eager = fit(z, 4, tolerance=1e9)
    torch.testing.assert_close(eager.means, fit(z, 4, max_steps=2).means, rtol=0, atol=0)
    assert not torch.equal(eager.means, fit(z, 4, max_steps=3).means)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_start_from_means_is_that_of_the_rows_nearest_to_each(dtype: torch.dtype) -> None:
    z = blobs(std=4.0)[0].to(dtype)
    means = torch.tensor([[5.0, 0.0, -5.0], [0.0, 0.0, 0.0], [-5.0, 5.0, 5.0]])
    nearest = np.linalg.norm(z.numpy()[:, None] - means.numpy(), axis=2).argmin(axis=1)
    state = torch.get_rng_state()
    fitted = JointGaussianMixture.fit(z[:, :1], z[:, 1:], 3, init=means, max_steps=1)
    assert torch.equal(torch.get_rng_state(), state)
    for component in range(3):
        rows = z.numpy()[nearest == component]
        np.testing.assert_allclose(fitted.means[component], rows.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(fitted.weights[component], len(rows) / len(z), rtol=1e-5)


def test_a_start_from_a_mixture_with_gradients_keeps_its_order() -> None:
    z, labels = blobs()
    means = torch.stack([z[labels == label].mean(dim=0) for label in (2, 0, 1)]).float()
    learned = (means + 0.5).requires_grad_()
    start = JointGaussianMixture(torch.full((3,), 1 / 3), learned, torch.ones(3), split=1)
    fitted = fit(z, 3, init=start)
    torch.testing.assert_close(fitted.means.float(), means, rtol=0, atol=1e-3)
    assert not fitted.means.requires_grad


def test_floor_is_relative_and_keeps_components_from_shrinking() -> None:
    # As many components as rows: each would shrink onto its row.
    z, _ = blobs(8)
    for scale in (1e-3, 1.0, 1e3):
        fitted = fit(scale * z, 8, covariance="isotropic", covariance_floor=1e-4)
        floor = 1e-4 * (scale * z).var(dim=0, correction=0).mean()
        assert (fitted.covariances >= floor * (1 - 1e-9)).all()
        torch.testing.assert_close(fitted.covariances.min(), floor)


def agreeing(noise: float, *, rows: int = 1000, dim: int = 4) -> Tensor:
    """Two views of ``dim`` features each in float64, the second the first and noise."""
    generator = Generator().manual_seed(0)
    first, second = torch.randn(2, rows, dim, dtype=torch.float64, generator=generator)
    return torch.cat([first, first + noise * second], dim=1)


@pytest.mark.parametrize("noise", [1e-1, 1e-2, 3e-4, 1e-5])
@pytest.mark.parametrize("count", [None, 1, 3])
def test_views_that_nearly_agree(noise: float, count: int | None) -> None:
    """In float32 as in float64, and as the truth: neither rounding nor the floor swamps noise."""
    z = agreeing(noise)
    information = 4 * (0.5 * math.log1p(noise**2) - math.log(noise))
    entropy = 4 * (1 + math.log(2 * math.pi) + math.log(noise))
    for dtype in (torch.float32, torch.float64):
        narrow = z.to(dtype)
        z_c, z_t = narrow[:, :4], narrow[:, 4:]
        if count is None:
            fitted = JointGaussian.fit(z_c, z_t)
            value = fitted.mutual_information()
        else:
            generator = Generator().manual_seed(0)
            fitted = JointGaussianMixture.fit(z_c, z_t, count, generator=generator)
            value, error = fitted.mutual_information(num_samples=4000, generator=generator)
            assert error < 0.1
        assert fitted.log_prob(narrow).dtype == dtype
        # 36 parameters a component of 1,000 rows: the likelihood gains about K * 36 / 2 / 1,000
        # nats by fitting, of standard error sqrt(8 / 2 / 1,000) = 0.06.
        assert float(fitted.log_prob(narrow).mean()) == pytest.approx(-entropy, abs=0.3)
        assert float(value) == pytest.approx(information, abs=0.4)


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(list(SKLEARN)), seed=st.integers(0, 1000))
def test_a_fit_in_float32_is_that_in_float64_rounded(kind: str, seed: int) -> None:
    z = blobs(60, std=3.0, seed=seed)[0].float()
    exact, fitted = (
        JointGaussian.fit(x[:, :1], x[:, 1:], covariance=kind) for x in (z.double(), z)
    )
    torch.testing.assert_close(fitted.mean, exact.mean.float(), rtol=0, atol=0)
    torch.testing.assert_close(fitted.factor, exact.factor.float(), rtol=1e-6, atol=0)
    exact, fitted = (fit(x, 2, seed=seed, covariance=kind) for x in (z.double(), z))
    torch.testing.assert_close(fitted.weights, exact.weights.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fitted.means, exact.means.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        fitted.components.factor, exact.components.factor.float(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("multiple", [0.5, 2.0, 0.3, 3.0, 0.7, 0.9])
def test_views_that_differ_by_rounding_alone_get_the_jitter_of_their_dtype(multiple: float) -> None:
    """float64 may factorise what they differ by, but float32 cannot tell points apart by it."""
    z_c = agreeing(1.0)[:, :2].float()
    z = torch.cat([z_c, multiple * z_c], dim=1)
    with pytest.warns(RuntimeWarning, match="1 of 1 matrices were not positive definite"):
        fitted = JointGaussian.fit(z_c, multiple * z_c)
    expected = copy.deepcopy(fitted).double().log_prob(z.double())
    torch.testing.assert_close(fitted.log_prob(z).double(), expected, rtol=0, atol=0.1)


@settings(max_examples=50, deadline=None)
@given(
    kind=st.sampled_from(list(SKLEARN)),
    dim=st.integers(1, 5),
    share=st.sampled_from([1e-8, 1e-6, 1e-2]),
    seed=st.integers(0, 1000),
)
def test_the_floor_is_a_share_of_the_covariance(
    kind: str, dim: int, share: float, seed: int
) -> None:
    generator = Generator().manual_seed(seed)
    z = torch.randn(40, dim, dtype=torch.float64, generator=generator)
    mixing = torch.rand(dim, dim, dtype=torch.float64, generator=generator)
    z = z @ (torch.eye(dim, dtype=torch.float64) + 0.5 * mixing.triu(1))
    # Features on scales from 1e-6 to 1e6.
    z = z * 10.0 ** (12 * torch.rand(dim, dtype=torch.float64, generator=generator) - 6)
    floor = covariance_floor(z, share, kind, torch.float64)
    covariance = weighted_covariance(z - z.mean(dim=0), z.new_full((40,), 1 / 40), kind)
    # By the deviations of the features, as correlations are.
    variances = covariance.diagonal() if kind == "full" else covariance
    unit = variances.outer(variances).sqrt() if kind == "full" else variances
    torch.testing.assert_close(
        floor / unit, share * covariance / unit, rtol=1e-6, atol=1e-6 * share
    )


def test_rounding_knows_no_sign() -> None:
    z = torch.tensor([[-4.0, 1.0], [2.0, -3.0]], dtype=torch.float64)
    found = rounding(z, torch.float32)
    torch.testing.assert_close(found, 2.0**-23 * torch.tensor([4.0, 3.0], dtype=torch.float64))


def test_the_floor_has_what_rows_are_rounded_by() -> None:
    z = 1e4 + agreeing(1.0, dim=1)
    share, variances, lost = 1e-12, z.var(dim=0, correction=0), rounding(z, torch.float32).square()
    diagonal = covariance_floor(z, share, "diagonal", torch.float32)
    torch.testing.assert_close(diagonal, share * variances + lost)
    isotropic = covariance_floor(z, share, "isotropic", torch.float32)
    torch.testing.assert_close(isotropic, share * variances.mean() + lost.mean())
    full = covariance_floor(z, share, "full", torch.float32)
    torch.testing.assert_close(full, share * z.mT.cov(correction=0) + lost.diag())


def test_the_floor_where_nothing_is_seen() -> None:
    z = agreeing(3e-4, dim=2)
    z[:, 3] = 1000.1  # a constant, which has no variance but what rounding leaves
    diagonal = covariance_floor(z, 1e-6, "diagonal", torch.float64)
    variances = z.var(dim=0, correction=0)
    torch.testing.assert_close(diagonal[:3], 1e-6 * variances[:3])
    torch.testing.assert_close(diagonal[3], 1e-6 * variances.mean())
    full = covariance_floor(z, 1e-6, "full", torch.float64)
    torch.testing.assert_close(full[:3, :3], 1e-6 * z[:, :3].mT.cov(correction=0))
    torch.testing.assert_close(full[3, 3], 1e-6 * variances.mean())
    # Fewer rows than features, and a component that shrinks onto a row: still a density.
    for dtype in (torch.float32, torch.float64):
        few = agreeing(1.0, rows=6).to(dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fitted = fit(few, 6)
        assert torch.isfinite(fitted.log_prob(few)).all()
        assert (fitted.components.factor.diagonal(dim1=-2, dim2=-1) > 1e-5).all()


@pytest.mark.parametrize("kind", SKLEARN)
def test_repeated_rows_leave_components_empty_but_nothing_nan(kind: str) -> None:
    z = torch.tensor([[0.0, 0.0], [5.0, 1.0]], dtype=torch.float64).repeat(10, 1)
    fitted = fit(z, 4, covariance=kind)
    assert torch.isfinite(fitted.log_prob(z)).all()
    assert (fitted.weights > 0).sum() == 2
    assert float(fitted.weights.sum()) == pytest.approx(1.0)


def test_far_from_the_origin_in_float32() -> None:
    # Two clusters 1 apart, 1,000 from the origin, where float32 is spaced 6e-5.
    z = blobs(200, std=0.01)[0].float() * 0.01 + 1000
    z[:100] += 1.0
    fitted = fit(z, 2)
    order = fitted.means[:, 0].argsort()
    torch.testing.assert_close(fitted.weights, torch.full((2,), 0.5))
    for component, rows in zip(order, (z[100:], z[:100]), strict=True):
        torch.testing.assert_close(
            fitted.means[component].double(), rows.double().mean(dim=0), rtol=0, atol=1e-3
        )


def test_a_fit_is_a_function_of_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    z, _ = blobs(std=4.0)
    state = torch.get_rng_state()
    first = fit(z, 4, seed=3)
    torch.testing.assert_close(first.means, fit(z, 4, seed=3).means, rtol=0, atol=0)
    assert not torch.equal(first.means, fit(z, 4, seed=4).means)
    assert torch.equal(torch.get_rng_state(), state)
    # Nor does it matter how many rows an E-step takes at a time.
    monkeypatch.setattr(mixture, "_CHUNK_ELEMENTS", 100)
    torch.testing.assert_close(first.means, fit(z, 4, seed=3).means)


def test_a_fit_has_no_gradient_and_ignores_autocast() -> None:
    z = blobs(std=4.0)[0].float().requires_grad_()
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
        memberships = assign_to_nearest(z, kmeans_plus_plus(z, 2, Generator().manual_seed(seed)))
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
        (
            r"init must be 'kmeans\+\+', a mixture or means of 2 .* 'random'",
            z,
            2,
            {"init": "random"},
        ),
        (r"means of 2 components in 6 dimensions, got \(3, 6\)", z, 2, {"init": torch.ones(3, 6)}),
        (r"means of 2 components in 6 dimensions, got None", z, 2, {"init": None}),
        ("init must be finite", z, 2, {"init": torch.full((2, 6), math.nan)}),
    ):
        with pytest.raises(ValueError, match=match):
            JointGaussianMixture.fit(z_c, z, count, **options)
    with pytest.raises(ValueError, match="must have a positive variance"):
        JointGaussianMixture.fit(torch.ones(4, 2), torch.ones(4, 1), 2)
    with pytest.raises(ValueError, match="that does not overflow float64, got inf"):
        JointGaussianMixture.fit(1e200 * z, z, 2)
