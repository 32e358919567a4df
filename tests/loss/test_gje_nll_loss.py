import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Generator, Tensor, nn
from torch.distributions import MultivariateNormal

from gmje_plugin import GJENLLLoss

DIM = 3
JOINT = 2 * DIM


def batch(seed: int = 0, rows: int = 30, *, dim: int = DIM) -> Tensor:
    generator = Generator().manual_seed(seed)
    mixing = torch.randn(2 * dim, 2 * dim, generator=Generator().manual_seed(99)).double()
    return torch.randn(rows, 2 * dim, generator=generator).double() @ mixing


def evaluate(criterion: GJENLLLoss, z: Tensor) -> Tensor:
    """The loss in whole nats."""
    dim = z.shape[1] // 2
    loss: Tensor = dim * criterion(z[:, :dim], z[:, dim:])
    return loss


def log_det(z: Tensor) -> Tensor:
    """1/2 log|S| of the batch's own S, by another route."""
    return 0.5 * torch.linalg.slogdet(z.mT @ z / len(z)).logabsdet


def test_batch_covariance_against_scipy() -> None:
    z = batch()
    criterion = GJENLLLoss(DIM, covariance="batch")
    loss = evaluate(criterion, z)
    moment = (z.mT @ z / len(z)).numpy()
    expected = -multivariate_normal(np.zeros(JOINT), moment).logpdf(z.numpy()).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert criterion.terms["log_det"].item() == pytest.approx(
        0.5 * np.linalg.slogdet(moment)[1], rel=1e-12
    )
    constant = JOINT / 2 * np.log(2 * np.pi)
    assert sum(criterion.terms.values()).item() + constant == pytest.approx(loss.item(), rel=1e-12)


def test_learned_covariance_starts_at_the_identity() -> None:
    z = batch()
    expected = -multivariate_normal(np.zeros(JOINT)).logpdf(z.numpy()).mean()
    assert evaluate(GJENLLLoss(DIM, covariance="learned"), z).item() == pytest.approx(
        expected, rel=1e-6
    )


def test_learned_covariance_finds_the_maximum_likelihood() -> None:
    z = batch(rows=200, dim=1)
    criterion = GJENLLLoss(1, covariance="learned").double()
    optimizer = torch.optim.Adam(criterion.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        evaluate(criterion, z).backward()
        optimizer.step()
    best = evaluate(GJENLLLoss(1, covariance="batch"), z)
    assert evaluate(criterion, z).item() == pytest.approx(best.item(), abs=1e-3)


def test_ema_covariance() -> None:
    criterion = GJENLLLoss(DIM, momentum=0.8)
    moments = []
    for seed in range(3):
        z = batch(seed).requires_grad_()
        moments.append(z.mT @ z / len(z))
        loss = evaluate(criterion, z)
    average = moments[0].detach()
    for moment in (moments[1].detach(), moments[2]):
        average = 0.8 * average + 0.2 * moment
    expected = -MultivariateNormal(torch.zeros(JOINT).double(), average).log_prob(z).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(
        torch.autograd.grad(loss, z), torch.autograd.grad(expected, z), rtol=1e-9, atol=1e-12
    )


def test_evaluation_leaves_the_ema_alone() -> None:
    criterion = GJENLLLoss(DIM)
    evaluate(criterion, batch())
    before = {name: value.clone() for name, value in criterion.state_dict().items()}
    evaluate(criterion.eval(), 10.0 * batch(1))
    assert all(torch.equal(value, before[name]) for name, value in criterion.state_dict().items())


def test_trace_trap_of_the_batch_covariance() -> None:
    # Huang 2026, Eq. 122-127: the data fit is D/2 whatever the embeddings, so that the gradient of
    # the loss is that of its log-determinant alone.
    for seed in range(3):
        z = batch(seed).requires_grad_()
        criterion = GJENLLLoss(DIM, covariance="batch")
        loss = evaluate(criterion, z)
        assert criterion.terms["data_fit"].item() == pytest.approx(JOINT / 2, rel=1e-12)
        (whole,) = torch.autograd.grad(loss, z)
        (volume,) = torch.autograd.grad(log_det(z), z)
        torch.testing.assert_close(whole, volume, rtol=0.0, atol=1e-13)
        assert volume.norm() > 0.01


def test_ema_covariance_is_out_of_the_trap() -> None:
    criterion = GJENLLLoss(DIM)
    evaluate(criterion, batch())
    z = batch(1).requires_grad_()
    (whole,) = torch.autograd.grad(evaluate(criterion, z), z)
    (volume,) = torch.autograd.grad(log_det(z), z)
    assert (whole - 0.01 * volume).norm() > 10 * (0.01 * volume).norm()


@pytest.mark.parametrize("covariance", ["batch", "ema", "learned"])
def test_log_det_cheat(covariance: str) -> None:
    # Huang 2026, App. O.4: free embeddings shrink, and the loss falls without bound. (Seeds 0 to 2:
    # norms of 0.0002 to 0.34 of the first, losses 13 to 34 nats below it.)
    free = nn.Parameter(torch.randn(64, 4, generator=Generator().manual_seed(0)).double())
    criterion = GJENLLLoss(2, covariance=covariance, momentum=0.9).double()
    optimizer = torch.optim.Adam([free, *criterion.parameters()], lr=0.05)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    norm, first = free.norm().item(), evaluate(criterion, free).item()
    for _ in range(300):
        optimizer.zero_grad()
        loss = evaluate(criterion, free)
        loss.backward()
        optimizer.step()
        schedule.step()
    assert free.norm().item() < 0.5 * norm
    assert loss.item() < first - 10.0


@pytest.mark.parametrize("covariance", ["batch", "ema"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fewer_rows_than_dimensions_warn(covariance: str, dtype: torch.dtype) -> None:
    z = batch(rows=3).to(dtype).requires_grad_()
    with pytest.warns(RuntimeWarning, match="1 of 1 matrices were not positive definite"):
        loss = evaluate(GJENLLLoss(DIM, covariance=covariance), z)
    loss.backward()
    assert loss.isfinite()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="input_dim must be an integer of at least 1, got 0"):
        GJENLLLoss(0)
    with pytest.raises(ValueError, match="covariance must be one of batch, ema, learned"):
        GJENLLLoss(DIM, covariance="joint")
    with pytest.raises(ValueError, match="out0 must have 4 features"):
        evaluate(GJENLLLoss(4), batch())
