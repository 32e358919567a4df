"""The bank that answers with nearest neighbours."""

import copy

import pytest
import torch
from lightly.models.modules import NNMemoryBankModule
from torch.nn.functional import normalize

from gmje_plugin import SMCMemoryBankModule, SMCNNMemoryBankModule
from tests.banks import embeddings

SIZE, DIM, BATCH = 32, 8, 8


def full(**options: object) -> SMCNNMemoryBankModule:
    bank = SMCNNMemoryBankModule((SIZE, DIM), **options)
    for seed in range(SIZE // BATCH):
        bank(3.0 * embeddings(BATCH, seed=seed), update=True)
    assert bank.count == SIZE
    return bank


def test_it_answers_as_lightlys_bank_of_the_same_entries() -> None:
    bank, stock = full(), NNMemoryBankModule((SIZE, DIM))
    stock.bank = bank.bank.clone()
    for scale in (1.0, 0.2):  # neighbours by direction, entries as they came
        queries = scale * embeddings(BATCH, seed=9)
        torch.testing.assert_close(bank(queries), stock(queries))
        assert bank(queries).norm(dim=1) == pytest.approx(3.0)


def test_neighbours_are_of_the_bank_before_the_update_and_stay_valid() -> None:
    bank = full()
    before = bank.bank.clone()
    queries = embeddings(BATCH, seed=9).requires_grad_()
    neighbours = bank(queries, update=True)
    assert not neighbours.requires_grad
    kept = neighbours.clone()
    assert not torch.equal(bank.bank, before)
    bank(embeddings(BATCH, seed=10), update=True)
    assert torch.equal(neighbours, kept)
    assert all((before == row).all(dim=1).any() for row in neighbours)


def test_while_it_fills_neighbours_are_keys_that_came() -> None:
    bank = SMCNNMemoryBankModule((SIZE, DIM))
    assert bank(embeddings(BATCH)).shape == (BATCH, DIM)  # nothing has come: random entries
    first = embeddings(BATCH, seed=1)
    bank(first, update=True)
    answered = bank(embeddings(BATCH, seed=2))
    assert all((first == row).all(dim=1).any() for row in answered)


def test_the_update_is_the_smc_banks_on_directions() -> None:
    ours, reference = full(temperature=0.2), SMCMemoryBankModule((SIZE, DIM), temperature=0.2)
    for seed in range(SIZE // BATCH):
        reference.update(embeddings(BATCH, seed=seed))
    for seed in range(20, 30):
        keys = embeddings(BATCH, seed=seed)
        ours(3.0 * keys, update=True)
        reference.update(keys)
        torch.testing.assert_close(ours.bank, 3.0 * reference.bank)
        torch.testing.assert_close(ours.log_weights, reference.log_weights, rtol=1e-4, atol=1e-5)


def test_state_dict_round_trip_and_no_update_changes_nothing() -> None:
    bank = full()
    before = copy.deepcopy(bank.state_dict())
    bank(embeddings(BATCH, seed=9))
    resumed = SMCNNMemoryBankModule((SIZE, DIM))
    resumed.load_state_dict(bank.state_dict())
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_neighbours_do_not_depend_on_norms() -> None:
    bank, norms = SMCNNMemoryBankModule((64, DIM)), torch.linspace(0.1, 10.0, 64)[:, None]
    entries, queries = embeddings(64), embeddings(BATCH, seed=9)
    bank.update(norms * entries)
    nearest = (queries @ entries.mT).argmax(dim=1)
    assert torch.equal(bank(5.0 * queries), (norms * entries)[nearest])


def test_a_row_that_is_not_finite_does_not_enter() -> None:
    bank = full()
    keys = embeddings(BATCH, seed=9)
    keys[2, 1] = torch.nan
    bank(keys, update=True)
    assert bank.bank.isfinite().all()
    assert bank.diagnostics()["rejected"] == 1


def test_narrow_embeddings_get_neighbours_of_their_dtype() -> None:
    queries = embeddings(BATCH, seed=9).bfloat16()
    neighbours = full()(queries)
    assert neighbours.dtype == torch.bfloat16
    assert normalize(neighbours.float(), dim=1).isfinite().all()


def test_neighbours_do_not_depend_on_autocast() -> None:
    """Nearly parallel embeddings, as late in training: bfloat16 cannot tell their cosines apart."""
    bank = SMCNNMemoryBankModule((64, DIM))
    bank.update(1.0 + 0.01 * embeddings(64))
    queries = 1.0 + 0.01 * embeddings(BATCH, seed=9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = bank(queries)
    assert torch.equal(found, bank(queries))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="size must hold at least one entry"):
        SMCNNMemoryBankModule(0)(embeddings(BATCH))
    with pytest.raises(ValueError, match="output must have 8 features"):
        full()(embeddings(BATCH, dim=5))
