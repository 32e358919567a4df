import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, DotProduct, WhiteKernel
from torch import Generator, Tensor, nn
from torch.distributions import MultivariateNormal

from gmje_plugin import GJEDualLoss
from tests.loss.dual import NOISE, WIDTH, views
from tests.references.kernels import dual_nll, kernel_matrix, primal_log_det, primal_prediction


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_exact_loss_against_the_formula_and_torch_distributions(kernel: str) -> None:
    z_c, z_t = views()
    criterion = GJEDualLoss(kernel, length_scale=WIDTH, noise=NOISE)
    loss = z_t.shape[1] * criterion(z_c, z_t)
    values = kernel_matrix(z_c.numpy(), z_c.numpy(), kernel=kernel, length_scale=WIDTH)
    data_fit, log_det = dual_nll(values, z_t.numpy(), NOISE)
    assert float(criterion.terms["data_fit"]) == pytest.approx(data_fit, rel=1e-10)
    assert float(criterion.terms["log_det"]) == pytest.approx(log_det, rel=1e-10)
    process = MultivariateNormal(
        torch.zeros(len(z_c)).double(), torch.from_numpy(values) + NOISE * torch.eye(len(z_c))
    )
    torch.testing.assert_close(loss, -process.log_prob(z_t.mT).sum() / len(z_c))


def test_the_order_of_lightlys_benchmarks_is_taken_by_the_gradient() -> None:
    """criterion(target, prediction): the target is the one without a gradient."""
    z_c, z_t = views()
    expected = GJEDualLoss()(z_c.requires_grad_(), z_t)
    assert torch.equal(GJEDualLoss()(z_t, z_c), expected)


def test_views_of_different_sizes() -> None:
    z_c, z_t = views()
    for num_features in (None, 16):
        criterion = GJEDualLoss(num_features=num_features)
        parts = [criterion(z_c, z_t[:, column : column + 1]) for column in range(z_t.shape[1])]
        torch.testing.assert_close(criterion(z_c, z_t), torch.stack(parts).mean())
        assert criterion(z_c, torch.cat([z_t, z_t], dim=1)).isfinite()


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_exact_against_scikit_learn(kernel: str) -> None:
    z_c, z_t = views()
    new = views(5, seed=1)[0]
    signal = RBF(WIDTH) if kernel == "rbf" else DotProduct(sigma_0=1e-12)
    # Its alpha is the noise, so that the variance it predicts is that of the latent function.
    oracle = GaussianProcessRegressor(signal, alpha=NOISE, optimizer=None)
    oracle.fit(z_c.numpy(), z_t.numpy())
    criterion = GJEDualLoss(kernel, length_scale=WIDTH, noise=NOISE)
    likelihood = oracle.log_marginal_likelihood_value_
    loss = z_t.shape[1] * float(criterion(z_c, z_t))
    assert loss == pytest.approx(-likelihood / len(z_c), rel=1e-9)
    mean, variance = criterion.fit(z_c, z_t).predict(new)
    expected_mean, expected_deviation = oracle.predict(new.numpy(), return_std=True)
    np.testing.assert_allclose(mean.numpy(), expected_mean, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(variance.numpy(), expected_deviation[:, 0] ** 2, rtol=1e-8)


def test_gradient_of_the_length_scale_is_scikit_learns() -> None:
    z_c, z_t = views()
    criterion = GJEDualLoss(length_scale=WIDTH, learn_length_scale=True, noise=NOISE).double()
    (z_t.shape[1] * criterion(z_c, z_t)).backward()
    oracle = GaussianProcessRegressor(RBF(WIDTH) + WhiteKernel(NOISE), alpha=0.0, optimizer=None)
    oracle.fit(z_c.numpy(), z_t.numpy())
    _, gradient = oracle.log_marginal_likelihood(np.log([WIDTH, NOISE]), eval_gradient=True)
    assert float(criterion.log_length_scale.grad) == pytest.approx(
        -gradient[0] / len(z_c), rel=1e-5
    )


@pytest.mark.parametrize("num_features", [None, 12])
def test_the_noise_can_be_learned(num_features: int | None) -> None:
    """App. F; its gradient is scikit-learn's where the process is exact."""
    z_c, z_t = views()
    criterion = GJEDualLoss(
        length_scale=WIDTH, noise=NOISE, learn_noise=True, num_features=num_features
    ).double()
    (z_t.shape[1] * criterion(z_c, z_t)).backward()
    gradient = criterion.log_noise.grad.item()
    if num_features is None:
        kernel = RBF(WIDTH) + WhiteKernel(NOISE)
        oracle = GaussianProcessRegressor(kernel, alpha=0.0, optimizer=None)
        oracle.fit(z_c.numpy(), z_t.numpy())
        _, expected = oracle.log_marginal_likelihood(np.log([WIDTH, NOISE]), eval_gradient=True)
        assert gradient == pytest.approx(-expected[1] / len(z_c), rel=1e-5)
    else:
        step = 1e-5
        values = []
        for sign in (-1.0, 1.0):
            noise = NOISE * math.exp(sign * step)
            fixed = GJEDualLoss(length_scale=WIDTH, noise=noise, num_features=num_features)
            values.append(float(z_t.shape[1] * fixed(z_c, z_t)))
        assert gradient == pytest.approx((values[1] - values[0]) / (2.0 * step), rel=1e-4)
    fitted = copy.deepcopy(criterion).fit(z_c, z_t)
    expected_fit = GJEDualLoss(length_scale=WIDTH, noise=NOISE, num_features=num_features)
    for ours, theirs in zip(
        fitted.predict(z_c), expected_fit.fit(z_c, z_t).predict(z_c), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_fit_under_inference_mode_can_be_loaded_and_trained_through() -> None:
    z_c, z_t = views()
    with torch.inference_mode():
        criterion = GJEDualLoss().fit(z_c.clone(), z_t.clone())
    criterion.load_state_dict(criterion.state_dict())
    points = z_c.clone().requires_grad_()
    criterion.predict(points)[0].sum().backward()
    assert points.grad is not None


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(2, 30),
    dim=st.integers(1, 6),
    noise=st.floats(0.01, 10.0),
    seed=st.integers(0, 1000),
)
def test_the_linear_dual_is_the_primal(rows: int, dim: int, noise: float, seed: int) -> None:
    """Mean, variance and determinant to 1e-6 in float64 (Huang 2026, App. J, Eq. 88-91)."""
    z_c, z_t = views(rows, dim=dim, seed=seed)
    new = views(4, dim=dim, seed=seed + 1)[0]
    criterion = GJEDualLoss("linear", noise=noise)
    criterion(z_c, z_t)
    mean, variance = criterion.fit(z_c, z_t).predict(new)
    expected = primal_prediction(z_c.numpy(), z_t.numpy(), new.numpy(), noise)
    np.testing.assert_allclose(mean.numpy(), expected[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(variance.numpy(), expected[1], rtol=1e-6, atol=1e-6)
    log_det = 2.0 * rows / dim * float(criterion.terms["log_det"])
    assert log_det == pytest.approx(primal_log_det(z_c.numpy(), noise), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("rows", "dim", "noise"), [(256, 128, 1e-3), (1024, 128, 0.01)])
def test_a_linear_kernel_of_many_rows_keeps_its_digits_in_float32(
    rows: int, dim: int, noise: float
) -> None:
    z_c, z_t = views(rows, dim=dim)
    found = {}
    for dtype in (torch.float32, torch.float64):
        context, target = z_c.to(dtype).requires_grad_(), z_t.to(dtype)
        criterion = GJEDualLoss("linear", noise=noise)
        loss = criterion(context, target)
        (gradient,) = torch.autograd.grad(loss, context)
        mean, variance = criterion.fit(context.detach(), target).predict(10.0 * target[:8])
        found[dtype] = [part.double() for part in (loss.detach(), gradient, mean, variance)]
    for narrow, wide in zip(*found.values(), strict=True):
        assert float((narrow - wide).norm() / wide.norm()) < 1e-4


def test_a_linear_kernel_of_one_pair_more_than_features_is_the_process() -> None:
    """From the form with a matrix of the batch's size to that of the features' (App. J)."""
    z_c, z_t = views(6, dim=5)
    small, large = GJEDualLoss("linear"), GJEDualLoss("linear")
    for rows, criterion in ((5, small), (6, large)):
        kernel = z_c[:rows] @ z_c[:rows].mT + 0.1 * torch.eye(rows, dtype=z_c.dtype)
        process = MultivariateNormal(z_c.new_zeros(rows), kernel)
        expected = -process.log_prob(z_t[:rows].mT).mean() / rows
        torch.testing.assert_close(criterion(z_c[:rows], z_t[:rows]), expected)


@pytest.mark.parametrize("options", [{}, {"num_features": 6}])
def test_gradcheck_of_a_learned_length_scale(options: dict[str, Any]) -> None:
    z_c, z_t = (view.requires_grad_() for view in views(6))
    criterion = GJEDualLoss(learn_length_scale=True, **options).double()

    def called(z_c: Tensor, z_t: Tensor, log_length_scale: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(
            criterion, {"log_length_scale": log_length_scale}, (z_c, z_t)
        )
        return result

    start = torch.tensor(-0.2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(called, (z_c, z_t, start))


def test_a_learned_length_scale_finds_that_of_the_process() -> None:
    z_c, _ = views(80, dim=1)
    covariance = kernel_matrix(z_c.numpy(), z_c.numpy(), kernel="rbf", length_scale=0.4)
    factor = torch.linalg.cholesky(torch.from_numpy(covariance) + 0.01 * torch.eye(80))
    draws = torch.randn(80, 20, generator=Generator().manual_seed(0), dtype=torch.float64)
    z_t = factor @ draws
    criterion = GJEDualLoss(length_scale=2.0, learn_length_scale=True, noise=0.01)
    optimizer = torch.optim.Adam(criterion.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        criterion(z_c.expand(-1, 20), z_t).backward()  # 20 equal features: sqrt(20) as far
        optimizer.step()
    assert isinstance(criterion.length_scale, Tensor)
    assert float(criterion.length_scale.detach()) == pytest.approx(0.4 * math.sqrt(20), rel=0.1)


def test_a_prediction_keeps_the_length_scale_of_its_fit() -> None:
    z_c, z_t = views()
    criterion = GJEDualLoss(learn_length_scale=True).fit(z_c, z_t)
    before = criterion.predict(z_c)
    with torch.no_grad():
        criterion.log_length_scale.add_(1.0)
    for old, new in zip(before, criterion.predict(z_c), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("options", [{}, {"num_features": 500}])
def test_far_from_the_contexts_and_on_them(options: dict[str, Any]) -> None:
    z_c, z_t = views()
    criterion = GJEDualLoss(length_scale=WIDTH, noise=1e-6, **options).fit(z_c, z_t)
    mean, variance = criterion.predict(z_c)
    torch.testing.assert_close(mean, z_t, rtol=0.0, atol=1e-2)
    assert (variance >= 0.0).all()
    assert (variance < 1e-4).all()
    if not options:  # random features are periodic: they have no far
        mean, variance = criterion.predict(z_c + 100.0)
        torch.testing.assert_close(mean, torch.zeros_like(z_t))
        torch.testing.assert_close(variance, torch.ones(len(z_c)).double())


def test_a_fit_has_no_gradient() -> None:
    criterion = GJEDualLoss(learn_length_scale=True, learn_noise=True)
    criterion.fit(*(view.requires_grad_() for view in views()))
    assert not any(buffer.requires_grad for buffer in criterion.buffers())


@pytest.mark.parametrize("num_features", [None, 12])
def test_a_fit_made_in_inference_mode_can_be_loaded_into(num_features: int | None) -> None:
    criterion = GJEDualLoss(num_features=num_features)
    with torch.inference_mode():
        criterion.fit(*views())
    assert not any(buffer.is_inference() for buffer in criterion.buffers())
    criterion.load_state_dict(
        GJEDualLoss(num_features=num_features).fit(*views(seed=1)).state_dict()
    )
    assert criterion.predict(views()[0].requires_grad_())[0].requires_grad


@pytest.mark.filterwarnings("ignore:.*not positive definite:RuntimeWarning")
def test_variance_does_not_round_below_zero() -> None:
    z_c, z_t = (view.float() for view in views(50))
    _, variance = GJEDualLoss(length_scale=5.0, noise=1e-4).fit(z_c, z_t).predict(z_c)
    assert (variance >= 0.0).all()
    # Squares of some 1e6 less as much: without the clamp half of the rows are below zero.
    _, variance = GJEDualLoss("linear", noise=0.01).fit(1e3 * z_c, z_t).predict(1e3 * z_c)
    assert (variance >= 0.0).all()


def test_views_of_different_sizes_and_dtypes_can_be_fitted() -> None:
    z_c, z_t = views()
    criterion = GJEDualLoss().fit(z_c.half(), z_t[:, :2].float())
    mean, variance = criterion.predict(z_c.bfloat16())
    assert mean.shape == (len(z_c), 2)
    assert mean.dtype == variance.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(criterion.predict(z_c.bfloat16())[0], mean)


@pytest.mark.parametrize("options", [{}, {"num_features": 9}, {"learn_length_scale": True}])
def test_a_fit_travels_in_the_state_dict_of_a_parent(options: dict[str, Any]) -> None:
    z_c, z_t = views()
    fitted = nn.Sequential(GJEDualLoss(**options))
    fitted[0].fit(z_c, z_t)
    resumed = nn.Sequential(GJEDualLoss(**options))
    resumed[0].fit(*views(4, dim=2))  # another size
    resumed.load_state_dict(fitted.state_dict())
    for old, new in zip(fitted[0].predict(z_c), resumed[0].predict(z_c), strict=True):
        assert torch.equal(old, new)
    assert GJEDualLoss().state_dict() == {}
    resumed.load_state_dict(nn.Sequential(GJEDualLoss(**options)).state_dict())
    with pytest.raises(RuntimeError, match=r"call fit\(z_c, z_t\) first"):
        resumed[0].predict(z_c)


def test_a_state_of_others_leaves_the_fit() -> None:
    z_c, z_t = views()
    model = nn.ModuleDict({"net": nn.Linear(2, 2), "criterion": GJEDualLoss().fit(z_c, z_t)})
    expected = model["criterion"].predict(z_c)[0]
    for state in (nn.ModuleDict({"net": nn.Linear(2, 2)}).state_dict(), {}):
        model.load_state_dict(state, strict=False)
        assert torch.equal(model["criterion"].predict(z_c)[0], expected)


def test_fit_takes_copies() -> None:
    z_c, z_t = views()
    criterion = GJEDualLoss().fit(z_c, z_t)
    expected = criterion.predict(z_c[:3].clone())
    new = z_c[:3].clone()
    z_c.zero_()
    z_t.zero_()
    for old, later in zip(expected, criterion.predict(new), strict=True):
        assert torch.equal(old, later)


def test_trained_alone_the_symmetric_loss_collapses() -> None:
    """Targets with a gradient go to zero, whatever the contexts (Huang 2026, App. E)."""
    z_c, z_t = (view.requires_grad_() for view in views())
    criterion = GJEDualLoss(noise=NOISE)
    optimizer = torch.optim.Adam([z_c, z_t], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        criterion(z_c, z_t).backward()
        optimizer.step()
    assert z_t.abs().max() < 0.05
    assert torch.cdist(z_c, z_c).max() < 0.1 * torch.cdist(*(views()[0],) * 2).max()


def test_bad_fits_and_predictions() -> None:
    z_c, z_t = views()
    criterion = GJEDualLoss()
    with pytest.raises(RuntimeError, match=r"has no fit to predict from: call fit"):
        criterion.predict(z_c)
    bad = z_c.clone()
    bad[1, 1] = torch.nan
    for context, target, message in (
        (bad, z_t, "z_c must be finite"),
        (z_c, bad, "z_t must be finite"),
        (z_c[:1], z_t[:1], "at least 2"),
        (z_c, z_t[:-1], "same number of rows"),
    ):
        with pytest.raises(ValueError, match=message):
            criterion.fit(context, target)
    criterion.fit(z_c, z_t)
    with pytest.raises(ValueError, match="z_c must have 3 features"):
        criterion.predict(z_c[:, :2])
    with pytest.raises(ValueError, match="move the loss"):
        criterion.predict(z_c.to("meta"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "cosine"}, "kernel must be one of linear, rbf, got 'cosine'"),
        ({"length_scale": 0.0}, r"length_scale must be a finite number in \(0.0, inf\]"),
        ({"noise": 0.0}, r"noise must be a finite number in \(0.0, inf\]"),
        ({"noise": float("nan")}, r"noise must be a finite number in \(0.0, inf\]"),
        ({"num_features": 0}, "num_features must be an integer of at least 1"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"kernel": "linear", "num_features": 4}, "are for kernel='rbf'"),
        ({"kernel": "linear", "learn_length_scale": True}, "are for kernel='rbf'"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GJEDualLoss(**options)


def test_gathering_in_one_process_changes_nothing() -> None:
    pair = views()
    assert torch.equal(GJEDualLoss(gather_distributed=True)(*pair), GJEDualLoss()(*pair))


def test_a_copy_is_independent() -> None:
    z_c, z_t = views()
    criterion = GJEDualLoss().fit(z_c, z_t)
    copied = copy.deepcopy(criterion)
    criterion.fit(z_t, z_c)
    assert not torch.equal(copied.predict(z_c)[0], criterion.predict(z_c)[0])


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_a_fit_stays_as_it_was_when_its_embeddings_are_overwritten(kernel: str) -> None:
    z_c, z_t = views(8)
    criterion = GJEDualLoss(kernel).fit(z_c, z_t)
    new = z_c[:3].clone()
    expected = criterion.predict(new)
    z_c.zero_()
    z_t.zero_()
    for found, before in zip(criterion.predict(new), expected, strict=True):
        assert torch.equal(found, before)
