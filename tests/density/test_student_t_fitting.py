"""Student's t mixtures fitted to data, and calibrated on other data."""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import t as student_t
from sklearn.mixture import GaussianMixture
from torch import Generator

from gmje_plugin import JointGaussianMixture, JointStudentTMixture
from gmje_plugin.density.student_t_fitting import m_step, updated_df
from tests.density.points import close, points
from tests.density.student_ts import COUPLINGS, DIM, SPLIT, density_of, heavy, parameters


@pytest.mark.parametrize("coupling", COUPLINGS)
class TestFit:
    def test_likelihood_never_falls(self, coupling: str) -> None:
        z_c, z_t = heavy(300, df=3.0)
        likelihoods = []
        for steps in range(1, 25):
            found = JointStudentTMixture.fit(
                z_c,
                z_t,
                2,
                coupling=coupling,
                max_steps=steps,
                tolerance=0.0,
                covariance_floor=1e-12,
                generator=Generator().manual_seed(0),
            )
            likelihoods.append(float(found.log_prob(torch.cat([z_c, z_t], dim=1)).mean()))
        gains = np.diff(likelihoods)
        assert (gains > -1e-9).all()
        assert gains.sum() > 0.05

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
    def test_many_degrees_of_freedom_are_scikit_learns_fit(self, coupling: str) -> None:
        generator = Generator().manual_seed(0)
        centres = (
            torch.tensor([[0.0, 0.0, 0.0], [8.0, 8.0, 8.0]]).double().repeat_interleave(200, 0)
        )
        z = centres + torch.randn(400, 3, dtype=torch.float64, generator=generator)
        found = JointStudentTMixture.fit(
            z[:, :1],
            z[:, 1:],
            2,
            coupling=coupling,
            df_range=(1e9, 1e9),
            tolerance=0.0,
            max_steps=30,
            generator=generator,
        )
        expected = GaussianMixture(2, tol=0.0, max_iter=30, random_state=0).fit(z.numpy())
        order = found.means[:, 0].argsort().numpy()
        theirs = expected.means_[:, 0].argsort()
        tolerance = {"rtol": 1e-4, "atol": 1e-4}
        for ours, other in (
            (found.weights, expected.weights_),
            (found.means, expected.means_),
            (found.scales, expected.covariances_),
        ):
            np.testing.assert_allclose(ours.numpy()[order], other[theirs], **tolerance)

    def test_recovers_what_it_draws(self, coupling: str) -> None:
        # 20,000 draws: over 20 other seeds the largest error was 0.4 of its bound.
        truth = density_of(coupling, count=1, dim=3)
        z = truth.sample((20_000,), generator=Generator().manual_seed(0))
        found = JointStudentTMixture.fit(
            z[:, :SPLIT], z[:, SPLIT:], 1, coupling=coupling, tolerance=1e-7, max_steps=500
        )
        close_to = {"rtol": 0.1, "atol": 0.1}
        torch.testing.assert_close(found.means, truth.means, **close_to)
        torch.testing.assert_close(found.scales, truth.scales, **close_to)
        torch.testing.assert_close(found.df, truth.df, rtol=0.2, atol=0.0)

    def test_is_a_maximum(self, coupling: str) -> None:
        """No parameter has a gradient left, by autograd through the density."""
        z_c, z_t = heavy(500, df=3.0)
        z_c = z_c * torch.linspace(0.2, 3.0, len(z_c), dtype=torch.float64)[:, None]
        found = JointStudentTMixture.fit(
            z_c, z_t, 1, coupling=coupling, tolerance=0.0, max_steps=3000, covariance_floor=1e-12
        )
        assert ((found.df > 1.01) & (found.df < 199)).all()
        leaves = [
            part.clone().requires_grad_()
            for part in (found.means, found.components.factor, found.df)
        ]
        density = JointStudentTMixture(
            found.weights,
            leaves[0],
            split=2,
            scale_tril=leaves[1].tril(),
            df=leaves[2],
            coupling=coupling,
        )
        density.log_prob(torch.cat([z_c, z_t], dim=1)).mean().backward()
        for leaf in leaves:
            assert leaf.grad is not None
            assert leaf.grad.abs().max() < 1e-5

    def test_heavy_tails_beat_the_gaussian(self, coupling: str) -> None:
        z_c, z_t = heavy(4000, df=2.5)
        known, new = slice(0, 2000), slice(2000, None)
        found = JointStudentTMixture.fit(z_c[known], z_t[known], 1, coupling=coupling)
        gaussian = JointGaussianMixture.fit(z_c[known], z_t[known], 1)
        z = torch.cat([z_c, z_t], dim=1)[new]
        assert found.log_prob(z).mean() > gaussian.log_prob(z).mean() + 0.1

    def test_bounds_hold(self, coupling: str) -> None:
        z_c, z_t = heavy(500, df=1.0)
        found = JointStudentTMixture.fit(z_c, z_t, 2, coupling=coupling, df_range=(4.0, 6.0))
        assert ((found.df > 4 - 1e-9) & (found.df < 6 + 1e-9)).all()

    def test_comes_out_in_the_dtype_given(self, coupling: str) -> None:
        z_c, z_t = (view.float() for view in heavy(100, df=3.0))
        found = JointStudentTMixture.fit(z_c, z_t, 2, coupling=coupling)
        assert found.log_prob(torch.cat([z_c, z_t], dim=1)).dtype == torch.float32


def test_a_component_without_rows_is_finite() -> None:
    z, ones = points(20, 3), torch.ones(20, 2, 1, dtype=torch.float64)
    empty = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(20, 2)
    floor = torch.eye(3, dtype=torch.float64)
    for precisions in (ones, ones.expand(-1, -1, 2)):
        means, factors = m_step(z, empty, precisions, floor, 1)
        assert means.isfinite().all()
        close(factors[1] @ factors[1].mT, floor)
        df = torch.full((2, precisions.shape[2]), 5.0, dtype=torch.float64)
        dims = torch.tensor([3] if precisions.shape[2] == 1 else [1, 2])
        # Nothing speaks for tails.
        close(
            updated_df(df, dims, empty, precisions, (1.0, 200.0))[1], torch.full_like(df[1], 200.0)
        )


def test_a_calibration_in_float32_is_that_in_float64_rounded() -> None:
    density, pair = density_of("scaled").float(), (points(50, SPLIT), points(50, DIM - SPLIT))
    found, exact = density.calibrated(*pair), copy.deepcopy(density).double().calibrated(*pair)
    assert found.means.dtype == torch.float32
    for name, value in found.state_dict().items():
        torch.testing.assert_close(value.double(), exact.state_dict()[name].double(), msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_calibration_leaves_the_density_as_it_is(dtype: torch.dtype) -> None:
    density = density_of("scaled").to(dtype)
    before = copy.deepcopy(density.state_dict())
    density.calibrated(points(50, SPLIT), points(50, DIM - SPLIT))
    for name, value in density.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_tolerance_ends_the_steps() -> None:
    def fit(**options: float) -> torch.Tensor:
        generator = Generator().manual_seed(0)
        return JointStudentTMixture.fit(
            *heavy(100, df=3.0), 2, generator=generator, **options
        ).means

    assert torch.equal(fit(tolerance=1e9), fit(max_steps=2))
    assert not torch.equal(fit(tolerance=1e9), fit(max_steps=3))


def test_a_step_is_peel_and_mclachlans() -> None:
    """Eq. 19 and 20: the location's weights sum to 1, the scale's are over the responsibilities."""
    z = points(20, 3)
    responsibilities = points(20, 2, seed=2).softmax(dim=1)
    precisions = points(20, 2, seed=3).exp()
    floor = torch.eye(3, dtype=torch.float64)
    means, factors = m_step(z, responsibilities, precisions[..., None], floor, 1)
    for k in range(2):
        weights = responsibilities[:, k] * precisions[:, k]
        close(means[k], weights / weights.sum() @ z)
        scale = torch.einsum("n,ni,nj->ij", weights, z - means[k], z - means[k])
        close(factors[k] @ factors[k].mT, scale / responsibilities[:, k].sum() + floor)


def test_residual_of_one_dimension_is_scipys_fit() -> None:
    random = np.random.default_rng(0)
    residual = student_t(3.0, scale=0.3).rvs(2000, random_state=random)
    z_c = torch.from_numpy(random.standard_normal((2000, 1)))
    found = JointStudentTMixture.fit(
        z_c,
        torch.from_numpy(residual)[:, None],
        1,
        coupling="independent",
        tolerance=0.0,
        max_steps=1000,
        covariance_floor=1e-12,
    )
    slope = found.scales[0, 1, 0] / found.scales[0, 0, 0]
    rest = torch.from_numpy(residual) - slope * z_c[:, 0]
    df, loc, scale = student_t.fit(rest.numpy())
    assert float(found.df[0, 1]) == pytest.approx(df, rel=1e-2)
    assert float(found.components.factor[0, 1, 1]) == pytest.approx(scale, rel=1e-2)
    assert float(found.means[0, 1] - slope * found.means[0, 0]) == pytest.approx(loc, abs=1e-3)


class TestCalibration:
    """A density whose residuals came out too narrow and too light-tailed, whatever the context."""

    @staticmethod
    def narrow(truth: JointStudentTMixture) -> JointStudentTMixture:
        factors = truth.components.factor.clone()
        factors[:, SPLIT:, SPLIT:] *= 0.5
        df = torch.stack([truth.df[:, 0], torch.full_like(truth.df[:, 1], 50.0)], dim=1)
        return JointStudentTMixture(
            truth.weights,
            truth.means,
            split=SPLIT,
            df=df,
            scale_tril=factors,
            coupling="independent",
        )

    def test_finds_the_truth(self) -> None:
        # 20,000 draws: over 20 other seeds the largest error was 0.6 of its bound.
        truth = density_of("scaled", count=1)
        z = truth.sample((20_000,), generator=Generator().manual_seed(0))
        found = self.narrow(truth).calibrated(z[:, :SPLIT], z[:, SPLIT:])
        torch.testing.assert_close(found.scales, truth.scales, rtol=0.05, atol=0.02)
        torch.testing.assert_close(found.df, truth.df, rtol=0.15, atol=0.0)
        torch.testing.assert_close(found.power, truth.power, rtol=0.0, atol=0.05)

    def test_regions_hold_what_they_should(self) -> None:
        # 4,000 new draws; the share inside a region that holds 80 % has a standard deviation of
        # 0.7 points: more than 3 points away with probability 2e-5 under another seed. The
        # region's bound is that of 500 draws, whose error adds little.
        truth = density_of("scaled")
        z = truth.sample((8_000,), generator=Generator().manual_seed(0))
        known, new = z[:4000], z[4000:]

        def held(density: JointStudentTMixture) -> float:
            torch.manual_seed(0)
            given = density.condition(new[:, :SPLIT])
            drawn = given.log_prob(given.sample(torch.Size([500])))
            bound = drawn.quantile(0.2, dim=0)
            return float((given.log_prob(new[:, SPLIT:]) > bound).double().mean())

        narrow = self.narrow(truth)
        assert held(narrow) < 0.7
        assert held(narrow.calibrated(known[:, :SPLIT], known[:, SPLIT:])) == pytest.approx(
            0.8, abs=0.03
        )

    def test_no_other_numbers_are_likelier(self) -> None:
        z_c, z_t = heavy(500, df=3.0)
        z_c = z_c * torch.linspace(0.2, 3.0, len(z_c), dtype=torch.float64)[:, None]
        z = torch.cat([z_c, z_t], dim=1)
        found = JointStudentTMixture.fit(z_c, z_t, 2, coupling="independent").calibrated(z_c, z_t)

        def likelihood(factor: float = 1.0, df: float = 1.0, power: float = 0.0) -> float:
            factors = found.components.factor.clone()
            factors[:, 2:, 2:] *= factor
            other = JointStudentTMixture(
                found.weights,
                found.means,
                split=2,
                df=found.df * torch.tensor([1.0, df]),
                scale_tril=factors,
                coupling="independent",
                power=float(found.power) + power,
            )
            return float(other.log_prob(z).mean())

        assert likelihood() == pytest.approx(float(found.log_prob(z).mean()), abs=1e-9)
        for change in (0.98, 1.02):
            assert likelihood(factor=change) < likelihood()
            assert likelihood(df=change) < likelihood()
            assert likelihood(power=change - 1) < likelihood()

    def test_leaves_the_density_and_its_dtype_alone(self) -> None:
        density = density_of("independent").float()
        before = density.df.clone()
        with torch.inference_mode():
            found = density.calibrated(points(50, SPLIT), points(50, DIM - SPLIT))
        assert found.df.dtype == torch.float32
        torch.testing.assert_close(density.df, before)

    def test_parameters_with_a_gradient_are_calibrated_as_their_values(self) -> None:
        given = {name: part.requires_grad_() for name, part in parameters("independent").items()}
        density = JointStudentTMixture(**given, split=SPLIT, coupling="independent")
        z_c, z_t = points(50, SPLIT), points(50, DIM - SPLIT)
        found = density.calibrated(z_c, z_t)
        expected = density_of("independent").calibrated(z_c, z_t)
        assert torch.equal(found.df, expected.df)
        assert not found.df.requires_grad
        assert density.df.requires_grad


@pytest.mark.parametrize("bound", [2.5, 50.0])
def test_degrees_of_freedom_start_within_their_bounds(bound: float) -> None:
    views = heavy(100, df=3.0)
    found = JointStudentTMixture.fit(*views, 1, df_range=(bound, bound), max_steps=1)
    assert found.df.item() == pytest.approx(bound)
