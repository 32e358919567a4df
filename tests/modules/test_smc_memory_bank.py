import copy
import math
from importlib.metadata import version
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.models.modules.memory_bank import MemoryBankModule
from packaging.version import Version
from torch.nn.functional import normalize

from gmje_plugin import SMCMemoryBankModule
from tests.banks import embeddings, full_bank, rows_of
from tests.references.smc import pool_log_weights


def test_is_a_memory_bank_of_the_same_signature() -> None:
    bank = SMCMemoryBankModule((16, 4), False, False)
    assert isinstance(bank, MemoryBankModule)
    keys = embeddings(3, 4)
    output, particles = bank(keys, None, True)
    assert output is keys
    assert particles.shape == (16, 4)
    assert SMCMemoryBankModule((16, 4))(keys)[1].shape == (4, 16)


def test_returns_the_state_before_the_update_and_it_stays_valid() -> None:
    bank = full_bank(feature_dim_first=False)
    before = bank.bank.clone()
    queries = embeddings(8, seed=1).requires_grad_()
    _, particles = bank(embeddings(8, seed=2), update=True, queries=queries)
    assert torch.equal(particles, before)
    assert not particles.requires_grad
    assert not torch.equal(bank.bank, before)
    (queries @ particles.T).sum().backward()  # the copy is not written into
    torch.testing.assert_close(queries.grad, before.sum(dim=0).expand(8, -1))


def test_no_update_leaves_everything_as_it_is() -> None:
    bank = full_bank()
    before = copy.deepcopy(bank.state_dict())
    bank(embeddings(8))
    for name, value in bank.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("size", [0, (0, 8)])
def test_size_zero_disables(size: Any) -> None:
    bank = SMCMemoryBankModule(size)
    keys = embeddings(4)
    assert bank(keys, update=True) == (keys, None)
    assert bank.state_dict() == {}
    bank.load_state_dict({})


def test_bare_integer_behaves_as_the_installed_lightly() -> None:
    if Version(version("lightly")) >= Version("1.6"):
        with pytest.raises(ValueError, match="size=16"):
            SMCMemoryBankModule(16)
        return
    with pytest.warns(UserWarning, match="does not specify"):
        bank = SMCMemoryBankModule(16)
    assert bank(embeddings(4, 5), update=True)[1].shape == (5, 16)
    with pytest.warns(UserWarning, match="does not specify"):
        other = SMCMemoryBankModule(16)
    other.load_state_dict(bank.state_dict())
    assert torch.equal(other.bank, bank.bank)


# --- filling ---------------------------------------------------------------------------------


@pytest.mark.parametrize("paper", [False, True])
def test_fills_in_order_with_uniform_weights(paper: bool) -> None:
    make = SMCMemoryBankModule.paper if paper else SMCMemoryBankModule
    bank = make((20, 8), feature_dim_first=False)
    initial = bank.bank.clone()
    batches = [embeddings(6, seed=seed) for seed in range(3)]
    for number, keys in enumerate(batches, start=1):
        bank(keys, update=True)
        assert bank.count == 6 * number
        assert torch.equal(bank.bank[: bank.count], torch.cat(batches[:number]))
        assert torch.equal(bank.bank[bank.count :], initial[bank.count :])
        torch.testing.assert_close(
            bank.log_weights[: bank.count], torch.full((bank.count,), -math.log(bank.count))
        )
        assert bank.effective_sample_size == bank.count
    assert bank.ages[: bank.count].tolist() == [2] * 6 + [1] * 6 + [0] * 6
    # The batch that overflows loses none of its own rows; the oldest leave.
    bank(embeddings(6, seed=3), update=True)
    assert bank.count == 20
    kept = set(rows_of(bank.bank))
    assert set(rows_of(embeddings(6, seed=3))) <= kept
    assert set(rows_of(torch.cat(batches[1:]))) <= kept
    assert sorted(bank.ages.tolist()) == [0] * 6 + [1] * 6 + [2] * 6 + [3] * 2


def test_batch_larger_than_the_bank_keeps_a_random_part_of_it() -> None:
    keys = embeddings(50, seed=1)
    bank = SMCMemoryBankModule((20, 8))
    bank.update(keys)
    assert set(rows_of(bank.bank)) <= set(rows_of(keys))
    assert len(set(rows_of(bank.bank))) == 20
    assert rows_of(bank.bank) != rows_of(keys[:20])
    more = embeddings(50, seed=2)
    bank.ess_threshold = 0.0
    bank.update(more)
    assert set(rows_of(bank.bank)) <= set(rows_of(more))
    assert len(set(rows_of(bank.bank))) == 20


# --- the update ------------------------------------------------------------------------------


@pytest.mark.parametrize("count_own_query", [False, True])
@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 5.0])
def test_weights_and_ess_against_the_written_out_formula(
    count_own_query: bool, batch: int, temperature: float
) -> None:
    bank = full_bank(count_own_query=count_own_query, temperature=temperature, ess_threshold=0.0)
    for seed in range(4):
        before, weights = bank.bank.clone(), bank.log_weights.clone()
        keys, queries = embeddings(batch, seed=seed), embeddings(batch, seed=50 + seed)
        pool = pool_log_weights(
            before,
            weights,
            keys,
            queries,
            temperature=temperature,
            count_own_query=count_own_query,
        )
        bank(keys, update=True, queries=queries)
        share = pool.softmax(dim=0)
        ess = 1 / share.square().sum()
        torch.testing.assert_close(bank.effective_sample_size.double(), ess, rtol=1e-4, atol=1e-4)
        # FIFO branch: survivors carry their pool weights, renormalised to sum 1.
        rows = torch.cat([before, keys])
        index = (bank.bank[:, None] == rows[None]).all(dim=-1).long().argmax(dim=1)
        expected = pool[index] - pool[index].logsumexp(dim=0)
        torch.testing.assert_close(bank.log_weights.double(), expected, rtol=1e-4, atol=1e-4)


def test_without_queries_the_keys_stand_in() -> None:
    first, second = full_bank(), full_bank()
    keys = embeddings(8, seed=3)
    first(keys, update=True)
    second(keys, update=True, queries=keys)
    assert torch.equal(first.bank, second.bank)
    assert torch.equal(first.log_weights, second.log_weights)


def test_above_the_threshold_the_oldest_leave() -> None:
    bank = full_bank(ess_threshold=0.0)
    for seed in range(7):
        newest = rows_of(torch.cat([embeddings(8, seed=seed), bank.bank[bank.ages < 3]]))
        bank.update(embeddings(8, seed=seed))
        assert rows_of(bank.bank) == newest


def test_equal_ages_leave_at_random() -> None:
    # Three of eight equally old rows leave: all seven seeds choosing the same three has
    # probability (1/56)^6.
    left = []
    for seed in range(7):
        bank = full_bank(seed=seed, ess_threshold=0.0)
        oldest = bank.ages == bank.ages.max()
        old_rows = set(rows_of(bank.bank[oldest]))
        bank.update(embeddings(3, seed=99))
        left.append(tuple(sorted(old_rows - set(rows_of(bank.bank)))))
        assert len(left[-1]) == 3
    assert len(set(left)) > 1


def test_below_the_threshold_weights_decide_and_start_again() -> None:
    bank = full_bank(ess_threshold=1.0, temperature=0.02)
    keys, queries = embeddings(8, seed=3), embeddings(8, seed=4)
    pool = pool_log_weights(
        bank.bank, bank.log_weights, keys, queries, temperature=0.02, count_own_query=False
    )
    rows = torch.cat([bank.bank, keys])
    bank(keys, update=True, queries=queries)
    torch.testing.assert_close(bank.log_weights, torch.full((32,), -math.log(32)))
    kept = set(rows_of(bank.bank))
    assert len(kept) == 32
    heavy = rows[pool.argsort(descending=True)[:8]]  # weights of the others are under 1e-3 of it
    assert set(rows_of(heavy)) <= kept


def test_keeps_in_proportion_to_the_weights() -> None:
    # One place, two candidates: 2000 seeds, 5 standard errors of the binomial share (fails with
    # probability below 1e-6 under redrawn seeds).
    particle, key, query = (
        normalize(torch.tensor([v]), dim=1) for v in ([1.0, 0.2], [0.3, 1.0], [1.0, 1.0])
    )
    expected = pool_log_weights(
        particle, torch.zeros(1), key, query, temperature=0.5, count_own_query=True
    ).softmax(dim=0)[1]
    kept = 0
    for seed in range(2000):
        bank = SMCMemoryBankModule(
            (1, 2), temperature=0.5, ess_threshold=None, count_own_query=True, seed=seed
        )
        bank.update(particle)
        bank.update(key, query)
        kept += int(torch.equal(bank.bank, key))
    error = math.sqrt(float(expected * (1 - expected)) / 2000)
    assert abs(kept / 2000 - float(expected)) < 5 * error


def test_paper_is_algorithm_2() -> None:
    # 1500 seeds; mean copies of each pool member within 5 standard errors of M * W_j (fails with
    # probability below 1e-4 under redrawn seeds).
    size, batch = 12, 4
    state = full_bank(size, batch=batch).state_dict()
    keys, queries = embeddings(batch, seed=1), embeddings(batch, seed=2)
    pool = pool_log_weights(
        state["bank"],
        torch.full((size,), -math.log(size)),
        keys,
        queries,
        temperature=0.3,
        count_own_query=True,
    ).softmax(dim=0)
    rows = torch.cat([state["bank"], keys])
    copies = torch.zeros(1500, len(rows), dtype=torch.float64)
    for seed in range(1500):
        bank = SMCMemoryBankModule.paper((size, 8), temperature=0.3, seed=seed)
        bank.load_state_dict(state)
        bank(keys, update=True, queries=queries)
        same = (bank.bank[:, None] == rows[None]).all(dim=-1)
        assert same.sum() == size
        copies[seed] = same.sum(dim=0)
        torch.testing.assert_close(bank.log_weights, torch.full((size,), -math.log(size)))
    error = copies.std(dim=0) / math.sqrt(1500)
    assert ((copies.mean(dim=0) - size * pool).abs() < 5 * error + 1e-9).all()
    torch.testing.assert_close(
        bank.effective_sample_size.double(), 1 / pool.square().sum(), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    "resampling", ["multinomial", "stratified", "systematic", "residual", "without_replacement"]
)
def test_every_scheme_keeps_pool_members_and_both_branches(resampling: str) -> None:
    for threshold in (0.0, None):
        bank = full_bank(resampling=resampling, ess_threshold=threshold, temperature=0.2)
        rows = torch.cat([bank.bank, embeddings(8, seed=5)])
        bank.update(embeddings(8, seed=5))
        assert set(rows_of(bank.bank)) <= set(rows_of(rows))
        newest = set(rows_of(embeddings(8, seed=5))) <= set(rows_of(bank.bank))
        assert newest if threshold == 0.0 else True
        torch.testing.assert_close(
            bank.log_weights.logsumexp(dim=0), torch.zeros(()), atol=1e-5, rtol=0
        )


@settings(deadline=None, max_examples=40)
@given(
    size=st.integers(1, 40),
    batches=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    threshold=st.sampled_from([None, 0.0, 0.5, 1.0]),
    damage=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_nothing_is_lost_or_made_up(
    size: int, batches: list[int], threshold: float | None, damage: float, seed: int
) -> None:
    """Whatever comes: distinct rows stay distinct, all of them were given, none is NaN."""
    bank = SMCMemoryBankModule((size, 3), ess_threshold=threshold, temperature=0.05, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    given_rows: set[tuple[float, ...]] = set()
    rejected = 0
    for batch in batches:
        keys = normalize(torch.randn(batch, 3, generator=generator), dim=1)
        queries = normalize(torch.randn(batch, 3, generator=generator), dim=1)
        bad = torch.rand(batch, generator=generator) < damage
        keys[bad] = math.nan
        queries[torch.rand(batch, generator=generator) < damage] = math.inf
        given_rows |= set(rows_of(keys[~bad]))
        rejected += int(bad.sum())
        bank(keys, update=True, queries=queries)
        held = rows_of(bank.bank[: bank.count])
        assert set(held) <= given_rows
        assert len(set(held)) == len(held) == min(size, len(given_rows))
        assert torch.isfinite(bank.log_weights[: bank.count]).all()
        if bank.count:
            assert abs(float(bank.log_weights[: bank.count].exp().sum()) - 1) < 1e-3
        figures = bank.diagnostics()
        assert int(figures["rejected"]) == rejected
        assert all(torch.isfinite(value) for value in figures.values())


def test_random_numbers_depend_on_seed_and_step_alone() -> None:
    torch.manual_seed(1)
    first = full_bank()
    state = torch.random.get_rng_state()
    first.update(embeddings(8))
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(2)
    second, other = full_bank(), full_bank(seed=1)
    second.update(embeddings(8))
    assert torch.equal(first.bank, second.bank)
    assert not torch.equal(
        SMCMemoryBankModule((4, 4)).bank, SMCMemoryBankModule((4, 4), seed=1).bank
    )
    assert other.count == 32


def test_streams_of_neighbouring_seeds_do_not_overlap() -> None:
    first, second = SMCMemoryBankModule((4, 4)), SMCMemoryBankModule((4, 4), seed=1)
    first.step = second.step + 1
    one, other = (torch.rand(4, generator=bank._generator()) for bank in (first, second))
    assert not torch.equal(one, other)


def test_diagnostics() -> None:
    empty = SMCMemoryBankModule((8, 4))
    assert all(value == 0 for value in empty.diagnostics().values())
    bank = full_bank(ess_threshold=0.0)
    bank.update(embeddings(8, seed=6))
    figures = bank.diagnostics()
    assert set(figures) == {
        "ess", "ess_ratio", "unique_fraction", "age_mean", "age_max", "rejected",
    }  # fmt: skip
    assert all(value.ndim == 0 for value in figures.values())
    assert figures["age_mean"] == 1.5
    assert figures["age_max"] == 3
    assert figures["unique_fraction"] == 1
    torch.testing.assert_close(figures["ess_ratio"], figures["ess"] / 40)


def test_the_threshold_is_a_share_of_the_pool_and_not_of_the_bank() -> None:
    """13 of 32 entries hold the weight: the ESS of the pool of 40 is 18.4, below half of it."""
    bank = full_bank(temperature=1e6)  # every query likes every entry alike
    bank.log_weights = torch.full((32,), -1e4)
    bank.log_weights[:13] = -math.log(13)
    bank.update(embeddings(8))
    assert 16 < bank.effective_sample_size < 20
    torch.testing.assert_close(bank.log_weights, torch.full((32,), -math.log(32)))


def test_rejected_keys_are_not_of_the_pool() -> None:
    bank, keys = full_bank(), embeddings(8)
    keys[:3] = math.nan
    bank.update(keys)
    figures = bank.diagnostics()
    torch.testing.assert_close(figures["ess_ratio"], figures["ess"] / 37)


@settings(deadline=None)
@given(
    size=st.integers(1, 30),
    batch=st.integers(1, 12),
    seed=st.integers(0, 999),  # the bank's own rows are drawn by 1000
    ess_threshold=st.sampled_from([0.0, None]),
)
def test_rows_and_ages_move_together(
    size: int, batch: int, seed: int, ess_threshold: float | None
) -> None:
    bank, keys = full_bank(size, 4, ess_threshold=ess_threshold), embeddings(batch, 4, seed=seed)
    bank.ages = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    rows = map(tuple, torch.cat([bank.bank, keys]).tolist())
    ages = dict(zip(rows, [*(bank.ages + 1).tolist(), *[0] * batch], strict=True))
    bank.update(keys)
    found = list(map(tuple, bank.bank.tolist()))
    assert len(set(found)) == size
    assert bank.ages.tolist() == [ages[row] for row in found]
