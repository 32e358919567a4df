"""A run begun with one bank and continued with the other."""

import warnings

import pytest
import torch
from lightly.loss import NTXentLoss

from gmje_plugin import SMCNTXentLoss, swap_memory_bank

SIZE = (32, 8)


def trained() -> SMCNTXentLoss:
    criterion = SMCNTXentLoss(0.1, SIZE)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        query, key = torch.randn(2, 16, 8, generator=generator)
        criterion(query.requires_grad_(), key)
    return criterion


def test_from_ours_to_lightlys() -> None:
    """As README's Limits say it: lightly's bank is in no checkpoint, so its own is set by hand."""
    state = trained().state_dict()
    stock = NTXentLoss(0.1, SIZE)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*memory_bank\.bank"):
        stock.load_state_dict(state)
    stock.load_state_dict(state, strict=False)
    stock.memory_bank.bank = state["memory_bank.bank"].clone()
    query, key = torch.randn(2, 16, 8)
    ours = SMCNTXentLoss(0.1, SIZE, in_batch_negatives=False)
    ours.load_state_dict(state)
    torch.testing.assert_close(stock(query, key), ours(query, key))


def test_from_lightlys_to_ours() -> None:
    """A stock checkpoint has no bank: ours keeps the one it has, and says so."""
    state = NTXentLoss(0.1, SIZE).state_dict()
    for criterion in (trained(), NTXentLoss(0.1, SIZE)):
        if not isinstance(criterion, SMCNTXentLoss):
            swap_memory_bank(criterion)
        before = criterion.memory_bank.bank.clone()
        with pytest.warns(UserWarning, match=r"no state of 'memory_bank\."):
            criterion.load_state_dict(state)
        assert torch.equal(criterion.memory_bank.bank, before)


def test_between_ours() -> None:
    swapped = NTXentLoss(0.1, SIZE)
    swap_memory_bank(swapped)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        swapped.load_state_dict(trained().state_dict())
    assert torch.equal(swapped.memory_bank.bank, trained().memory_bank.bank)
