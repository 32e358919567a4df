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
from tests.density.gaussians import DIM, KINDS, SPLIT, dense, parameters
from tests.density.points import close, points
from tests.references import density as reference


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

    def test_a_state_of_another_split_is_refused(self, kind: str) -> None:
        state = JointGaussian(*parameters(kind), SPLIT).state_dict()
        other = JointGaussian(*parameters(kind, seed=9), SPLIT - 1)
        with pytest.raises(ValueError, match=f"split must be the state's, {SPLIT}, here it is"):
            other.load_state_dict(state)
        assert not torch.equal(other.mean, state["mean"])  # nothing was loaded
        del state["split"]  # as before the split was saved
        other.load_state_dict(state)
        assert torch.equal(other.mean, state["mean"])

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


def test_documentation() -> None:
    assert doctest.testmod(gaussian).failed == 0


def test_a_fit_far_from_the_origin_keeps_its_digits_in_float32() -> None:
    z = points(2000, DIM).float() + 1000.0
    found = JointGaussian.fit(z[:, :SPLIT], z[:, SPLIT:])
    expected = torch.cov(z.double().mT, correction=0)
    torch.testing.assert_close(found.covariance.double(), expected, rtol=1e-4, atol=1e-5)
