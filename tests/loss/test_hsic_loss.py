import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from torch import Generator, Tensor

from gmje_plugin import HSICLoss
from tests.references.kernels import hsic, kernel_matrix


def views(rows: int = 15, *, seed: int = 0, dependence: float = 0.5) -> tuple[Tensor, Tensor]:
    """Views that share a part of their variance, and nothing for dependence 0."""
    generator = Generator().manual_seed(seed)
    first, noise = torch.randn(2, rows, 3, generator=generator, dtype=torch.float64)
    return first, dependence * first + noise


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
@pytest.mark.parametrize("length_scale", [None, 0.8])
def test_against_the_trace_with_h(kernel: str, length_scale: float | None) -> None:
    pair = views()
    criterion = HSICLoss(kernel, length_scale=length_scale)
    aligned = criterion(*pair)
    loss = HSICLoss(kernel, length_scale=length_scale, normalized=False)(*pair)
    arrays = [view.numpy() for view in pair]
    # 105 pairs of rows, an odd number: one median.
    widths = [length_scale or np.median(pdist(array)) for array in arrays]
    matrices = [
        kernel_matrix(array, array, kernel=kernel, length_scale=width)
        for array, width in zip(arrays, widths, strict=True)
    ]
    assert float(loss) == pytest.approx(-hsic(*matrices), rel=1e-12)
    assert criterion.terms["hsic"] == -loss
    largest = math.sqrt(hsic(matrices[0], matrices[0]) * hsic(matrices[1], matrices[1]))
    assert float(aligned) == pytest.approx(float(loss) / largest, rel=1e-12)


def test_linear_kernel_is_the_norm_of_the_cross_covariance() -> None:
    """The limit case: tr(K_0 H K_1 H) = ||Z_0^T H Z_1||_F^2."""
    first, second = views()
    centred = first - first.mean(dim=0), second - second.mean(dim=0)
    covariance = centred[0].mT @ centred[1] / (len(first) - 1)
    loss = HSICLoss("linear", normalized=False)(first, second)
    torch.testing.assert_close(loss, -covariance.square().sum())


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_equal_views_have_the_largest_dependence(kernel: str) -> None:
    first, second = views()
    assert float(HSICLoss(kernel)(first, first)) == pytest.approx(-1.0, rel=1e-12)
    assert -1.0 < HSICLoss(kernel)(first, second) < 0.0


def test_views_of_different_sizes() -> None:
    first, second = views()
    padded = torch.cat([second, torch.zeros(len(second), 2)], dim=1)
    torch.testing.assert_close(HSICLoss()(first, padded), HSICLoss()(first, second))
    with pytest.raises(ValueError, match="out0 and out1 must have the same rows"):
        HSICLoss()(first, padded[1:])


def test_gathering_in_one_process_changes_nothing() -> None:
    pair = views()
    assert torch.equal(HSICLoss(gather_distributed=True)(*pair), HSICLoss()(*pair))


def quantile_of_permutations(first: Tensor, second: Tensor) -> float:
    """95 % quantile of HSIC under 200 random pairings of the rows."""
    generator, criterion = Generator().manual_seed(1), HSICLoss()
    values = [
        -float(criterion(first, second[torch.randperm(len(second), generator=generator)]))
        for _ in range(200)
    ]
    return float(np.quantile(values, 0.95))


def test_independent_views_are_below_the_quantile_of_permutations() -> None:
    # Seeds 0 to 19: each is above with probability 0.05, more than 4 of 20 with 0.003.
    above = 0
    for seed in range(20):
        first, second = views(40, seed=seed, dependence=0.0)
        above += -float(HSICLoss()(first, second)) > quantile_of_permutations(first, second)
    assert above <= 4


def test_dependent_views_are_above_it_without_correlation() -> None:
    for seed in range(5):
        first, noise = views(60, seed=seed, dependence=0.0)
        second = first.square() + 0.2 * noise  # uncorrelated with ``first``
        assert -float(HSICLoss()(first, second)) > quantile_of_permutations(first, second)


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(2, 20),
    seed=st.integers(0, 1000),
    scale=st.floats(0.01, 100.0),
    shift=st.floats(-10.0, 10.0),
)
def test_invariances_of_the_median_heuristic(
    rows: int, seed: int, scale: float, shift: float
) -> None:
    first, second = views(rows, seed=seed)
    loss = HSICLoss()(first, second)
    assert loss <= 1e-12  # HSIC is a squared norm
    torch.testing.assert_close(HSICLoss()(second, first), loss)
    moved = HSICLoss()(scale * first + shift, second)
    torch.testing.assert_close(moved, loss, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
@pytest.mark.parametrize("value", [0.0, 0.7, -40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_view_has_no_dependence_and_a_finite_gradient(
    kernel: str, value: float, dtype: torch.dtype
) -> None:
    first = torch.full((15, 3), value, dtype=dtype, requires_grad=True)
    second = views()[1].to(dtype).requires_grad_()
    loss = HSICLoss(kernel)(first, second)
    # A product of 1600 d from -40 in float32, with a rounding error of 1e-4 before centring.
    assert abs(float(loss.detach())) < (1e-3 if dtype == torch.float32 else 1e-11)
    loss.backward()
    assert first.grad is not None
    assert second.grad is not None
    assert first.grad.isfinite().all()
    assert second.grad.isfinite().all()


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_far_from_the_origin_in_float32(kernel: str) -> None:
    first, second = views()
    far = [(1e3 + view).float() for view in (first, second)]
    expected = HSICLoss(kernel)(*(view.double() - 1e3 for view in far))
    torch.testing.assert_close(HSICLoss(kernel)(*far).double(), expected, rtol=1e-3, atol=1e-3)


def test_rounding_is_no_dependence() -> None:
    """Rows that differ in their last bits alone count as constant, by the linear kernel too."""
    z = 1e3 + 1e-4 * torch.randn(32, 4, generator=Generator().manual_seed(0))
    assert len(z.unique(dim=0)) > 1
    assert HSICLoss("linear")(z, z).abs() < 1e-3


def test_mostly_equal_rows_have_a_finite_gradient() -> None:
    """The median distance is 0 though the rows are not all equal."""
    first = torch.zeros(15, 3, dtype=torch.float64)
    first[0] = 1.0
    first.requires_grad_()
    loss = HSICLoss()(first, views()[1])
    loss.backward()
    assert loss.isfinite()
    assert first.grad is not None
    assert first.grad.isfinite().all()


def test_training_makes_views_dependent() -> None:
    first, second = (view.requires_grad_() for view in views(dependence=0.0))
    criterion = HSICLoss()
    optimizer = torch.optim.Adam([first, second], lr=0.05)
    start = criterion(first, second).item()
    for _ in range(50):
        optimizer.zero_grad()
        criterion(first, second).backward()
        optimizer.step()
    assert criterion(first, second).item() < 2.0 * start < 0.0


@pytest.mark.parametrize("length_scale", [0.0, -1.0, float("nan"), float("inf"), "1", True])
def test_length_scale_out_of_range(length_scale: float) -> None:
    with pytest.raises(ValueError, match=r"length_scale must be a finite number in \(0.0, inf\]"):
        HSICLoss(length_scale=length_scale)


def test_unknown_kernel() -> None:
    with pytest.raises(ValueError, match="kernel must be one of linear, rbf, got 'cosine'"):
        HSICLoss("cosine")
