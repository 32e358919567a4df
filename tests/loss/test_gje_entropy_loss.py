import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor, nn
from torch.distributions import MultivariateNormal
from torch.nn.functional import normalize

from gmje_plugin import GJEEntropyLoss


def views(seed: int = 0, batch: int = 40, dim: int = 5, noise: float = 0.5) -> list[Tensor]:
    generator = Generator().manual_seed(seed)
    first = torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    return [first, first + noise * torch.randn(first.shape, generator=generator).double()]


def entropy(rows: np.ndarray, eps: float) -> float:
    moment = rows.T @ rows / len(rows)
    moment = moment + eps * np.trace(moment) / len(moment) * np.eye(len(moment))
    return float(0.5 * np.linalg.slogdet(moment)[1])


@pytest.mark.parametrize("covariance", ["marginal", "joint"])
@pytest.mark.parametrize("batch", [40, 4])
def test_against_numpy(covariance: str, batch: int) -> None:
    pair = views(batch=batch)
    criterion = GJEEntropyLoss(0.3, covariance=covariance, eps=0.01)
    loss = criterion(*pair)
    z0, z1 = (view.numpy() / np.linalg.norm(view.numpy(), axis=1, keepdims=True) for view in pair)
    alignment = z0.shape[1] * np.mean(np.sum((z0 - z1) ** 2, axis=1))
    if covariance == "marginal":
        expected = entropy(z0, 0.01) + entropy(z1, 0.01)
    else:
        expected = entropy(np.concatenate([z0, z1], axis=1), 0.01)
    assert criterion.terms["alignment"].item() == pytest.approx(alignment, rel=1e-12)
    assert criterion.terms["entropy"].item() == pytest.approx(expected, rel=1e-12)
    assert 5 * loss.item() == pytest.approx(alignment - 0.3 * expected, rel=1e-12)


def test_the_entropy_alone() -> None:
    """Algorithm 5, and the regulariser of App. I.4."""
    criterion = GJEEntropyLoss(0.3, covariance="joint", alignment_weight=0.0)
    loss = criterion(*views())
    assert 5 * loss.item() == pytest.approx(-0.3 * criterion.terms["entropy"].item(), rel=1e-12)


def test_entropy_is_a_gaussians_up_to_a_constant() -> None:
    # Huang 2026, Eq. 38.
    pair = views()
    criterion = GJEEntropyLoss(eps=0.0)
    criterion(*pair)
    unit = [normalize(view, dim=1) for view in pair]
    gaussians = [
        MultivariateNormal(torch.zeros(5).double(), view.mT @ view / len(view)) for view in unit
    ]
    expected = sum(float(each.entropy()) - 2.5 * (1 + math.log(2 * math.pi)) for each in gaussians)
    assert criterion.terms["entropy"].item() == pytest.approx(expected, rel=1e-12)


def test_views_that_agree_are_aligned_whatever_their_length() -> None:
    first, _ = views()
    criterion = GJEEntropyLoss()
    criterion(first, 7.0 * first)
    assert criterion.terms["alignment"].item() == pytest.approx(0.0, abs=1e-12)


@settings(deadline=None)
@given(
    seed=st.integers(0, 1000),
    dim=st.integers(1, 8),
    batch=st.integers(2, 30),
    scale=st.floats(1e-3, 1e3),
)
@pytest.mark.parametrize("covariance", ["marginal", "joint"])
def test_rotations_and_scale_do_not_matter(
    covariance: str, seed: int, dim: int, batch: int, scale: float
) -> None:
    pair = views(seed, batch, dim)
    generator = Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(dim, dim, generator=generator).double()).Q
    criterion = GJEEntropyLoss(covariance=covariance)
    expected = criterion(*pair)
    # The largest entropy of unit vectors is that of an isotropic second moment; the slack is eps.
    dims = dim if covariance == "marginal" else 2 * dim
    largest = (1 if covariance == "joint" else 2) * 0.5 * dims * math.log((1 + 1e-4) / dim)
    assert criterion.terms["entropy"] <= largest + 1e-9
    loss = criterion(*[scale * view @ rotation for view in pair])
    torch.testing.assert_close(loss, expected, rtol=1e-7, atol=1e-7)


def nearly_collapsed() -> list[nn.Parameter]:
    generator = Generator().manual_seed(0)
    return [nn.Parameter(1.0 + 0.05 * torch.randn(64, 4, generator=generator)) for _ in range(2)]


def train(criterion: GJEEntropyLoss, free: list[nn.Parameter]) -> None:
    optimizer = torch.optim.Adam(free, lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        criterion(*free).backward()
        optimizer.step()


def effective_rank(rows: Tensor) -> float:
    spectrum = torch.linalg.svdvals(normalize(rows.detach(), dim=1)).square()
    shares = spectrum / spectrum.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))


def test_free_embeddings_spread_and_agree() -> None:
    free = nearly_collapsed()
    assert effective_rank(free[0]) < 1.1
    criterion = GJEEntropyLoss()
    train(criterion, free)
    assert effective_rank(free[0]) > 3.9
    assert criterion.terms["alignment"] < 0.01


def test_without_the_entropy_they_stay_collapsed() -> None:
    free = nearly_collapsed()
    train(GJEEntropyLoss(weight=0.0), free)
    assert effective_rank(free[0]) < 1.1


def test_the_joint_entropy_holds_views_apart() -> None:
    apart = {}
    for covariance in ("marginal", "joint"):
        free = nearly_collapsed()
        criterion = GJEEntropyLoss(covariance=covariance)
        train(criterion, free)
        apart[covariance] = criterion.terms["alignment"]
    assert apart["joint"] > 10 * apart["marginal"] + 0.1


@pytest.mark.parametrize("name", ["weight", "eps"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "1", True])
def test_numbers_out_of_range(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be a finite number in \[0.0, inf\]"):
        GJEEntropyLoss(**{name: value})  # type: ignore[arg-type]


def test_unknown_covariance() -> None:
    with pytest.raises(ValueError, match="covariance must be one of joint, marginal, got 'full'"):
        GJEEntropyLoss(covariance="full")


def test_either_view_in_float64_makes_the_loss_float64() -> None:
    first, second = torch.randn(2, 16, 4, generator=Generator().manual_seed(0)).unbind()
    for pair in ((first.double(), second), (first, second.double())):
        assert GJEEntropyLoss()(*pair).dtype == torch.float64
