import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_t
from torch import Generator, Tensor

from gmje_plugin import JointGaussianMixture, JointStudentTMixture
from tests.density.points import close, points
from tests.density.student_ts import (
    COMPONENTS,
    COUPLINGS,
    DIM,
    KINDS,
    SPLIT,
    density_of,
    heavy,
    parameters,
)


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


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_a_function_of_the_generator(kind: str) -> None:
    density = density_of(kind)
    state = torch.get_rng_state()
    one, other = (density.sample((50,), generator=Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, other)


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


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_a_weight_of_zero_is_no_component(coupling: str) -> None:
    given = parameters(coupling)
    weights = torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64).requires_grad_()
    density = JointStudentTMixture(**given | {"weights": weights}, split=SPLIT, coupling=coupling)
    kept = {name: part[[0, 2]] for name, part in (given | {"weights": weights}).items()}
    z = points(5, DIM)
    found = density.log_prob(z)
    without = JointStudentTMixture(**kept, split=SPLIT, coupling=coupling)
    close(found.detach(), without.log_prob(z).detach())
    found.sum().backward()
    assert weights.grad is not None
    assert torch.isfinite(weights.grad).all()


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_loading_does_not_reach_the_tensors_given(coupling: str) -> None:
    given, other = parameters(coupling), density_of(coupling, seed=1)
    before = {name: value.clone() for name, value in given.items()}
    density = JointStudentTMixture(**given, split=SPLIT, coupling=coupling)
    density.load_state_dict(other.state_dict())
    for name, value in given.items():
        assert torch.equal(value, before[name]), name


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
            ({"df": torch.full((COMPONENTS,), math.inf)}, "df must be positive and finite"),
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
