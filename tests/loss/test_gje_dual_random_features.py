"""The dual loss by random Fourier features, beside the exact one."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gmje_plugin import GJEDualLoss
from gmje_plugin.kernels import random_fourier_features, random_fourier_frequencies
from tests.loss.dual import NOISE, WIDTH, views
from tests.references.kernels import dual_nll, primal_prediction


def features_of(criterion: GJEDualLoss, z_c: Tensor) -> Tensor:
    assert criterion.num_features is not None
    drawn = random_fourier_frequencies(z_c.shape[1], criterion.num_features, seed=criterion.seed)
    return random_fourier_features(z_c, *drawn, length_scale=WIDTH)


@pytest.mark.parametrize("num_features", [1, 5, 12, 40])
@pytest.mark.parametrize("noise", [1e-3, NOISE])
def test_random_features_against_the_b_by_b_form(num_features: int, noise: float) -> None:
    """Woodbury and determinant identities (Eq. 68, 69), with fewer and more features than rows."""
    z_c, z_t = views()
    options: dict[str, Any] = {"length_scale": WIDTH, "noise": noise, "seed": 3}
    criterion = GJEDualLoss(num_features=num_features, **options)
    criterion(z_c, z_t)
    features = features_of(criterion, z_c).numpy()
    data_fit, log_det = dual_nll(features @ features.T, z_t.numpy(), noise)
    assert float(criterion.terms["data_fit"]) == pytest.approx(data_fit, rel=1e-8)
    assert float(criterion.terms["log_det"]) == pytest.approx(log_det, rel=1e-8)
    # Prediction is the primal one in the space of the features.
    new = views(5, seed=1)[0]
    mean, variance = criterion.fit(z_c, z_t).predict(new)
    expected = primal_prediction(features, z_t.numpy(), features_of(criterion, new).numpy(), noise)
    np.testing.assert_allclose(mean.numpy(), expected[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(variance.numpy(), expected[1], rtol=1e-6, atol=1e-9)


def test_a_fit_by_random_features_keeps_one_context_alone() -> None:
    z_c, z_t = views()
    kept = GJEDualLoss(num_features=5).fit(z_c, z_t).fit_inputs
    assert kept is not None
    assert kept.untyped_storage().nbytes() == z_c[:1].numel() * z_c.element_size()


def test_random_features_keep_their_digits_in_float32() -> None:
    """As a difference of two traces over the noise (Eq. 75) the data fit has none left."""
    z_c, _ = views(200)
    criterion = GJEDualLoss(length_scale=WIDTH, noise=1e-5, num_features=20)
    # Targets in the span of the features: what is left over is small.
    z_t = features_of(criterion, z_c)[:, :3]
    criterion(z_c, z_t)
    exact = float(criterion.terms["data_fit"])
    criterion(z_c.float(), z_t.float())
    assert float(criterion.terms["data_fit"]) == pytest.approx(exact, rel=1e-2)


def test_more_random_features_come_to_the_exact_loss_and_prediction() -> None:
    # Seeds 0 to 4; for 16 times the features the error falls to about a quarter.
    z_c, z_t = views()
    new = views(5, seed=1)[0]
    exact = GJEDualLoss(length_scale=WIDTH, noise=NOISE)
    target = torch.cat([exact(z_c, z_t)[None], exact.fit(z_c, z_t).predict(new)[0].flatten()])

    def error(num_features: int) -> float:
        errors = []
        for seed in range(5):
            criterion = GJEDualLoss(
                length_scale=WIDTH, noise=NOISE, num_features=num_features, seed=seed
            )
            mean = criterion.fit(z_c, z_t).predict(new)[0].flatten()
            errors.append((torch.cat([criterion(z_c, z_t)[None], mean]) - target).abs().mean())
        return float(torch.stack(errors).mean())

    assert error(1024) < error(64) / 2.5


class LargestTensor(TorchDispatchMode):
    """Records how many entries the largest tensor made under it has."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self.largest = max(self.largest, leaf.numel())
        return made


def test_random_features_never_make_a_matrix_of_pairs() -> None:
    batch, num_features = 2000, 16
    z_c, z_t = (view.requires_grad_() for view in views(batch))
    criterion = GJEDualLoss(num_features=num_features)
    with LargestTensor() as recorder:
        criterion(z_c, z_t).backward()
        criterion.fit(z_c, z_t).predict(z_c)
    assert recorder.largest == batch * num_features
    with LargestTensor() as recorder:
        GJEDualLoss()(z_c[:100], z_t[:100])
    assert recorder.largest == 100 * 100  # so the recorder sees what it is here for


def test_features_drawn_in_inference_mode_serve_training() -> None:
    criterion = GJEDualLoss(num_features=8, seed=987)  # a seed of its own: features are kept
    z = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.inference_mode():
        before = criterion(z, z)
    z.requires_grad_()
    loss = criterion(z, z)
    loss.backward()
    assert loss.item() == before.item()
    assert z.grad is not None
    assert z.grad.abs().sum() > 0
