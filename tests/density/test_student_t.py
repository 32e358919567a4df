import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_t
from scipy.stats import t as student_t
from sklearn.mixture import GaussianMixture
from torch import Generator, Tensor

from gmje_plugin import JointGaussianMixture, JointStudentTMixture
from gmje_plugin.density.multivariate_t import MultivariateStudentT

COUPLINGS = ["joint", "independent"]
KINDS = [*COUPLINGS, "scaled"]  # the last independent, but for a power of the context's distance
COMPONENTS, DIM, SPLIT = 3, 4, 1


def parameters(
    coupling: str, *, count: int = COMPONENTS, dim: int = DIM, seed: int = 0
) -> dict[str, Tensor]:
    generator = Generator().manual_seed(seed)
    weights = torch.rand(count, dtype=torch.float64, generator=generator) + 0.2
    means = 2 * torch.randn(count, dim, dtype=torch.float64, generator=generator)
    root = torch.randn(count, dim, dim, dtype=torch.float64, generator=generator)
    scales = root @ root.mT / dim + 0.1 * torch.eye(dim, dtype=torch.float64)
    shape = (count,) if coupling == "joint" else (count, 2)
    df = 2.5 + 5 * torch.rand(shape, dtype=torch.float64, generator=generator)
    return {"weights": weights / weights.sum(), "means": means, "scales": scales, "df": df}


def density_of(
    kind: str, *, split: int = SPLIT, power: float = 0.7, **options: int
) -> JointStudentTMixture:
    coupling = "joint" if kind == "joint" else "independent"
    return JointStudentTMixture(
        **parameters(coupling, **options),
        split=split,
        coupling=coupling,
        power=power if kind == "scaled" else 0.0,
    )


def points(*shape: int, seed: int = 1) -> Tensor:
    generator = Generator().manual_seed(seed)
    return 2 * torch.randn(*shape, dtype=torch.float64, generator=generator)


def close(actual: Tensor, expected: object) -> None:
    if not isinstance(expected, Tensor):
        expected = torch.from_numpy(np.array(expected))
    torch.testing.assert_close(actual.detach(), expected, rtol=1e-8, atol=1e-8)


def reference_log_prob(
    density: JointStudentTMixture,
    z: Tensor,  # shape: (N, D)
) -> np.ndarray:
    """Sums of SciPy's t, with explicit inverses."""
    split, found = density.split, []
    for weight, mean, scale, df in zip(
        *(part.numpy() for part in (density.weights, density.means, density.scales, density.df)),
        strict=True,
    ):
        if density.coupling == "joint":
            found.append(weight * multivariate_t(mean, scale, df=df).pdf(z))
            continue
        slope = scale[split:, :split] @ np.linalg.inv(scale[:split, :split])
        residual = scale[split:, split:] - slope @ scale[:split, split:]
        context = multivariate_t(mean[:split], scale[:split, :split], df=df[0])
        locations = mean[split:] + (z[:, :split].numpy() - mean[:split]) @ slope.T
        target = []
        for location, row in zip(locations, z.numpy(), strict=True):
            apart = row[:split] - mean[:split]
            squared = 1 + apart @ np.linalg.inv(scale[:split, :split]) @ apart
            width = (squared / (1 + split)) ** float(density.power)
            target.append(multivariate_t(location, width * residual, df=df[1]).pdf(row[split:]))
        found.append(weight * context.pdf(z[:, :split]) * np.array(target))
    return np.log(np.sum(found, axis=0))


def heavy(count: int, *, df: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Contexts that are Gaussian, and targets of two dimensions whose residuals are a t."""
    random = np.random.default_rng(seed)
    z_c = random.standard_normal((count, 2))
    residual = multivariate_t(np.zeros(2), 0.1 * np.eye(2), df=df).rvs(count, random_state=random)
    z_t = z_c @ np.array([[1.0, 0.5], [-0.5, 1.0]]) + residual
    return torch.from_numpy(z_c), torch.from_numpy(z_t)


class TestMultivariateStudentT:
    def test_log_prob_is_scipys(self) -> None:
        given = parameters("joint")
        spread = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
        factor = torch.linalg.cholesky(given["scales"])
        found = MultivariateStudentT(given["df"], given["means"], factor, spread)
        z = points(2, 5, 1, DIM)
        expected = np.stack(
            [
                multivariate_t(mean, scale * s**2, df=df).logpdf(z[:, :, 0])
                for mean, scale, s, df in zip(
                    *(part.numpy() for part in (given["means"], given["scales"], spread)),
                    given["df"].numpy(),
                    strict=True,
                )
            ],
            axis=-1,
        )
        close(found.log_prob(z), expected)

    def test_draws_have_its_moments(self) -> None:
        # 40,000 draws of 8 degrees of freedom, seed 0, within 5 standard errors by the draws' own
        # spread: fails with probability below 1e-5 if the seed is changed.
        factor = torch.tensor([[1.0, 0.0], [0.5, 2.0]], dtype=torch.float64)
        loc, df = torch.tensor([1.0, -1.0], dtype=torch.float64), torch.tensor(8.0)
        found = MultivariateStudentT(df.double(), loc, factor, torch.tensor(0.5).double())
        torch.manual_seed(0)
        z = found.sample(torch.Size([40_000]))
        for draws, expected in ((z, found.mean), ((z - loc).square(), found.variance)):
            error = draws.std(dim=0) / math.sqrt(len(z))
            assert ((draws.mean(dim=0) - expected).abs() < 5 * error).all()

    def test_moments_that_do_not_exist(self) -> None:
        df = torch.tensor([1.0, 2.0, 3.0])
        found = MultivariateStudentT(df, torch.zeros(3, 2), torch.eye(2))
        assert found.mean.isnan().any(dim=1).tolist() == [True, False, False]
        torch.testing.assert_close(
            found.variance[:, 0], torch.tensor([math.nan, math.inf, 3.0]), equal_nan=True
        )


@pytest.mark.parametrize("kind", KINDS)
class TestAgainstReferences:
    def test_log_prob(self, kind: str) -> None:
        density = density_of(kind)
        z = points(6, DIM)
        close(density.log_prob(z), reference_log_prob(density, z))
        close(density.log_prob(z.reshape(2, 3, DIM)), density.log_prob(z).reshape(2, 3))
        assert density.log_prob(z[0]).shape == ()

    @pytest.mark.parametrize("split", [1, 2, DIM - 1])
    def test_condition_is_the_joint_over_the_context(self, kind: str, split: int) -> None:
        density = density_of(kind, split=split)
        z = points(5, DIM)
        context = density.marginal("context").log_prob(z[:, :split])
        expected = density.log_prob(z) - context
        close(density.condition(z[:, :split]).log_prob(z[:, split:]), expected)

    def test_context_is_the_joint_integrated(self, kind: str) -> None:
        """Sums over z_t = sinh(x), which reaches far into the tails."""
        density = density_of(kind, dim=2)
        z_c = torch.tensor([-0.7, 2.0], dtype=torch.float64)
        x = torch.linspace(-15, 15, 20_001, dtype=torch.float64)
        z = torch.stack(torch.meshgrid(z_c, x.sinh(), indexing="ij"), dim=-1)
        mass = (density.log_prob(z).exp() * x.cosh()).sum(dim=1) * (x[1] - x[0])
        close(density.marginal("context").log_prob(z_c[:, None]), mass.log())

    def test_moments_are_those_of_the_density(self, kind: str) -> None:
        """Sums over z_t = sinh(x), without any of the formulas."""
        density = density_of(kind, dim=2)
        z_c = torch.tensor([[-0.7]], dtype=torch.float64)
        x = torch.linspace(-40, 40, 40_001, dtype=torch.float64)
        grid = x.sinh()
        z = torch.stack([z_c[0].expand_as(grid), grid], dim=1)
        mass = density.log_prob(z).exp() * x.cosh()
        mass = mass / mass.sum()
        mean, aleatoric, ambiguity = density.moments(z_c)
        expected = (mass * grid).sum()
        close(mean.squeeze(), expected)
        close((aleatoric + ambiguity).squeeze(), (mass * (grid - expected).square()).sum())
        assert ambiguity > 0

    def test_sample(self, kind: str) -> None:
        # Means of bounded functions of 20,000 draws, seed 0, beside those of 200,000 draws of a
        # wider t weighted by the ratio of the densities. Within 5 standard errors of the
        # difference: fails with probability below 1e-5 if the seed is changed.
        density = density_of(kind)
        z = density.sample((100, 200), generator=Generator().manual_seed(0))
        assert z.shape == (100, 200, DIM)
        z = z.reshape(-1, DIM)
        wide = multivariate_t(np.zeros(DIM), 6 * np.eye(DIM), df=2)
        other = wide.rvs(200_000, random_state=np.random.default_rng(1))
        ratios = np.exp(density.log_prob(torch.from_numpy(other)).numpy() - wide.logpdf(other))
        for function in (np.tanh, np.abs):
            values, expected = np.minimum(function(z.numpy()), 3), np.minimum(function(other), 3)
            weighted = ratios[:, None] * expected
            error = np.hypot(
                values.std(axis=0) / math.sqrt(len(values)),
                weighted.std(axis=0) / math.sqrt(len(other)),
            )
            assert (np.abs(values.mean(axis=0) - weighted.mean(axis=0)) < 5 * error).all()

    def test_views_are_coupled_as_said(self, kind: str) -> None:
        """A context far out widens the target of the joint t and leaves the other's alone."""
        density = density_of(kind, count=1)
        near, far = density.means[:, :SPLIT], density.means[:, :SPLIT] + 50.0
        (_, first, _), (_, second, _) = density.moments(near), density.moments(far)
        if kind != "independent":
            assert (second.diagonal(dim1=-2, dim2=-1) > 10 * first.diagonal(dim1=-2, dim2=-1)).all()
        else:
            close(second, first)

    def test_state_and_gradients(self, kind: str) -> None:
        density, other = density_of(kind), density_of(kind, seed=1)
        other.load_state_dict(density.state_dict())
        z = points(3, DIM).requires_grad_()
        close(other.log_prob(z), density.log_prob(z.detach()))
        assert torch.autograd.gradcheck(density.log_prob, z)
        half = density.to(torch.float32)
        assert half.condition(z[:, :SPLIT].bfloat16()).mean.dtype == torch.float32
        assert half.log_prob(z * math.nan).isnan().all()


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


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_many_degrees_of_freedom_make_a_gaussian(coupling: str) -> None:
    given = parameters(coupling)
    df = torch.full_like(given["df"], 1e9)
    density = JointStudentTMixture(**given | {"df": df}, split=SPLIT, coupling=coupling)
    parts = (given["weights"], given["means"], given["scales"])
    gaussian = JointGaussianMixture(*parts, SPLIT)
    z = points(6, DIM)
    tolerance = {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(density.log_prob(z), gaussian.log_prob(z), **tolerance)
    for found, expected in zip(
        density.moments(z[:, :SPLIT]), gaussian.moments(z[:, :SPLIT]), strict=True
    ):
        torch.testing.assert_close(found, expected, **tolerance)


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


class TestErrors:
    def test_no_marginal_of_an_independent_target(self) -> None:
        with pytest.raises(ValueError, match="no closed form"):
            density_of("independent").marginal("target")
        density_of("joint").marginal("target").log_prob(points(5, DIM - SPLIT))

    def test_joint_is_not_calibrated(self) -> None:
        with pytest.raises(ValueError, match="coupling must be 'independent'"):
            density_of("joint").calibrated(points(5, SPLIT), points(5, DIM - SPLIT))

    @pytest.mark.parametrize("coupling", COUPLINGS)
    def test_moments_need_a_variance(self, coupling: str) -> None:
        given = parameters(coupling)
        df = torch.full_like(given["df"], 1.0)
        density = JointStudentTMixture(**given | {"df": df}, split=SPLIT, coupling=coupling)
        with pytest.raises(ValueError, match="more than 2 degrees of freedom"):
            density.moments(points(5, SPLIT))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"coupling": "other"}, "coupling must be one of"),
            ({"df": torch.ones(COMPONENTS, 2)}, r"df must be a floating tensor of shape \(3,\)"),
            ({"df": -torch.ones(COMPONENTS)}, "df must be positive"),
            ({"scales": torch.ones(COMPONENTS)}, r"scales must have shape \(3, 4, 4\)"),
            ({"power": 0.5}, "power must be 0"),
            ({"split": DIM}, "split must be below"),
            ({"weights": torch.ones(COMPONENTS)}, "sum to 1"),
        ],
    )
    def test_of_the_constructor(self, change: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            JointStudentTMixture(**{**parameters("joint"), "split": SPLIT, **change})  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"coupling": "other"}, "coupling must be one of"),
            ({"df_range": (5.0, 1.0)}, "the smaller first"),
            ({"df_range": (0.0, 1.0)}, "df_range must be"),
            ({"num_components": 11}, "at most the number of rows"),
        ],
    )
    def test_of_the_fit(self, change: dict[str, object], message: str) -> None:
        options: dict[str, object] = {"num_components": 1, **change}
        with pytest.raises(ValueError, match=message):
            JointStudentTMixture.fit(*heavy(10, df=3.0), **options)  # type: ignore[arg-type]
