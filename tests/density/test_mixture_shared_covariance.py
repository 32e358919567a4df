"""Mixtures whose components share a covariance or a Cholesky factor."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from gmje_plugin.density import JointGaussianMixture
from tests.density.mixtures import COMPONENTS, DIM, KINDS, SPLIT, parameters
from tests.density.points import close, points


def shared_and_repeated(
    kind: str, *, count: int = COMPONENTS, dim: int = DIM, split: int = SPLIT, seed: int = 0
) -> tuple[JointGaussianMixture, JointGaussianMixture]:
    """A mixture of one covariance for all components, and the same one with a copy for each."""
    weights, means, covariances = parameters(kind, count=count, dim=dim, seed=seed)
    repeated = covariances[:1].repeat(count, *[1] * (covariances.ndim - 1))
    return (
        JointGaussianMixture(weights, means, covariances[:1], split),
        JointGaussianMixture(weights, means, repeated, split),
    )


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    count=st.integers(1, 5),
    split=st.integers(1, 4),
    rest=st.integers(1, 4),
    seed=st.integers(0, 10_000),
)
def test_a_shared_covariance_is_one_for_each(
    kind: str, count: int, split: int, rest: int, seed: int
) -> None:
    shared, repeated = shared_and_repeated(
        kind, count=count, dim=split + rest, split=split, seed=seed
    )
    assert len(shared.components.factor) == 1
    z = points(2, 3, split + rest, seed=seed)
    z_c, z_t = z[..., :split], z[..., split:]

    def seeded() -> dict[str, object]:
        return {"num_samples": 10, "generator": Generator().manual_seed(seed)}

    def everything(density: JointGaussianMixture) -> list[Tensor]:
        conditional = density.condition(z_c)
        return [
            density.covariances,
            density.log_prob(z),
            density.marginal("context").log_prob(z_c),
            density.marginal("target").log_prob(z_t),
            conditional.mixture_distribution.probs,
            conditional.log_prob(z_t),
            conditional.variance,
            *density.moments(z_c),
            density.sample((4,), generator=Generator().manual_seed(seed)),
            *density.entropy(**seeded()),
            *density.mutual_information(**seeded()),
            *density.kl(repeated, **seeded()),
            density.components.entropy(),
            density.components.mutual_information(),
            density.components.kl(repeated.components),
        ]

    for one, other in zip(everything(shared), everything(repeated), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, COMPONENTS])
def test_far_from_the_origin_in_float32(kind: str, count: int) -> None:
    weights, means, covariances = parameters(kind)
    covariances = 0.01 * covariances[:count]
    # A power of 2 that float32 adds to values of its grid without rounding.
    means, z = (2.0**-8 * (2.0**8 * each).round() for each in (means, points(6, DIM)))
    exact = JointGaussianMixture(weights, means, covariances, SPLIT)
    far = JointGaussianMixture(
        weights.float(), (means + 2.0**12).float(), covariances.float(), SPLIT
    )
    found = far.log_prob((z + 2.0**12).float())
    torch.testing.assert_close(found.double(), exact.log_prob(z), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_to_a_shared_covariance_is_the_sum_of_those_to_its_copies(kind: str) -> None:
    weights, means, covariances = parameters(kind)
    z = points(5, DIM)
    gradients = []
    for copies in (1, COMPONENTS):
        given = covariances[:1].repeat(copies, *[1] * (covariances.ndim - 1))
        leaves = [leaf.clone().requires_grad_() for leaf in (means, given, z)]
        density = JointGaussianMixture(weights, leaves[0], leaves[1], SPLIT)
        z_c, z_t = leaves[2][:, :SPLIT], leaves[2][:, SPLIT:]
        total = density.log_prob(leaves[2]).sum() + density.condition(z_c).log_prob(z_t).sum()
        to_means, to_covariance, to_z = torch.autograd.grad(total, leaves)
        gradients.append((to_means, to_covariance.sum(dim=0), to_z))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_a_shared_factor_is_never_expanded() -> None:
    count, dim = 20_000, 1024  # of which a matrix for each would take 84 GB
    factor = torch.eye(dim)
    weights = torch.full((count,), 1 / count)
    density = JointGaussianMixture(
        weights, torch.zeros(count, dim), split=dim // 2, scale_tril=factor[None]
    )
    assert density.covariances.shape == (count, dim, dim)
    z = density.sample((2,), generator=Generator().manual_seed(0))
    z_c, z_t = z[:1].tensor_split(2, dim=1)
    expected = -0.5 * (z.square().sum(dim=1) + dim * math.log(2 * math.pi))
    torch.testing.assert_close(density.log_prob(z), expected)
    assert torch.isfinite(density.condition(z_c).log_prob(z_t)).all()
    torch.testing.assert_close(density.moments(z_c)[1][0], torch.eye(dim // 2))


@pytest.mark.parametrize("shared", [True, False])
def test_factors_of_nearly_agreeing_views(shared: bool) -> None:
    """In float32, with noise of 3e-4 between the views, as in float64."""
    dim, count = 4, 3
    eye = torch.eye(dim, dtype=torch.float64)
    factor = torch.cat([torch.cat([eye, 0 * eye], 1), torch.cat([eye, 3e-4 * eye], 1)])
    factors = factor.expand(1 if shared else count, -1, -1)
    weights, means, _ = parameters("full", count=count, dim=dim)
    means = torch.cat([means, means], dim=1)
    exact = JointGaussianMixture(weights, means, split=dim, scale_tril=factors)
    density = JointGaussianMixture(
        *(value.float() for value in (weights, means)), split=dim, scale_tril=factors.float()
    )
    z = exact.sample((2000,), generator=Generator().manual_seed(0))
    # The rounding of z to float32 is a share of 1e-3 of the noise.
    assert float(density.log_prob(z).mean()) == pytest.approx(
        float(exact.log_prob(z.float()).mean()), abs=1e-2
    )
    oracle = MixtureSameFamily(Categorical(weights), MultivariateNormal(means, scale_tril=factor))
    close(exact.log_prob(z), oracle.log_prob(z))
