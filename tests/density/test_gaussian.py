import doctest
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from torch import Tensor, nn

from gmje_plugin.density import JointGaussian, gaussian
from tests.references import density as reference

KINDS = ["full", "diagonal", "isotropic"]
DIM, SPLIT = 5, 2


def parameters(kind: str, *, dim: int = DIM, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(dim, dtype=torch.float64, generator=generator)
    root = torch.randn(dim, dim, dtype=torch.float64, generator=generator)
    covariance = root @ root.mT / dim + 0.1 * torch.eye(dim, dtype=torch.float64)
    if kind == "diagonal":
        return mean, covariance.diagonal()
    return mean, covariance if kind == "full" else covariance[0, 0]


def dense(covariance: Tensor, dim: int = DIM) -> np.ndarray:
    array = covariance.detach().numpy()
    return array if array.ndim == 2 else array * np.eye(dim)


def points(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(*shape, dtype=torch.float64, generator=generator)


def close(actual: Tensor, expected: object) -> None:
    if not isinstance(expected, Tensor):
        expected = torch.from_numpy(np.array(expected))
    torch.testing.assert_close(actual.detach(), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
class TestAgainstReferences:
    def test_log_prob(self, kind: str) -> None:
        mean, covariance = parameters(kind)
        z = points(7, DIM)
        expected = multivariate_normal(mean, dense(covariance)).logpdf(z)
        density = JointGaussian(mean, covariance, SPLIT)
        close(density.log_prob(z), expected)
        close(density.log_prob(z[0]), expected[0])
        assert density.log_prob(z.reshape(7, 1, DIM)).shape == (7, 1)

    def test_covariance_comes_back_in_its_form(self, kind: str) -> None:
        mean, covariance = parameters(kind)
        close(JointGaussian(mean, covariance, SPLIT).covariance, covariance)

    def test_marginal(self, kind: str) -> None:
        mean, covariance = parameters(kind)
        density = JointGaussian(mean, covariance, SPLIT)
        for view, block in (("context", np.s_[:SPLIT]), ("target", np.s_[SPLIT:])):
            z = points(6, DIM)[:, block]
            expected = multivariate_normal(mean[block], dense(covariance)[block, block])
            close(density.marginal(view).log_prob(z), expected.logpdf(z))

    @pytest.mark.parametrize("split", [1, SPLIT, DIM - 1])
    def test_condition_and_moments(self, kind: str, split: int) -> None:
        mean, covariance = parameters(kind)
        density = JointGaussian(mean, covariance, split)
        z_c, z_t = points(6, split), points(6, DIM - split, seed=2)
        conditional = density.condition(z_c)
        assert conditional.batch_shape == (6,)
        predicted, aleatoric, ambiguity = density.moments(z_c)
        assert ambiguity.shape == (6, DIM - split, DIM - split)
        assert not ambiguity.any()
        for row in range(6):
            m, s = reference.conditional(mean.numpy(), dense(covariance), split, z_c[row].numpy())
            close(predicted[row], m)
            close(aleatoric[row], s)
            close(conditional.log_prob(z_t)[row], multivariate_normal(m, s).logpdf(z_t[row]))

    def test_swapped(self, kind: str) -> None:
        mean, covariance = parameters(kind)
        density = JointGaussian(mean, covariance, SPLIT)
        swapped = density.swapped()
        assert swapped.split == DIM - SPLIT
        order = [*range(SPLIT, DIM), *range(SPLIT)]
        z_c, z_t = points(6, SPLIT), points(6, DIM - SPLIT, seed=2)
        close(
            swapped.log_prob(torch.cat([z_t, z_c], dim=1)),
            density.log_prob(torch.cat([z_c, z_t], dim=1)),
        )
        conditional = swapped.condition(z_t)
        for row in range(6):
            m, s = reference.conditional(
                mean[order].numpy(),
                dense(covariance)[np.ix_(order, order)],
                DIM - SPLIT,
                z_t[row].numpy(),
            )
            close(conditional.mean[row], m)
            close(conditional.log_prob(z_c)[row], multivariate_normal(m, s).logpdf(z_c[row]))
        close(swapped.mutual_information(), density.mutual_information())
        close(swapped.swapped().covariance, density.covariance)
        assert swapped.factor.shape == density.factor.shape
        leaves = [leaf.clone().requires_grad_() for leaf in (mean, covariance)]
        z = torch.cat([z_t, z_c], dim=1)
        ours = JointGaussian(*leaves, SPLIT).swapped().log_prob(z).sum()
        theirs = JointGaussian(*leaves, SPLIT).log_prob(torch.cat([z_c, z_t], dim=1)).sum()
        for one, other in zip(
            *(torch.autograd.grad(x, leaves) for x in (ours, theirs)), strict=True
        ):
            if kind == "full":  # the gradient to either half of a symmetric matrix is half of it
                one, other = (g + g.mT if g.ndim == 2 else g for g in (one, other))
            close(one, other)

    def test_entropy_and_mutual_information(self, kind: str) -> None:
        mean, covariance = parameters(kind)
        density = JointGaussian(mean, covariance, SPLIT)
        close(density.entropy(), multivariate_normal(mean, dense(covariance)).entropy())
        expected = reference.mutual_information(dense(covariance), SPLIT)
        close(density.mutual_information(), expected)
        if kind != "full":
            assert density.mutual_information() == 0

    @pytest.mark.parametrize("other_kind", KINDS)
    def test_kl(self, kind: str, other_kind: str) -> None:
        p, q = parameters(kind), parameters(other_kind, seed=5)
        expected = reference.kl(p[0].numpy(), dense(p[1]), q[0].numpy(), dense(q[1]))
        density = JointGaussian(*p, SPLIT)
        # The divergence does not depend on where the other is split.
        close(density.kl(JointGaussian(*q, split=1)), expected)
        close(density.kl(density), 0.0)
        single = JointGaussian(q[0].float(), q[1].float(), SPLIT)
        assert density.kl(single).dtype == torch.float64
        assert float(density.kl(single)) == pytest.approx(expected, rel=1e-4)

    def test_sample(self, kind: str) -> None:
        # 20,000 draws, seed 0, every mean and covariance entry within 5 standard errors: fails
        # with probability below 3e-5 if the seed is changed (30 entries).
        mean, covariance = parameters(kind)
        density = JointGaussian(mean, covariance, SPLIT)
        z = density.sample((200, 100), generator=torch.Generator().manual_seed(0))
        assert z.shape == (200, 100, DIM)
        z = z.reshape(-1, DIM)
        true = torch.from_numpy(dense(covariance))
        deviation = true.diagonal().sqrt()
        error = (z.mean(dim=0) - mean).abs() * math.sqrt(len(z)) / deviation
        assert (error < 5).all()
        std = (true.square() + torch.outer(deviation, deviation).square()).sqrt()
        assert ((z.mT.cov() - true).abs() * math.sqrt(len(z)) / std < 5).all()

    def test_samples_are_a_function_of_the_generator(self, kind: str) -> None:
        density = JointGaussian(*parameters(kind), SPLIT)
        state = torch.get_rng_state()
        first, second = (
            density.sample((3,), generator=torch.Generator().manual_seed(7)) for _ in range(2)
        )
        torch.testing.assert_close(first, second, rtol=0, atol=0)
        assert torch.equal(torch.get_rng_state(), state)
        assert density.sample().shape == (DIM,)

    def test_gradients(self, kind: str) -> None:
        mean, covariance = parameters(kind)
        other = JointGaussian(*parameters("full", seed=3), SPLIT)
        z = points(3, DIM)

        def everything(mean: Tensor, raw: Tensor, z: Tensor) -> tuple[Tensor, ...]:
            symmetric = 0.5 * (raw + raw.mT) if kind == "full" else raw
            density = JointGaussian(mean, symmetric, SPLIT)
            z_c, z_t = z.split((SPLIT, DIM - SPLIT), dim=1)
            return (
                density.log_prob(z),
                density.condition(z_c).log_prob(z_t),
                density.marginal("target").log_prob(z_t),
                *density.moments(z_c)[:2],
                density.entropy(),
                density.mutual_information(),
                density.kl(other),
                density.rsample((2,), generator=torch.Generator().manual_seed(0)),
            )

        leaves = [leaf.clone().requires_grad_() for leaf in (mean, covariance, z)]
        assert torch.autograd.gradcheck(everything, leaves)

    def test_fit(self, kind: str) -> None:
        z = points(40, DIM) @ points(DIM, DIM, seed=3) + 1
        empirical = np.cov(z.numpy(), rowvar=False, bias=True)
        zero_mean = z.numpy().T @ z.numpy() / 40  # Huang 2026, Eq. 7-8
        for expected, mean, option in (
            (empirical, z.mean(dim=0), False),
            (zero_mean, torch.zeros(DIM), True),
        ):
            fitted = JointGaussian.fit(z[:, :2], z[:, 2:], covariance=kind, zero_mean=option)
            assert fitted.split == 2
            close(fitted.mean, mean.double())
            if kind == "full":
                close(fitted.covariance, expected)
            else:
                diagonal = np.diag(expected)
                close(fitted.covariance, diagonal if kind == "diagonal" else diagonal.mean())

    def test_fit_is_differentiable_and_of_highest_likelihood(self, kind: str) -> None:
        z, others = points(12, DIM), points(3, DIM, seed=2)
        leaf = z.clone().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda z: JointGaussian.fit(z[:, :1], z[:, 1:], covariance=kind).log_prob(others), leaf
        )
        fitted = JointGaussian.fit(z[:, :1], z[:, 1:], covariance=kind)
        estimates = [value.requires_grad_() for value in (fitted.mean, fitted.covariance)]
        likelihood = JointGaussian(*estimates, 1).log_prob(z).mean()
        for gradient in torch.autograd.grad(likelihood, estimates):
            close(gradient, np.zeros(gradient.shape))

    def test_state_dict_round_trip_through_a_parent(self, kind: str, tmp_path) -> None:
        mean, covariance = parameters(kind)
        saved = nn.Sequential(JointGaussian(mean, covariance, SPLIT))
        torch.save(saved.state_dict(), tmp_path / "state.pt")
        other_mean, other_covariance = parameters(kind, seed=9)
        kept = other_mean.clone()
        loaded = nn.Sequential(JointGaussian(other_mean, other_covariance, SPLIT))
        loaded.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        z = points(4, DIM)
        torch.testing.assert_close(loaded[0].log_prob(z), saved[0].log_prob(z), rtol=0, atol=0)
        torch.testing.assert_close(other_mean, kept, rtol=0, atol=0)
        for misfit in (*set(KINDS) - {kind},):
            with pytest.raises(RuntimeError, match="size mismatch"):
                JointGaussian(*parameters(misfit), SPLIT).load_state_dict(saved[0].state_dict())
        with pytest.raises(RuntimeError, match="size mismatch"):
            JointGaussian(*parameters(kind, dim=6), SPLIT).load_state_dict(saved[0].state_dict())

    def test_a_batch_is_its_gaussians_side_by_side(self, kind: str) -> None:
        pairs = [parameters(kind, seed=seed) for seed in range(3)]
        batch = JointGaussian(
            torch.stack([mean for mean, _ in pairs]), torch.stack([c for _, c in pairs]), SPLIT
        )
        single = [JointGaussian(*pair, SPLIT) for pair in pairs]
        z, z_t = points(4, 1, DIM), points(4, 1, DIM - SPLIT)
        z_c = z[..., :SPLIT]
        for method, argument in (("log_prob", z), ("moments", z_c)):
            many = getattr(batch, method)(argument)
            each = [getattr(density, method)(argument.squeeze(1)) for density in single]
            if method == "log_prob":
                close(many, torch.stack(each, dim=1))
            else:
                close(many[0], torch.stack([mean for mean, _, _ in each], dim=1))
                close(many[1], torch.stack([covariance for _, covariance, _ in each], dim=1))
        close(
            batch.condition(z_c).log_prob(z_t),
            torch.stack([d.condition(z_c[:, 0]).log_prob(z_t[:, 0]) for d in single], dim=1),
        )
        close(batch.entropy(), [float(density.entropy()) for density in single])
        close(batch.mutual_information(), [float(d.mutual_information()) for d in single])
        close(batch.kl(single[0]), [float(density.kl(single[0])) for density in single])
        close(batch.covariance, torch.stack([covariance for _, covariance in pairs]))
        assert batch.sample((2,)).shape == (2, 3, DIM)

    def test_dtypes(self, kind: str) -> None:
        mean, covariance = parameters(kind)
        narrow = JointGaussian(mean.bfloat16(), covariance.bfloat16(), SPLIT)
        z = points(4, DIM).bfloat16()
        wide = JointGaussian(narrow.mean.double(), covariance.bfloat16().double(), SPLIT)
        for result in (
            narrow.log_prob(z),
            narrow.condition(z[:, :SPLIT]).log_prob(z[:, SPLIT:]),
            narrow.sample((3,)),
            JointGaussian.fit(z[:, :1].half(), z[:, 1:], covariance="isotropic").covariance,
        ):
            assert result.dtype == torch.float32
        assert wide.log_prob(z).dtype == torch.float64
        torch.testing.assert_close(narrow.log_prob(z).double(), wide.log_prob(z), rtol=1e-5, atol=0)

    def test_autocast_changes_nothing(self, kind: str) -> None:
        mean, covariance = (value.float() for value in parameters(kind))
        z = points(9, DIM).float()

        def results() -> list[Tensor]:
            density = JointGaussian(mean, covariance, SPLIT)
            return [
                density.log_prob(z),
                *density.moments(z[:, :SPLIT]),
                density.marginal("target").log_prob(z[:, SPLIT:]),
                density.mutual_information(),
                density.sample((4,), generator=torch.Generator().manual_seed(0)),
                density.covariance,
                JointGaussian.fit(z[:, :SPLIT], z[:, SPLIT:], covariance=kind).covariance,
            ]

        plain = results()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            narrowed = results()
        for one, other in zip(plain, narrowed, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)

    def test_a_nan_stays_in_its_row(self, kind: str) -> None:
        density = JointGaussian(*parameters(kind), SPLIT)
        z = points(3, DIM)
        z[1, 0] = math.nan
        expected = [False, True, False]
        z_c, z_t = z[:, :SPLIT], z[:, SPLIT:]
        assert density.log_prob(z).isnan().tolist() == expected
        assert density.condition(z_c).log_prob(z_t).isnan().tolist() == expected


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    split=st.integers(1, 5),
    rest=st.integers(1, 5),
    seed=st.integers(0, 10_000),
)
def test_joint_nll_is_marginal_plus_conditional_nll(
    kind: str, split: int, rest: int, seed: int
) -> None:
    """Huang 2026, Eq. 63."""
    density = JointGaussian(*parameters(kind, dim=split + rest, seed=seed), split)
    z = points(4, split + rest, seed=seed)
    z_c, z_t = z[:, :split], z[:, split:]
    parts = density.marginal("context").log_prob(z_c) + density.condition(z_c).log_prob(z_t)
    torch.testing.assert_close(density.log_prob(z), parts, rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
    dim=st.integers(2, 6),
    seed=st.integers(0, 10_000),
)
def test_divergence_and_information_are_never_negative(
    kinds: tuple[str, str], dim: int, seed: int
) -> None:
    p = JointGaussian(*parameters(kinds[0], dim=dim, seed=seed), 1)
    q = JointGaussian(*parameters(kinds[1], dim=dim, seed=seed + 1), 1)
    assert p.kl(q) > 0
    assert p.mutual_information() >= 0


def test_mutual_information_of_a_correlation() -> None:
    for correlation in (0.0, 0.5, -0.99, 1 - 1e-9):
        covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64)
        density = JointGaussian(torch.zeros(2), covariance, split=1)
        expected = -0.5 * (math.log1p(-correlation) + math.log1p(correlation))
        assert float(density.mutual_information()) == pytest.approx(expected, abs=1e-6)


def test_unit_conditional_covariance_is_jepas_squared_error() -> None:
    """Huang 2026, Eq. 61 with Sigma_t|c = I."""
    predictor = points(3, 2)
    covariance = torch.eye(5, dtype=torch.float64)
    covariance[2:, :2], covariance[:2, 2:] = predictor, predictor.mT
    covariance[2:, 2:] += predictor @ predictor.mT
    density = JointGaussian(torch.zeros(5), covariance, split=2)
    z_c, z_t = points(8, 2), points(8, 3, seed=2)
    squared_error = (z_t - z_c @ predictor.mT).square().sum(dim=1)
    expected = 0.5 * squared_error + 1.5 * math.log(2 * math.pi)
    close(-density.condition(z_c).log_prob(z_t), expected)


@pytest.mark.parametrize("noise", [1e-3, 1e-6])
def test_near_singular_covariance(noise: float) -> None:
    """z_t = 2 z_c + noise, of which conditional mean, deviation and gradients are known."""
    covariance = torch.tensor([[1.0, 2.0], [2.0, 4.0 + noise**2]], dtype=torch.float64)
    covariance.requires_grad_()
    density = JointGaussian(torch.zeros(2, dtype=torch.float64), covariance, split=1)
    z_c = points(6, 1).requires_grad_()
    conditional = density.condition(z_c)
    torch.testing.assert_close(conditional.mean, 2 * z_c)
    relative = 4 * torch.finfo(torch.float64).eps / noise**2  # rounding of 4 + noise^2
    torch.testing.assert_close(
        conditional.stddev, torch.full_like(z_c, noise), rtol=relative, atol=0
    )
    nll = -density.log_prob(torch.cat([z_c, 2 * z_c], dim=1)).sum()
    gradient_z, gradient = torch.autograd.grad(nll, (z_c, covariance))
    torch.testing.assert_close(gradient_z, z_c.detach())
    # n/2 S^-1 - 1/2 sum_i S^-1 z_i (S^-1 z_i)^T with S^-1 (z, 2 z) = (z, 0)
    inverse = torch.tensor([[4 + noise**2, -2.0], [-2.0, 1.0]], dtype=torch.float64) / noise**2
    inverse[0, 0] -= z_c.detach().square().sum() / 6
    torch.testing.assert_close(gradient, 3 * inverse, rtol=2 * relative, atol=0)


def agreeing_factor(dim: int, noise: float) -> Tensor:
    """Cholesky factor of z_t = z_c + noise, a standard normal z_c of ``dim`` dimensions."""
    eye = torch.eye(dim, dtype=torch.float64)
    return torch.cat([torch.cat([eye, 0 * eye], 1), torch.cat([eye, noise * eye], 1)])


@pytest.mark.parametrize("noise", [1e-2, 3e-4, 1e-5])
def test_a_factor_is_kept_as_it_is_given(noise: float) -> None:
    """Views that agree to ``noise``: squared in float32, their difference would be lost."""
    factor = agreeing_factor(4, noise)
    density = JointGaussian(torch.zeros(8), scale_tril=factor.float(), split=4)
    torch.testing.assert_close(density.factor, factor.float(), rtol=0, atol=0)
    information = 4 * (0.5 * math.log1p(noise**2) - math.log(noise))
    assert float(density.mutual_information()) == pytest.approx(information, abs=1e-4)
    entropy = 4 * (1 + math.log(2 * math.pi) + math.log(noise))
    assert float(density.entropy()) == pytest.approx(entropy, abs=1e-4)
    z_c = points(50, 4).float()
    conditional = density.condition(z_c)
    torch.testing.assert_close(conditional.stddev, torch.full((50, 4), noise))
    exact = torch.distributions.MultivariateNormal(
        torch.zeros(8, dtype=torch.float64), scale_tril=factor
    )
    z = torch.cat([z_c, z_c + noise * points(50, 4, seed=2).float()], dim=1)
    # Rounding of z_t moves it by up to 2^-22, at most 10 standard deviations from its mean.
    error = 8 * 10 * 2.0**-22 / noise
    torch.testing.assert_close(
        density.log_prob(z).double(), exact.log_prob(z.double()), rtol=1e-5, atol=error
    )


def test_a_factor_against_torch() -> None:
    mean, covariance = parameters("full")
    factor = torch.linalg.cholesky(covariance).requires_grad_()
    z, kept = points(6, DIM), factor.detach().clone()
    density = JointGaussian(mean, None, SPLIT, scale_tril=factor)
    torch_density = torch.distributions.MultivariateNormal(mean, scale_tril=factor)
    close(density.log_prob(z), torch_density.log_prob(z).detach())
    ours, theirs = (
        torch.autograd.grad(each.log_prob(z).sum(), factor)[0] for each in (density, torch_density)
    )
    torch.testing.assert_close(ours, theirs)
    # What is loaded later does not reach the caller's tensor.
    density.load_state_dict(JointGaussian(mean, 2 * covariance, SPLIT).state_dict())
    torch.testing.assert_close(factor.detach(), kept, rtol=0, atol=0)


def test_swapped_where_the_views_nearly_agree() -> None:
    noise = 3e-4
    density = JointGaussian(torch.zeros(8), split=4, scale_tril=agreeing_factor(4, noise).float())
    z_t = points(6, 4).float()
    conditional = density.swapped().condition(z_t)
    exact = 1 + noise**2  # z_c = z_t / exact + deviation noise / sqrt(exact)
    torch.testing.assert_close(conditional.mean, z_t / exact)
    expected = torch.full_like(z_t, noise / exact**0.5)
    torch.testing.assert_close(conditional.stddev, expected, rtol=1e-2, atol=0)


def test_marginal_of_a_target_whose_features_nearly_agree() -> None:
    """The target's own factor is not taken from a square either."""
    noise, half = 3e-4, 2.0**-0.5
    rows = [[1, 0, 0], [half, half, 0], [half, half, noise]]
    density = JointGaussian(torch.zeros(3), scale_tril=torch.tensor(rows), split=1)
    # Given the first, the second target feature is the first and noise.
    entropy = 1 + math.log(2 * math.pi) + math.log(noise)
    assert float(density.marginal("target").entropy()) == pytest.approx(entropy, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_covariance_is_jittered_with_finite_gradients(dtype: torch.dtype) -> None:
    z = points(3, 8).to(dtype).requires_grad_()
    with pytest.warns(RuntimeWarning, match="not positive definite"):
        density = JointGaussian.fit(z[:, :4], z[:, 4:])
    total = density.log_prob(z.detach()).sum() + density.condition(z[:, :4]).entropy().sum()
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("kind", ["diagonal", "isotropic"])
def test_diagonal_and_isotropic_are_never_expanded(kind: str) -> None:
    dim = 200_000  # of which a dense covariance would take 160 GB
    variances = torch.full((dim,), 2.0)
    covariance = variances if kind == "diagonal" else variances[0]
    density = JointGaussian(torch.zeros(dim), covariance, split=dim // 2)
    z = density.sample((2,), generator=torch.Generator().manual_seed(0))
    z_c, z_t = z.tensor_split(2, dim=1)
    total = density.marginal("target").log_prob(z_t) + density.condition(z_c).log_prob(z_t)
    assert torch.isfinite(total + density.log_prob(z)).all()
    assert density.kl(density) == 0
    assert density.mutual_information() == 0
    # float32 over 200,000 terms
    assert float(density.entropy()) == pytest.approx(
        0.5 * dim * (1 + math.log(4 * math.pi)), rel=1e-4
    )
    fitted = JointGaussian.fit(z_c, z_t, covariance=kind)
    assert fitted.covariance.shape == covariance.shape


EYE = torch.eye(3)


@pytest.mark.parametrize(
    ("match", "change"),
    [
        ("mean must be a floating tensor", {"mean": [0.0, 0.0, 0.0]}),
        ("mean must be a floating tensor", {"mean": torch.zeros(3, dtype=torch.int64)}),
        ("mean must have a last dimension of at least 2", {"mean": torch.zeros(())}),
        ("mean must have a last dimension of at least 2", {"mean": torch.zeros(1)}),
        ("mean must be finite", {"mean": torch.tensor([0.0, math.nan, 0.0])}),
        ("covariance must be a floating tensor", {"covariance": 1.0}),
        (r"covariance must have shape \(3, 3\) \(full\)", {"covariance": torch.eye(4)}),
        ("covariance must have shape", {"covariance": torch.ones(3, 1)}),
        ("covariance must be finite", {"covariance": EYE * math.inf}),
        ("covariance must be symmetric", {"covariance": EYE + EYE.roll(1, dims=0)}),
        ("covariance must be positive semi-definite", {"covariance": -EYE}),
        ("covariance must be positive, got 0.0", {"covariance": torch.tensor([1.0, 0.0, 1.0])}),
        ("covariance must be positive, got -1.0", {"covariance": torch.tensor(-1.0)}),
        ("one of covariance and scale_tril must be given, got both", {"scale_tril": EYE}),
        ("one of covariance and scale_tril must be given, got neither", {"covariance": None}),
        ("split must be below the 3 dimensions, got 3", {"split": 3}),
        ("split must be below the 3 dimensions, got None", {"split": None}),
        ("split must be an integer of at least 1, got 0", {"split": 0}),
        ("split must be an integer", {"split": 1.0}),
    ],
)
def test_bad_parameters(match: str, change: dict[str, object]) -> None:
    arguments = {"mean": torch.zeros(3), "covariance": EYE, "split": 1}
    JointGaussian(**arguments)
    with pytest.raises(ValueError, match=match):
        JointGaussian(**{**arguments, **change})


@pytest.mark.parametrize(
    ("match", "factor"),
    [
        ("scale_tril must be a floating tensor", [[1.0]]),
        (r"scale_tril must have shape \(3, 3\) \(full\), got \(3,\)", torch.ones(3)),
        ("scale_tril must be finite", EYE * math.nan),
        ("scale_tril must be lower triangular", EYE + EYE.roll(1, dims=1)),
        ("scale_tril must be lower triangular with a positive diagonal", -EYE),
    ],
)
def test_bad_factors(match: str, factor: object) -> None:
    with pytest.raises(ValueError, match=match):
        JointGaussian(torch.zeros(3), split=1, scale_tril=factor)


def test_values_are_not_read_without_validation() -> None:
    density = JointGaussian(torch.zeros(3), torch.tensor(-1.0), 1, validate_args=False)
    assert density.log_prob(torch.zeros(3)).isnan()
    density = JointGaussian(torch.zeros(3), EYE * math.nan, 1, validate_args=False)
    assert density.log_prob(torch.zeros(3)).isnan()


def test_bad_arguments_of_methods() -> None:
    density = JointGaussian(torch.zeros(3), EYE, split=1)
    for match, call in (
        (
            r"z must be a tensor of shape \(\.\.\., 3\), got \(2, 4\)",
            lambda: density.log_prob(torch.zeros(2, 4)),
        ),
        ("z must be a tensor", lambda: density.log_prob(torch.zeros(()))),
        ("z must be a tensor", lambda: density.log_prob([0.0, 0.0, 0.0])),
        ("z_c must be", lambda: density.condition(torch.zeros(2, 3))),
        ("z_c must be", lambda: density.moments(torch.zeros(2, 3))),
        ("view must be one of context, target, got 'both'", lambda: density.marginal("both")),
        ("other must be a JointGaussian", lambda: density.kl(nn.Identity())),
        (
            "other must have 3 dimensions, got 4",
            lambda: density.kl(JointGaussian(torch.zeros(4), torch.eye(4), 1)),
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_bad_fits() -> None:
    z = points(6, 2)
    for match, z_c, z_t, options in (
        ("z_c must be finite", z / 0, z, {}),
        ("z_t must be finite", z, torch.full((6, 2), math.nan), {}),
        ("z_c and z_t must have the same number of rows, at least 2, got 6 and 5", z, z[:5], {}),
        ("at least 2, got 1 and 1", z[:1], z[:1], {}),
        ("z_t must have shape", z, z[0], {}),
        ("covariance must be one of", z, z, {"covariance": "spherical"}),
        ("covariance must be positive", z, 0 * z, {"covariance": "diagonal"}),
    ):
        with pytest.raises(ValueError, match=match):
            JointGaussian.fit(z_c, z_t, **options)


def test_documentation() -> None:
    assert doctest.testmod(gaussian).failed == 0
