"""Compiled losses against eager ones: while a bank fills, when it is full, as batches change."""

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn

from gmje_plugin import (
    GJEDualLoss,
    GJEEntropyLoss,
    GJENLLLoss,
    GMJEMDNHead,
    GMJEMDNLoss,
    GMJEPrototypeLoss,
    HSICLoss,
    JointSMCLoss,
    SMCNTXentLoss,
)
from tests.losses import ALL, kinds

DIM = 4


class Predicted(nn.Module):
    def __init__(self, guard: str = "entropy") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.criterion = GMJEMDNHead(DIM, 8, DIM), GMJEMDNLoss(DIM, guard=guard)

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        loss: Tensor = self.criterion(self.head(out0), out1)
        return loss


LOSSES: dict[str, Callable[[], nn.Module]] = {
    "smc": lambda: SMCNTXentLoss(0.2, (40, DIM)),
    "joint smc": lambda: JointSMCLoss(DIM, 40),
    "prototype": lambda: GMJEPrototypeLoss(DIM, 3),
    "entropy": GJEEntropyLoss,
    "nll": lambda: GJENLLLoss(DIM),
    "mdn": Predicted,
    "mdn contrastive": lambda: Predicted("contrastive"),
    "dual": GJEDualLoss,
    "hsic": HSICLoss,
}


def test_every_loss_is_here() -> None:
    assert kinds(make() for make in LOSSES.values()) == ALL


def follow(criterion: nn.Module, call: Callable[..., Tensor]) -> list[Tensor]:
    """Losses and gradients over four batches: filling, full, and of another size."""
    found = []
    for seed, rows in enumerate((16, 16, 16, 12)):
        first, noise = torch.randn(2, rows, DIM, generator=Generator().manual_seed(seed))
        first.requires_grad_()
        loss = call(first, first.detach() + 0.3 * noise)
        loss.backward()
        assert first.grad is not None
        found += [
            loss.detach(),
            first.grad,
            *(p.grad.clone() for p in criterion.parameters() if p.grad is not None),
        ]
    return found


@pytest.mark.parametrize("name", LOSSES)
def test_compiled_equals_eager(name: str) -> None:
    """By inductor's graphs and its choice of what the backward pass computes again.

    Its code takes a minute of C++ a loss; ``backend="inductor"`` was run by hand.
    """
    torch.compiler.reset()
    eager, compiled = LOSSES[name](), LOSSES[name]()
    expected = follow(eager, eager)
    found = follow(compiled, torch.compile(compiled, backend="aot_eager_decomp_partition"))
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for key, value in eager.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[key], value, rtol=1e-4, atol=1e-5)
