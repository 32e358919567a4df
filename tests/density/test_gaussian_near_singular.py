"""Views that nearly agree: covariances near to singular, and Cholesky factors given as such."""

import math

import pytest
import torch
from torch import Tensor

from gmje_plugin.density import JointGaussian
from tests.density.gaussians import DIM, SPLIT, parameters
from tests.density.points import close, points


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
