"""What a user of lightly does: a stock pipeline, the changed line, real images."""

from collections.abc import Callable

import pytest
import torch
from lightly.loss import NTXentLoss
from lightly.loss.regularizer import CO2Regularizer
from torch import nn

from gmje_plugin import SMCNTXentLoss, swap_memory_bank
from tests.integration.pipelines import DIM, MoCo, train

SEEDS = (1, 2, 3)
BANK = (512, DIM)


@pytest.fixture(scope="module")
def fifo() -> float:
    return sum(train(MoCo, lambda: NTXentLoss(0.1, BANK), seed=seed) for seed in SEEDS) / 3


def swapped() -> nn.Module:
    criterion = NTXentLoss(0.1, BANK)
    swap_memory_bank(criterion)
    return criterion


@pytest.mark.parametrize(
    "make_criterion",
    [swapped, lambda: SMCNTXentLoss(0.1, BANK, in_batch_negatives=False)],
    ids=["swap_memory_bank", "SMCNTXentLoss"],
)
def test_moco_is_level_with_fifo(make_criterion: Callable[[], nn.Module], fifo: float) -> None:
    """Mean kNN accuracy over 3 fixed seeds within 1 point (measured: within 0.2)."""
    ours = sum(train(MoCo, make_criterion, seed=seed) for seed in SEEDS) / 3
    assert ours > fifo - 1.0


def test_swapped_bank_inside_direct_clr() -> None:
    module = pytest.importorskip("lightly.loss.directclr_loss", reason="new in lightly 1.6")
    criterion = module.DirectCLRLoss(8, 0.2, (16, 8))
    assert swap_memory_bank(criterion) == 1
    for out0, out1 in pairs():
        out0.requires_grad_()
        criterion(out0, out1).backward()
        assert torch.isfinite(out0.grad).all()
    assert criterion.memory_bank.count == 16


@pytest.mark.filterwarnings("ignore:To copy construct")  # lightly 1.6.0's own
def test_swapped_bank_inside_co2() -> None:
    """Only the bank: lightly's CO2Regularizer detaches its result."""
    criterion = CO2Regularizer(1.0, 0.1, (16, 12))
    assert swap_memory_bank(criterion) == 1
    for out0, out1 in pairs():
        assert torch.isfinite(criterion(out0, out1))
    assert criterion.memory_bank.count == 16


def pairs() -> list[torch.Tensor]:
    return list(torch.randn(4, 2, 6, 12, generator=torch.Generator().manual_seed(0)))
