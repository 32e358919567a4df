"""Losses and banks on a GPU: what the CPU gives, without a wait, compiled and in half precision."""

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from lightly.loss import NTXentLoss
from torch import Generator, Tensor, nn
from torch.nn.functional import normalize

from gmje_plugin import (
    GJEDualLoss,
    GJEEntropyLoss,
    GJENLLLoss,
    GMJEMDNHead,
    GMJEMDNLoss,
    GMJEPrototypeLoss,
    HSICLoss,
    JointSMCLoss,
    SMCMemoryBankModule,
    SMCNNMemoryBankModule,
    SMCNTXentLoss,
    swap_memory_bank,
)

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda")
BATCH, DIM, SIZE = 32, 16, 64


class Predicted(nn.Module):
    """A mixture density network and its loss, of two views."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.criterion = GMJEMDNHead(DIM, 32, DIM), GMJEMDNLoss(DIM)

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        loss: Tensor = self.criterion(self.head(out0), out1)
        return loss


def swapped() -> nn.Module:
    criterion: nn.Module = NTXentLoss(0.1, memory_bank_size=(SIZE, DIM))
    swap_memory_bank(criterion)
    return criterion


def of_paper() -> nn.Module:
    return SMCNTXentLoss(0.1, memory_bank=SMCMemoryBankModule.paper((SIZE, DIM)))


BANKS: dict[str, Callable[[], nn.Module]] = {
    "default": lambda: SMCNTXentLoss(0.1, (SIZE, DIM)),
    "large": lambda: SMCNTXentLoss(0.1, (8 * SIZE, DIM)),  # exchanges places
    "bank only": lambda: SMCNTXentLoss(0.1, (SIZE, DIM), in_batch_negatives=False),
    "hard, weighted": lambda: SMCNTXentLoss(0.1, (SIZE, DIM), weighted=True, hardness=0.5),
    "small temperature": lambda: SMCNTXentLoss(0.01, (SIZE, DIM)),
    "paper": of_paper,
    "swapped": swapped,
}
LOSSES: dict[str, Callable[[], nn.Module]] = {
    **BANKS,
    "no bank": lambda: SMCNTXentLoss(0.1),
    "joint smc": lambda: JointSMCLoss(DIM, SIZE),
    "prototypes": lambda: GMJEPrototypeLoss(DIM, 4),
    "prototypes, full": lambda: GMJEPrototypeLoss(DIM, 4, covariance="full", shared=False),
    "entropy": GJEEntropyLoss,
    "nll": lambda: GJENLLLoss(DIM),
    "nll, learned": lambda: GJENLLLoss(DIM, covariance="learned"),
    "mdn": Predicted,
    "dual": GJEDualLoss,
    "dual, features": lambda: GJEDualLoss(num_features=64),
    "hsic": HSICLoss,
}


def views(seed: int, device: torch.device, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Two views of a batch, the first with gradient."""
    first, noise = torch.randn(2, BATCH, DIM, generator=Generator().manual_seed(seed))
    pair = [first, first + 0.3 * noise]
    pair = [view.to(device, dtype) for view in pair]
    pair[0].requires_grad_()
    return pair


def follow(criterion: nn.Module, device: torch.device, steps: int) -> list[Tensor]:
    """Losses, gradients and what of the state has no order, over some steps."""
    found = []
    for seed in range(steps):
        first, second = views(seed, device)
        criterion.zero_grad()
        loss = criterion(first, second)
        loss.backward()
        grads = [p.grad for p in criterion.parameters() if p.grad is not None]
        assert first.grad is not None
        found += [loss.detach(), first.grad, *grads]
    bank = getattr(criterion, "memory_bank", None)
    if isinstance(bank, SMCMemoryBankModule) and bank.size[0] > 0:
        assert bank.bank.device.type == device.type
        found += [bank.bank[order_of_rows(bank.bank)], bank.effective_sample_size]
    return [tensor.cpu() for tensor in found]


def order_of_rows(rows: Tensor) -> Tensor:
    return rows[:, 0].argsort()


@pytest.mark.parametrize("name", LOSSES)
def test_a_gpu_gives_what_the_cpu_gives(name: str) -> None:
    steps = 24  # the larger bank is full after 16
    expected = follow(LOSSES[name](), torch.device("cpu"), steps)
    got = follow(LOSSES[name]().to(DEVICE), DEVICE, steps)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@contextmanager
def no_sync() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", BANKS)
def test_a_full_bank_makes_no_host_wait(name: str) -> None:
    criterion = BANKS[name]().to(DEVICE)
    follow(criterion, DEVICE, 18)  # fills it
    batches = [views(seed, DEVICE) for seed in range(3)]
    with no_sync():
        for first, second in batches:
            criterion(first, second).backward()
            if hasattr(criterion.memory_bank, "diagnostics"):
                criterion.memory_bank.diagnostics()


@pytest.mark.parametrize("name", LOSSES)
def test_resumes_on_a_gpu(name: str) -> None:
    criterion = LOSSES[name]().to(DEVICE)
    follow(criterion, DEVICE, 4)
    again = LOSSES[name]().to(DEVICE)
    again.load_state_dict(copy.deepcopy(criterion.state_dict()))
    expected, got = (follow(each, DEVICE, 4) for each in (criterion, again))
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    """Under autocast, with a scaler for float16; losses are computed in float32."""
    torch.manual_seed(0)
    encoder, criterion = nn.Linear(DIM, DIM).to(DEVICE), LOSSES[name]().to(DEVICE)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)
    before = copy.deepcopy(encoder.state_dict())
    for seed in range(6):
        first, second = (view.detach() for view in views(seed, DEVICE))
        with torch.autocast("cuda", dtype):
            loss = criterion(encoder(first), encoder(second))
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert all(value.isfinite().all() for value in encoder.state_dict().values())
    assert not torch.equal(before["weight"], encoder.weight)


@pytest.mark.skipif(sys.platform == "win32", reason="inductor needs Triton")
@pytest.mark.parametrize("name", LOSSES)
def test_compiled(name: str) -> None:
    torch.compiler.reset()
    expected = follow(LOSSES[name]().to(DEVICE), DEVICE, 6)
    criterion = LOSSES[name]().to(DEVICE)
    criterion.compile()
    got = follow(criterion, DEVICE, 6)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_bad_row_stays_out() -> None:
    criterion = BANKS["default"]().to(DEVICE)
    follow(criterion, DEVICE, 4)
    first, second = views(9, DEVICE)
    with torch.no_grad():
        second[3] = torch.nan
    loss = criterion(first, second)
    assert loss.isnan()
    assert criterion.memory_bank.bank.isfinite().all()
    assert criterion.memory_bank.diagnostics()["rejected"] == 1


def test_neighbours() -> None:
    banks = [SMCNNMemoryBankModule((SIZE, DIM)) for _ in range(2)]
    for seed in range(6):
        keys = normalize(views(seed, torch.device("cpu"))[1], dim=1)
        expected, got = banks[0](keys, update=True), banks[1](keys.to(DEVICE), update=True)
        torch.testing.assert_close(got.cpu(), expected)
