import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gmje_plugin.linalg import (
    EMASecondMoment,
    cholesky,
    entropy_log_det,
    learned_factor,
    log_det,
    mahalanobis,
    second_moment,
    triangular,
)


def random_covariance(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(*shape, shape[-1], generator=generator, dtype=torch.float64)
    return (root @ root.mT / shape[-1] + 0.1 * torch.eye(shape[-1], dtype=torch.float64)).to(dtype)


@pytest.fixture(autouse=True)
def _no_unexpected_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("shape", [(1,), (5,), (3, 4), (2, 3, 4)])
def test_cholesky_is_numpys_where_nothing_is_wrong(shape: tuple[int, ...]) -> None:
    matrix = random_covariance(*shape)
    torch.testing.assert_close(
        cholesky(matrix), torch.from_numpy(np.linalg.cholesky(matrix.numpy())), rtol=0, atol=1e-12
    )


def test_cholesky_gradcheck() -> None:
    root = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    eye = torch.eye(3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda r: cholesky(r @ r.mT + eye), (root,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cholesky_jitters_only_what_fails(dtype: torch.dtype) -> None:
    good = random_covariance(4, dtype=dtype)
    singular = torch.zeros(4, 4, dtype=dtype)
    singular[0, 0] = 100.0
    with pytest.warns(RuntimeWarning, match="1 of 2 matrices were not positive definite"):
        factor = cholesky(torch.stack([good, singular]))
    torch.testing.assert_close(factor[0], torch.linalg.cholesky(good), rtol=0, atol=0)
    # The first rung of the ladder times the mean diagonal, 25.
    added = 25.0 * (1e-6 if dtype == torch.float32 else 1e-10)
    torch.testing.assert_close(
        (factor[1] @ factor[1].mT - singular)[1:, 1:], added * torch.eye(3, dtype=dtype)
    )


def test_cholesky_for_a_narrower_dtype() -> None:
    matrix = torch.diag(torch.tensor([1.0, 1e-12], dtype=torch.float64))
    kept = cholesky(matrix, dtype=torch.float32, smallest=torch.tensor([1e-7, 1e-7]))
    assert kept.dtype == torch.float32
    torch.testing.assert_close(kept.diagonal(), torch.tensor([1.0, 1e-6]))
    bad = torch.full_like(matrix, math.nan)
    with pytest.warns(RuntimeWarning, match="1 of 3 matrices were not positive definite"):
        factor = cholesky(
            torch.stack([matrix, torch.eye(2).double(), bad]),
            dtype=torch.float32,
            smallest=torch.tensor([1e-7, 1e-5]),
        )
    # float32's first rung: 1e-6 of the mean diagonal, 0.5.
    torch.testing.assert_close(factor[0].diagonal(), torch.tensor([1.0, 5e-7**0.5]))
    torch.testing.assert_close(factor[1], torch.eye(2), rtol=0, atol=0)
    assert factor[2].isnan().all()


@pytest.mark.filterwarnings("error")
def test_a_bound_says_nothing_of_a_non_finite_matrix() -> None:
    matrix = torch.full((2, 2), math.nan, dtype=torch.float64)
    assert cholesky(matrix, smallest=torch.tensor([2.0, 2.0])).isnan().all()


def test_a_diagonal_at_the_bound_is_lost() -> None:
    matrix = torch.diag(torch.tensor([1.0, 0.25], dtype=torch.float64))
    with pytest.warns(RuntimeWarning, match="1 of 1 matrices were not positive definite"):
        cholesky(matrix, smallest=torch.tensor([0.0, 0.5]))


def test_cholesky_climbs_the_ladder() -> None:
    matrix = torch.diag(torch.tensor([1.0, 1.0, 1.0, -5e-7], dtype=torch.float64))
    with pytest.warns(RuntimeWarning, match=r"up to 7\.5e-07"):
        factor = cholesky(matrix)
    added = 7.5e-7 * (1 - 5e-7 / 3)  # 1e-6 of the mean diagonal
    expected = (matrix.diagonal() + added).sqrt()
    torch.testing.assert_close(factor.diagonal(), expected, rtol=0, atol=1e-12)


def test_cholesky_of_zeros_is_finite() -> None:
    with pytest.warns(RuntimeWarning):
        factor = cholesky(torch.zeros(3, 3))
    assert torch.isfinite(factor).all()
    assert (factor.diagonal() > 0).all()


def test_cholesky_of_a_singular_matrix_has_a_finite_gradient() -> None:
    row = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    with pytest.warns(RuntimeWarning):
        log_det(cholesky(row.mT @ row)).backward()
    assert torch.isfinite(row.grad).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_cholesky_of_a_non_finite_matrix_is_nan(value: float) -> None:
    good, bad = random_covariance(3), random_covariance(3, seed=1)
    bad[1, 1] = value
    factor = cholesky(torch.stack([good, bad]))
    torch.testing.assert_close(factor[0], torch.linalg.cholesky(good), rtol=0, atol=0)
    assert factor[1].isnan().all()


def test_cholesky_refuses_an_indefinite_matrix() -> None:
    matrix = torch.stack([torch.eye(2), torch.diag(torch.tensor([1.0, -0.5]))])
    with pytest.raises(ValueError, match=r"^matrix must be positive semi-definite: 1 of 2 stay"):
        cholesky(matrix)
    with pytest.raises(ValueError, match=r"^covariance must be"):
        cholesky(matrix, name="covariance")


@settings(max_examples=30, deadline=None)
@given(dim=st.integers(1, 6), seed=st.integers(0, 1000))
def test_log_det_and_mahalanobis(dim: int, seed: int) -> None:
    matrix = random_covariance(2, dim, seed=seed)
    rows = torch.randn(2, 5, dim, generator=torch.Generator().manual_seed(seed)).double()
    factor = cholesky(matrix)
    torch.testing.assert_close(log_det(factor), torch.linalg.slogdet(matrix)[1])
    inverse = np.linalg.inv(matrix.numpy())
    expected = np.einsum("kni,kij,knj->kn", rows.numpy(), inverse, rows.numpy())
    torch.testing.assert_close(mahalanobis(factor, rows), torch.from_numpy(expected))


@settings(max_examples=30, deadline=None)
@given(dim=st.integers(1, 5), more=st.integers(0, 3), seed=st.integers(0, 1000))
def test_triangular_is_the_factor_of_the_product(dim: int, more: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(2, dim, dim + more, generator=generator, dtype=torch.float64) - 0.5
    root = noise - 4 * torch.eye(dim, dim + more, dtype=torch.float64)  # far from singular
    factor = triangular(root)
    assert (factor.triu(1) == 0).all()
    assert (factor.diagonal(dim1=-2, dim2=-1) > 0).all()
    torch.testing.assert_close(factor @ factor.mT, root @ root.mT)
    assert torch.autograd.gradcheck(triangular, (root.requires_grad_(),))


def test_triangular_does_not_square() -> None:
    # In float32 the square of 1e-5 is lost beside 1.
    root = torch.tensor([[1.0, 0.0], [1.0, 1e-5]])
    torch.testing.assert_close(triangular(root), root)
    assert triangular(torch.full((2, 2), math.nan)).isnan().any()


def test_learned_factor() -> None:
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(learned_factor(torch.zeros_like(eye)), eye)
    raw = 30 * torch.randn(2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    factor = learned_factor(raw)
    assert (factor.triu(1) == 0).all()
    assert (factor.diagonal(dim1=-2, dim2=-1) > 0).all()
    torch.testing.assert_close(factor.tril(-1), raw.tril(-1))
    assert torch.autograd.gradcheck(learned_factor, (raw.div(30).requires_grad_(),))


def test_second_moment() -> None:
    samples = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = sum(np.outer(row, row) for row in samples.numpy()) / 7
    torch.testing.assert_close(second_moment(samples), torch.from_numpy(expected))


@pytest.mark.parametrize("eps", [0.0, 1e-4, 1e-1])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_entropy_log_det(eps: float, scale: float) -> None:
    matrix = random_covariance(5)
    shifted = matrix.numpy() + eps * np.trace(matrix) / 5 * np.eye(5)
    # H' of scale * S is H' of S + D/2 log(scale), as eps is relative.
    expected = 0.5 * np.linalg.slogdet(shifted)[1] + 2.5 * math.log(scale)
    assert float(entropy_log_det(scale * matrix, eps)) == pytest.approx(expected, abs=1e-10)


def test_ema_is_the_recursion_from_the_first_batch() -> None:
    moments = [random_covariance(3, seed=seed) for seed in range(5)]
    ema = EMASecondMoment(3, momentum=0.9)
    expected = moments[0]
    for moment in moments:
        expected = 0.9 * expected + 0.1 * moment
        torch.testing.assert_close(ema(moment), expected)
    torch.testing.assert_close(ema.moment, expected)


def test_ema_of_a_bad_first_batch_has_no_state() -> None:
    ema = EMASecondMoment(3, momentum=0.9)
    assert ema(torch.full((3, 3), math.nan)).isnan().all()
    assert (ema.moment == 0.0).all()
    assert ema.initialized == 0.0


def test_ema_keeps_still_in_evaluation() -> None:
    ema = EMASecondMoment(3, momentum=0.9)
    ema(random_covariance(3))
    before = ema.moment.clone()
    ema.eval()
    average = ema(random_covariance(3, seed=1))
    torch.testing.assert_close(ema.moment, before, rtol=0, atol=0)
    torch.testing.assert_close(average, 0.9 * before + 0.1 * random_covariance(3, seed=1))


def test_ema_outlives_a_non_finite_batch() -> None:
    ema = EMASecondMoment(2, momentum=0.5)
    bad = torch.tensor([[math.nan, 0.0], [0.0, 1.0]])
    assert ema(bad).isnan().any()
    assert not ema.initialized
    torch.testing.assert_close(ema(torch.eye(2)), torch.eye(2))
    ema(bad)
    torch.testing.assert_close(ema.moment, torch.eye(2))


@pytest.mark.parametrize(("full_gradient", "share"), [(False, 0.1), (True, 1.0)])
def test_ema_gradient_goes_to_the_batch_alone(full_gradient: bool, share: float) -> None:
    ema = EMASecondMoment(2, momentum=0.9)
    first = torch.eye(2, requires_grad=True)
    ema(first)
    batch = (2 * torch.eye(2)).requires_grad_()
    average = ema(batch, full_gradient=full_gradient)
    torch.testing.assert_close(average, 1.1 * torch.eye(2))
    average.sum().backward()
    torch.testing.assert_close(batch.grad, share * torch.ones(2, 2))
    assert first.grad is None


def test_ema_resumes_from_a_parents_state_dict() -> None:
    def build() -> nn.ModuleDict:
        return nn.ModuleDict({"ema": EMASecondMoment(3, momentum=0.9)})

    running, resumed = build(), build()
    running["ema"](random_covariance(3, dtype=torch.float32))
    resumed.load_state_dict(running.state_dict())
    batch = random_covariance(3, seed=1, dtype=torch.float32)
    torch.testing.assert_close(resumed["ema"](batch), running["ema"](batch), rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="size mismatch"):
        nn.ModuleDict({"ema": EMASecondMoment(4, momentum=0.9)}).load_state_dict(
            running.state_dict()
        )


def test_ema_resumes_from_a_state_of_earlier_versions() -> None:
    """``initialized`` was a bool."""
    moment = random_covariance(3, dtype=torch.float32)
    for initialized in (False, True):
        ema = EMASecondMoment(3, momentum=0.9)
        ema.load_state_dict({"moment": moment, "initialized": torch.tensor(initialized)})
        batch = torch.eye(3)
        torch.testing.assert_close(ema(batch), 0.9 * moment + 0.1 * batch if initialized else batch)


@pytest.mark.parametrize("average", [None, get_ema_multi_avg_fn(0.5)])
def test_ema_can_be_averaged_with_its_model(average: object) -> None:
    """The averaged moment is that of the moments that were there to average."""
    model = nn.Sequential(nn.Linear(3, 3), EMASecondMoment(3, momentum=0.0))
    averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    averaged.update_parameters(model)  # before the first batch
    first, second = (random_covariance(3, seed=seed, dtype=torch.float32) for seed in range(2))
    for batch in (first, second):
        model[1](batch)
        averaged.update_parameters(model)
    of_first = 0.5 if average is None else 1 / 3  # lerp weighs 1/4 and 1/2 of what was seen
    expected = of_first * first + (1 - of_first) * second
    ema = averaged.module[1].eval()
    ema.momentum = 0.9
    torch.testing.assert_close(ema(torch.eye(3)), 0.9 * expected + 0.1 * torch.eye(3))
    ema.train()
    ema(torch.eye(3))
    torch.testing.assert_close(ema.moment, 0.9 * expected + 0.1 * torch.eye(3))
    assert ema.initialized == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ema_outlives_inference_mode(dtype: torch.dtype) -> None:
    batches = [random_covariance(3, seed=seed, dtype=dtype) for seed in range(3)]
    expected = EMASecondMoment(3, momentum=0.9)
    with torch.inference_mode():
        ema = EMASecondMoment(3, momentum=0.9)
        ema(batches[0].clone())
    assert not ema.moment.is_inference()
    ema.load_state_dict({name: value.clone() for name, value in ema.state_dict().items()})
    with torch.inference_mode():
        ema(batches[1].clone())  # without gradients nothing moves
    leaf = batches[2].clone().requires_grad_()
    average = ema(leaf)
    average.sum().backward()
    torch.testing.assert_close(average, expected(batches[2]))
    torch.testing.assert_close(ema.moment, expected.moment)


def test_ema_is_as_it_was_after_a_failed_vmap() -> None:
    ema = EMASecondMoment(3, momentum=0.9)
    ema(torch.eye(3))
    with pytest.raises(RuntimeError, match="vmap"):
        torch.func.vmap(ema)(torch.stack([torch.eye(3)] * 2))
    torch.testing.assert_close(ema.moment, torch.eye(3), rtol=0, atol=0)
    torch.testing.assert_close(ema(2 * torch.eye(3)), 1.1 * torch.eye(3))


def test_ema_compiles_in_one_graph() -> None:
    torch._dynamo.reset()
    eager, compiled = EMASecondMoment(3, momentum=0.9), EMASecondMoment(3, momentum=0.9)
    forward = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    for seed in range(3):
        batch = random_covariance(3, seed=seed, dtype=torch.float32).requires_grad_()
        torch.testing.assert_close(forward(batch), eager(batch))
    torch.testing.assert_close(compiled.moment, eager.moment)
