import doctest
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from torch.nn.functional import normalize

from gmje_plugin.density import JointGaussian, JointGaussianMixture, mixture
from tests.density.mixtures import COMPONENTS, DIM, KINDS, SPLIT, arrays, parameters
from tests.density.points import close, points
from tests.references import density as reference


@pytest.mark.parametrize("kind", KINDS)
class TestAgainstReferences:
    def test_parameters_come_back(self, kind: str) -> None:
        weights, means, covariances = parameters(kind)
        density = JointGaussianMixture(weights, means, covariances, SPLIT)
        close(density.weights, weights)
        close(density.means, means)
        close(density.covariances, covariances)
        assert density.split == SPLIT

    def test_log_prob(self, kind: str) -> None:
        given = parameters(kind)
        density = JointGaussianMixture(*given, SPLIT)
        z = points(6, DIM)
        weights, means, covariances = arrays(*given)
        close(density.log_prob(z), reference.mixture_log_prob(weights, means, covariances, z))
        close(density.log_prob(z.reshape(2, 3, DIM)), density.log_prob(z).reshape(2, 3))
        assert density.log_prob(z[0]).shape == ()
        torch_mixture = MixtureSameFamily(
            Categorical(given[0]), MultivariateNormal(given[1], torch.from_numpy(covariances))
        )
        close(density.log_prob(z), torch_mixture.log_prob(z))

    def test_marginal(self, kind: str) -> None:
        given = parameters(kind)
        density = JointGaussianMixture(*given, SPLIT)
        weights, means, covariances = arrays(*given)
        for view, rows in (("context", slice(None, SPLIT)), ("target", slice(SPLIT, None))):
            z = points(5, DIM)[:, rows]
            expected = reference.mixture_log_prob(
                weights, means[:, rows], covariances[:, rows, rows], z
            )
            close(density.marginal(view).log_prob(z), expected)

    @pytest.mark.parametrize("split", [1, 2, DIM - 1])
    def test_condition_and_moments(self, kind: str, split: int) -> None:
        given = parameters(kind)
        density = JointGaussianMixture(*given, split)
        z_c, z_t = points(5, split), points(5, DIM - split, seed=2)
        conditional = density.condition(z_c)
        assert isinstance(conditional, MixtureSameFamily)
        assert conditional.batch_shape == (5,)
        moments = density.moments(z_c)
        for row in range(5):
            parts = reference.mixture_conditional(*arrays(*given), split, z_c[row].numpy())
            close(conditional.mixture_distribution.probs[row], parts[0])
            close(conditional.component_distribution.mean[row], parts[1])
            expected = reference.mixture_log_prob(*parts, z_t[row].numpy())
            close(conditional.log_prob(z_t)[row], expected)
            for actual, value in zip(moments, reference.mixture_moments(*parts), strict=True):
                close(actual[row], value)

    def test_moments_are_those_of_the_density(self, kind: str) -> None:
        """Quadrature of p(z_c, z_t) over z_t, without any of the formulas."""
        density = JointGaussianMixture(*parameters(kind, dim=2), split=1)
        z_c = torch.tensor([[-0.7]], dtype=torch.float64)
        grid = torch.linspace(-25, 25, 200_001, dtype=torch.float64)
        z = torch.stack([z_c[0].expand_as(grid), grid], dim=1)
        mass = density.log_prob(z).exp()
        mass = mass / mass.sum()
        mean, aleatoric, ambiguity = density.moments(z_c)
        expected = (mass * grid).sum()
        close(mean.squeeze(), expected)
        close((aleatoric + ambiguity).squeeze(), (mass * (grid - expected).square()).sum())
        assert ambiguity > 0

    def test_sample(self, kind: str) -> None:
        # 20,000 draws, seed 0, every mean and covariance entry within 5 standard errors (by the
        # draws' own std): fails with probability below 3e-5 if the seed is changed.
        given = parameters(kind)
        density = JointGaussianMixture(*given, SPLIT)
        z = density.sample((100, 200), generator=Generator().manual_seed(0))
        assert z.shape == (100, 200, DIM)
        z = z.reshape(-1, DIM)
        mean, aleatoric, ambiguity = reference.mixture_moments(*arrays(*given))
        products = (z - z.mean(dim=0)).unsqueeze(1) * (z - z.mean(dim=0)).unsqueeze(2)
        for draws, expected in ((z, mean), (products, aleatoric + ambiguity)):
            error = draws.std(dim=0) / math.sqrt(len(z))
            assert ((draws.mean(dim=0) - torch.from_numpy(expected)).abs() < 5 * error).all()

    def test_samples_are_a_function_of_the_generator(self, kind: str) -> None:
        density = JointGaussianMixture(*parameters(kind), SPLIT)
        state = torch.get_rng_state()
        first, second = (
            density.sample((4,), generator=Generator().manual_seed(7)) for _ in range(2)
        )
        torch.testing.assert_close(first, second, rtol=0, atol=0)
        assert torch.equal(torch.get_rng_state(), state)
        assert density.sample().shape == (DIM,)
        assert density.sample((2, 0)).shape == (2, 0, DIM)

    def test_gradients(self, kind: str) -> None:
        leaves = [leaf.clone().requires_grad_() for leaf in (*parameters(kind), points(2, DIM))]
        other = JointGaussianMixture(*parameters("full", seed=3), SPLIT)

        def everything(
            weights: Tensor, means: Tensor, raw: Tensor, z: Tensor
        ) -> tuple[Tensor, ...]:
            symmetric = 0.5 * (raw + raw.mT) if kind == "full" else raw
            density = JointGaussianMixture(weights, means, symmetric, SPLIT, validate_args=False)
            z_c, z_t = z[:, :SPLIT], z[:, SPLIT:]

            def seed() -> Generator:
                return Generator().manual_seed(0)

            return (
                density.log_prob(z),
                density.condition(z_c).log_prob(z_t),
                density.marginal("target").log_prob(z_t),
                *density.moments(z_c),
                density.entropy(num_samples=6, generator=seed()).value,
                density.mutual_information(num_samples=6, generator=seed()).value,
                density.kl(other, num_samples=6, generator=seed()).value,
            )

        assert torch.autograd.gradcheck(everything, leaves)

    def test_gradient_is_that_of_a_torch_mixture(self, kind: str) -> None:
        weights, means, covariances = parameters(kind)
        z = points(7, DIM)
        gradients = []
        for ours in (True, False):
            leaves = [leaf.clone().requires_grad_() for leaf in (weights, means, covariances)]
            w, m, c = leaves
            if ours:
                log_prob = JointGaussianMixture(w, m, c, SPLIT).log_prob(z)
            else:
                eye = torch.eye(DIM, dtype=torch.float64)
                full = c if kind == "full" else c.reshape(COMPONENTS, -1, 1) * eye
                log_prob = MixtureSameFamily(Categorical(w), MultivariateNormal(m, full)).log_prob(
                    z
                )
            gradients.append(torch.autograd.grad(log_prob.mean(), leaves))
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)

    def test_one_component_is_the_gaussian(self, kind: str) -> None:
        _, means, covariances = parameters(kind, count=1)
        one = JointGaussianMixture(torch.ones(1), means, covariances, SPLIT)
        gaussian = JointGaussian(means[0], covariances[0], SPLIT)
        other = JointGaussian(*(p[0] for p in parameters("full", count=1, seed=4)[1:]), SPLIT)
        z = points(6, DIM)
        close(one.log_prob(z), gaussian.log_prob(z))
        for actual, expected in zip(
            one.moments(z[:, :SPLIT]), gaussian.moments(z[:, :SPLIT]), strict=True
        ):
            close(actual, expected)
        # 20,000 draws, seed 0: within 5 standard errors but for 6e-7 of the seeds.
        for estimate, exact in (
            (one.entropy, gaussian.entropy()),
            (one.mutual_information, gaussian.mutual_information()),
            (lambda **options: one.kl(other, **options), gaussian.kl(other)),
        ):
            value, error = estimate(num_samples=20_000, generator=Generator().manual_seed(0))
            assert (value - exact).abs() <= 5 * error + 1e-12
            assert error < 0.2

    def test_state_dict_round_trip_through_a_parent(self, kind: str, tmp_path) -> None:
        saved = nn.Sequential(JointGaussianMixture(*parameters(kind), SPLIT))
        torch.save(saved.state_dict(), tmp_path / "state.pt")
        given = parameters(kind, seed=9)
        means = given[1].clone()
        loaded = nn.Sequential(JointGaussianMixture(*given, SPLIT))
        loaded.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        z = points(4, DIM)
        torch.testing.assert_close(loaded[0].log_prob(z), saved[0].log_prob(z), rtol=0, atol=0)
        torch.testing.assert_close(given[1], means, rtol=0, atol=0)
        for other in (
            *(parameters(misfit) for misfit in KINDS if misfit != kind),
            parameters(kind, count=4),
            parameters(kind, dim=5),
        ):
            with pytest.raises(RuntimeError, match="size mismatch"):
                JointGaussianMixture(*other, SPLIT).load_state_dict(saved[0].state_dict())

    def test_loads_into_one_with_gradients(self, kind: str) -> None:
        given = parameters(kind)
        leaves = [leaf.clone().requires_grad_() for leaf in parameters(kind, seed=2)]
        before = [leaf.detach().clone() for leaf in leaves]
        target = JointGaussianMixture(*leaves, SPLIT)
        source = JointGaussianMixture(*given, SPLIT)
        target.load_state_dict(source.state_dict())
        z = points(4, DIM)
        close(target.log_prob(z), source.log_prob(z))
        for leaf, kept in zip(leaves, before, strict=True):
            torch.testing.assert_close(leaf.detach(), kept, rtol=0, atol=0)

    def test_autocast_changes_nothing(self, kind: str) -> None:
        given = [value.float() for value in parameters(kind)]
        z = points(9, DIM).float()

        def results() -> list[Tensor]:
            density = JointGaussianMixture(*given, SPLIT)
            return [
                density.log_prob(z),
                *density.moments(z[:, :SPLIT]),
                density.condition(z[:, :SPLIT]).log_prob(z[:, SPLIT:]),
                density.sample((4,), generator=Generator().manual_seed(0)),
                *density.mutual_information(num_samples=50, generator=Generator().manual_seed(0)),
            ]

        plain = results()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            narrowed = results()
        for one, other in zip(plain, narrowed, strict=True):
            assert one.dtype == torch.float32
            torch.testing.assert_close(one, other, rtol=0, atol=0)

    def test_a_nan_stays_in_its_row(self, kind: str) -> None:
        density = JointGaussianMixture(*parameters(kind), SPLIT)
        z = points(3, DIM)
        z[1, 0] = math.nan
        z_c, z_t = z[:, :SPLIT], z[:, SPLIT:]
        for values in (density.log_prob(z), density.condition(z_c).log_prob(z_t)):
            assert values.isnan().tolist() == [False, True, False]


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    count=st.integers(1, 4),
    split=st.integers(1, 4),
    rest=st.integers(1, 4),
    seed=st.integers(0, 10_000),
)
def test_joint_nll_is_marginal_plus_conditional_nll(
    kind: str, count: int, split: int, rest: int, seed: int
) -> None:
    """Huang 2026, Eq. 63, component-wise and hence for the mixture (Eq. 99-104)."""
    given = parameters(kind, count=count, dim=split + rest, seed=seed)
    density = JointGaussianMixture(*given, split)
    z = points(3, split + rest, seed=seed)
    z_c, z_t = z[:, :split], z[:, split:]
    parts = density.marginal("context").log_prob(z_c) + density.condition(z_c).log_prob(z_t)
    torch.testing.assert_close(density.log_prob(z), parts, rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    count=st.integers(1, 4),
    split=st.integers(1, 4),
    rest=st.integers(1, 4),
    shared=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_swapped_is_the_conditional_the_other_way(
    kind: str, count: int, split: int, rest: int, shared: bool, seed: int
) -> None:
    """p(z_c | z_t) = p(z_c, z_t) / p(z_t) for views of any two sizes."""
    weights, means, covariances = parameters(kind, count=count, dim=split + rest, seed=seed)
    density = JointGaussianMixture(
        weights, means, covariances[:1] if shared else covariances, split
    )
    swapped = density.swapped()
    assert swapped.split == rest
    assert swapped.components.factor.shape == density.components.factor.shape
    z = points(3, split + rest, seed=seed)
    z_c, z_t = z[:, :split], z[:, split:]
    close(swapped.log_prob(torch.cat([z_t, z_c], dim=1)), density.log_prob(z))
    expected = density.log_prob(z) - density.marginal("target").log_prob(z_t)
    close(swapped.condition(z_t).log_prob(z_c), expected)
    mean, aleatoric, ambiguity = swapped.moments(z_t)
    assert mean.shape == (3, split)
    assert aleatoric.shape == ambiguity.shape == (3, split, split)
    close(swapped.swapped().covariances, density.covariances)
    close(swapped.swapped().weights, density.weights)


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(KINDS), count=st.integers(2, 4), seed=st.integers(0, 10_000))
def test_order_and_splitting_of_components_do_not_matter(kind: str, count: int, seed: int) -> None:
    weights, means, covariances = parameters(kind, count=count, seed=seed)
    density = JointGaussianMixture(weights, means, covariances, SPLIT)
    # The first component twice, at a quarter and three quarters of its weight, in reverse order.
    shares = torch.cat([weights[:1] / 4, weights[1:], weights[:1] * 3 / 4]).flip(0)
    other = JointGaussianMixture(
        shares,
        torch.cat([means, means[:1]]).flip(0),
        torch.cat([covariances, covariances[:1]]).flip(0),
        SPLIT,
    )
    z = points(3, DIM, seed=seed)
    torch.testing.assert_close(other.log_prob(z), density.log_prob(z))
    for one, two in zip(other.moments(z[:, :SPLIT]), density.moments(z[:, :SPLIT]), strict=True):
        torch.testing.assert_close(one, two)


def test_responsibility_of_the_positive_is_infonce() -> None:
    """Equal isotropic components on unit-norm keys, variance tau (Huang 2026, Eq. 27-31)."""
    bank = normalize(points(16, 8), dim=1)
    queries = normalize(points(4, 8, seed=2), dim=1)
    for temperature in (0.01, 0.1, 1.0):
        density = JointGaussianMixture(
            torch.full((16,), 1 / 16, dtype=torch.float64),
            torch.cat([bank, bank], dim=1),
            torch.full((16,), temperature, dtype=torch.float64),
            split=8,
        )
        log_responsibilities = density.condition(queries).mixture_distribution.logits
        close(log_responsibilities, (queries @ bank.mT / temperature).log_softmax(dim=1))


def test_far_components_make_known_entropy_and_information() -> None:
    # K components that never overlap, each isotropic: H = log K + H of one, and the views share
    # nothing but which component it is, so I = log K. Exact for any draw: the standard error of
    # the information is 0 to rounding.
    count, dim = 4, 6
    means = 1e4 * torch.arange(count, dtype=torch.float64)[:, None].expand(-1, dim)
    density = JointGaussianMixture(
        torch.full((count,), 0.25, dtype=torch.float64),
        means,
        torch.ones(count, dtype=torch.float64),
        split=2,
    )
    value, error = density.mutual_information(num_samples=40, generator=Generator().manual_seed(0))
    assert float(value) == pytest.approx(math.log(count), abs=1e-9)
    assert float(error) == pytest.approx(0.0, abs=1e-9)
    value, error = density.entropy(num_samples=4000, generator=Generator().manual_seed(0))
    expected = math.log(count) + 0.5 * dim * (1 + math.log(2 * math.pi))
    # Within 5 standard errors but for 6e-7 of the seeds.
    assert abs(float(value) - expected) < 5 * float(error)
    close(density.kl(density).value, 0.0)


def test_standard_errors_tell_the_std_of_the_estimates() -> None:
    # 400 estimates, seeds 0..399. The variance of the standardised errors is 1, its own standard
    # error about sqrt(2/400) = 0.07: outside [0.6, 1.4] for fewer than 1e-6 of other seeds. The
    # mean, of standard error 0.05, is within 0.25 of 0 as often.
    p = JointGaussianMixture(*parameters("full"), SPLIT)
    q = JointGaussianMixture(*parameters("diagonal", seed=5), SPLIT)
    for estimate in (
        p.entropy,
        p.mutual_information,
        lambda **options: p.kl(q, **options),
    ):
        truth = estimate(num_samples=600_000, generator=Generator().manual_seed(1000)).value
        drawn = [
            estimate(num_samples=300, generator=Generator().manual_seed(seed))
            for seed in range(400)
        ]
        scores = torch.stack([(value - truth) / error for value, error in drawn])
        assert scores.mean().abs() < 0.25
        assert 0.6 < scores.var() < 1.4


def test_a_weight_of_zero_is_no_component() -> None:
    weights, means, covariances = parameters("full")
    weights = torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64).requires_grad_()
    density = JointGaussianMixture(weights, means, covariances, SPLIT)
    kept = [0, 2]
    without = JointGaussianMixture(
        torch.tensor([0.5, 0.5], dtype=torch.float64), means[kept], covariances[kept], SPLIT
    )
    z = points(5, DIM)
    close(density.log_prob(z), without.log_prob(z))
    close(density.moments(z[:, :SPLIT])[2], without.moments(z[:, :SPLIT])[2])
    total = density.log_prob(z).sum() + density.condition(z[:, :SPLIT]).log_prob(z[:, SPLIT:]).sum()
    (total + density.entropy(num_samples=6).value).backward()
    assert torch.isfinite(weights.grad).all()
    # Seed 0; the means are far enough apart to tell from where a draw is.
    far = JointGaussianMixture(
        weights.detach(), 1e3 * means, torch.ones(3, dtype=torch.float64), SPLIT
    )
    draws = far.sample((500,), generator=Generator().manual_seed(0))
    assert set(torch.cdist(draws, 1e3 * means).argmin(dim=1).tolist()) == {0, 2}


def test_loading_into_the_swapped_density_does_not_reach_this_one() -> None:
    density, other = (JointGaussianMixture(*parameters("full", seed=s), SPLIT) for s in (0, 1))
    z = points(5, DIM)
    before = density.log_prob(z)
    density.swapped().load_state_dict(other.swapped().state_dict())
    assert torch.equal(density.log_prob(z), before)


def test_draws_are_divided_evenly_and_not_fewer_than_asked_for() -> None:
    density = JointGaussianMixture(*parameters("full"), SPLIT)

    def entropy(num_samples: int) -> Tensor:
        return density.entropy(num_samples=num_samples, generator=Generator().manual_seed(0)).value

    assert COMPONENTS == 3
    assert entropy(7) == entropy(9) != entropy(6)
    assert entropy(1) == entropy(6)  # two each at least


def test_draws_and_standard_errors_have_no_gradient() -> None:
    leaves = [value.requires_grad_() for value in parameters("full")]
    density = JointGaussianMixture(*leaves, SPLIT)
    assert not density.sample((5,)).requires_grad
    value, error = density.entropy(num_samples=6)
    assert value.requires_grad
    assert not error.requires_grad


def test_documentation() -> None:
    assert doctest.testmod(mixture).failed == 0


def test_draws_are_in_no_order_of_their_components() -> None:
    means = torch.tensor([[-100.0, 0.0], [100.0, 0.0]])
    mixture = JointGaussianMixture(torch.full((2,), 0.5), means, torch.ones(2), split=1)
    first, _ = mixture.sample((100,), generator=torch.Generator().manual_seed(0)).unbind(dim=1)
    assert bool((first[:-1] > first[1:] + 100.0).any())
    assert bool((first[:-1] < first[1:] - 100.0).any())
