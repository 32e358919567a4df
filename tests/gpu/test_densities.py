"""Joint densities on a GPU: what the CPU gives."""

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from gmje_plugin import GrowingNeuralGas, JointGaussian, JointGaussianMixture

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda")
SPLIT, DIM, K, N = 3, 7, 4, 200


def sample(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


def mixture(kind: str, device: torch.device) -> JointGaussianMixture:
    square = sample(K, DIM, DIM, seed=3)
    covariances = {
        "full": square @ square.mT + torch.eye(DIM),
        "diagonal": square.diagonal(dim1=1, dim2=2).square() + 0.5,
        "isotropic": square[:, 0, 0].square() + 0.5,
    }[kind]
    return JointGaussianMixture(
        sample(K, seed=1).softmax(dim=0).to(device),
        sample(K, DIM, seed=2).to(device),
        covariances.to(device),
        split=SPLIT,
    )


READINGS: dict[str, Callable[[JointGaussianMixture, Tensor], Tensor]] = {
    "log_prob": lambda m, z: m.log_prob(z),
    "marginal": lambda m, z: m.marginal("target").log_prob(z[:, SPLIT:]),
    "condition": lambda m, z: m.condition(z[:, :SPLIT]).log_prob(z[:, SPLIT:]),
    "mean": lambda m, z: m.moments(z[:, :SPLIT])[0],
    "ambiguity": lambda m, z: m.moments(z[:, :SPLIT])[2],
    "swapped": lambda m, z: m.swapped().log_prob(torch.cat([z[:, SPLIT:], z[:, :SPLIT]], dim=1)),
}


@pytest.mark.parametrize("kind", ["full", "diagonal", "isotropic"])
@pytest.mark.parametrize("name", READINGS)
def test_a_mixture(kind: str, name: str) -> None:
    z = sample(N, DIM, seed=5)
    expected = READINGS[name](mixture(kind, torch.device("cpu")), z)
    got = READINGS[name](mixture(kind, DEVICE), z.to(DEVICE))
    assert got.device.type == DEVICE.type
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["full", "diagonal", "isotropic"])
def test_samples_are_on_the_device_and_of_the_mixture(kind: str) -> None:
    density = mixture(kind, DEVICE)
    drawn = density.sample((20_000,))
    assert drawn.device.type == DEVICE.type
    expected = (density.weights[:, None] * density.means).sum(dim=0)
    torch.testing.assert_close(drawn.mean(dim=0), expected, rtol=0.0, atol=0.1)


def test_fits() -> None:
    z_c, z_t = sample(2, 400, SPLIT, seed=6)
    z_t = z_t + z_c
    for fit in (JointGaussian.fit, lambda a, b: JointGaussianMixture.fit(a, b, 3)):
        torch.manual_seed(0)
        expected = fit(z_c, z_t)
        torch.manual_seed(0)
        got = fit(z_c.to(DEVICE), z_t.to(DEVICE))
        z = torch.cat([z_c, z_t], dim=1)
        torch.testing.assert_close(
            got.log_prob(z.to(DEVICE)).mean().cpu(),
            expected.log_prob(z).mean(),
            rtol=1e-3,
            atol=1e-3,
        )


def test_neural_gas() -> None:
    z = sample(500, DIM, seed=7)
    gases = [GrowingNeuralGas(DIM, 8, insert_every=50) for _ in range(2)]
    gases[0].partial_fit(z)
    gases[1].partial_fit(z.to(DEVICE))
    torch.testing.assert_close(gases[1].nodes.cpu(), gases[0].nodes)
