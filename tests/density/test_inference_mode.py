"""Densities that a validation hook makes, which runs in inference mode."""

import copy

import pytest
import torch
from torch import nn

from gmje_plugin.density import GrowingNeuralGas, JointGaussian, JointGaussianMixture
from tests.density.mixtures import DIM, SPLIT, parameters
from tests.density.points import points


def made_in_inference_mode() -> dict[str, nn.Module]:
    """Every density that a validation hook, which runs in inference mode, may keep."""
    given = parameters("full")
    ordinary = JointGaussianMixture(*given, SPLIT)
    z = points(40, DIM)
    leaf = points(40, DIM).requires_grad_()
    with torch.inference_mode():
        weights, means, covariances = (value.clone() for value in given)
        z_c, z_t = z[:, :SPLIT].clone(), z[:, SPLIT:].clone()
        assert z_c.is_inference()
        gas = GrowingNeuralGas(DIM, 3).double().partial_fit(torch.cat([z_c, z_t], dim=1))
        return {
            "mixture": JointGaussianMixture(weights, means, covariances, SPLIT),
            "isotropic": JointGaussianMixture(weights, means, covariances[:1, 0, 0], SPLIT),
            "fitted": JointGaussianMixture.fit(z_c, z_t, 2),
            "fitted, float32": JointGaussianMixture.fit(z_c.float(), z_t.float(), 2),
            "swapped": ordinary.swapped(),
            "gas": gas.to_mixture(z, SPLIT),
            "gas, float32": GrowingNeuralGas(DIM, 3).partial_fit(z).to_mixture(z, SPLIT),
            "gaussian": JointGaussian(means[0], covariances[0], SPLIT),
            "factor": JointGaussian(means[0], None, SPLIT, scale_tril=covariances[0].tril()),
            "fitted gaussian": JointGaussian.fit(z_c, z_t),
            "fitted gaussian, with a gradient": JointGaussian.fit(leaf[:, :SPLIT], leaf[:, SPLIT:]),
            "fitted, diagonal": JointGaussian.fit(z_c, z_t, covariance="diagonal"),
            "swapped gaussian": ordinary.components.swapped(),
        }


@pytest.mark.parametrize("name", made_in_inference_mode())
def test_what_inference_mode_makes_can_be_loaded_and_trained(name: str) -> None:
    density = made_in_inference_mode()[name]
    assert not any(buffer.is_inference() or buffer.requires_grad for buffer in density.buffers())
    density.load_state_dict(copy.deepcopy(density.state_dict()))
    z = points(4, 1, DIM).requires_grad_()
    for buffer in density.buffers():
        buffer.requires_grad_()
    conditional = density.condition(z[..., : density.split])
    (density.log_prob(z).sum() + conditional.mean.sum()).backward()
    assert torch.isfinite(z.grad).all()
    assert all(torch.isfinite(buffer.grad).all() for buffer in density.buffers())


def test_a_gas_made_in_inference_mode_goes_on() -> None:
    z = points(40, DIM).float()
    with torch.inference_mode():
        gas = GrowingNeuralGas(DIM, 3, insert_every=10).partial_fit(z)
    expected = GrowingNeuralGas(DIM, 3, insert_every=10).partial_fit(z).partial_fit(z)
    torch.testing.assert_close(gas.partial_fit(z).nodes, expected.nodes, rtol=0, atol=0)
    gas.load_state_dict(expected.state_dict())
