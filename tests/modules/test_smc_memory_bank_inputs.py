"""Bad rows, dtypes, devices and arguments of the SMC bank."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from gmje_plugin import JointSMCLoss, SMCMemoryBankModule
from gmje_plugin.resampling import SCHEMES
from tests.banks import embeddings, full_bank, rows_of
from tests.references.smc import pool_log_weights


def test_bad_rows_do_not_change_what_the_good_ones_do() -> None:
    dirty, clean = full_bank(ess_threshold=0.0), full_bank(ess_threshold=0.0)
    keys, queries = embeddings(8, seed=1), embeddings(8, seed=2)
    queries[5] = math.nan
    dirty(keys, update=True, queries=queries)
    # The seven good queries alone, each key weighted without its own.
    reference = pool_log_weights(
        clean.bank,
        clean.log_weights,
        keys,
        queries[[0, 1, 2, 3, 4, 6, 7]],
        temperature=0.1,
        count_own_query=True,
    )
    rows = torch.cat([clean.bank, keys])
    index = (dirty.bank[:, None] == rows[None]).all(dim=-1).long().argmax(dim=1)
    old = index < 32
    weights = dirty.log_weights.double()
    expected = reference[index]
    torch.testing.assert_close(
        weights[old] - weights[old][0], expected[old] - expected[old][0], rtol=1e-4, atol=1e-4
    )


@pytest.fixture(params=list(SCHEMES))
def scheme(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.parametrize("count_own_query", [False, True])
@pytest.mark.parametrize("threshold", [None, 0.0, 0.5, 1.0])
def test_all_rows_bad(scheme: str, threshold: float | None, count_own_query: bool) -> None:
    """One bad pixel does this by way of batch normalisation."""
    bank = full_bank(resampling=scheme, ess_threshold=threshold, count_own_query=count_own_query)
    held, weights = set(rows_of(bank.bank)), bank.log_weights.clone()
    for _ in range(4):
        bank.update(torch.full((8, 8), math.nan))
        assert set(rows_of(bank.bank)) <= held
        assert bank.diagnostics()["ess_ratio"] <= 1.0 + 1e-6
    assert bank.diagnostics()["rejected"] == 32
    assert bank.diagnostics()["age_max"] <= bank.step
    if threshold == 0.0:
        torch.testing.assert_close(bank.log_weights, weights)
    bank.update(embeddings(8))
    assert torch.isfinite(bank.log_weights).all()


@pytest.mark.parametrize("count_own_query", [False, True])
@pytest.mark.parametrize("threshold", [None, 0.0, 0.5, 1.0])
def test_without_a_finite_query_all_are_weighed_as_if_they_were_equally_likely(
    scheme: str, threshold: float | None, count_own_query: bool
) -> None:
    """As where training diverges and the momentum encoder has not followed yet."""
    bank = full_bank(resampling=scheme, ess_threshold=threshold, count_own_query=count_own_query)
    reference, keys = copy.deepcopy(bank), embeddings(8)

    def equal(queries: Tensor, points: Tensor, *, skip_diagonal: bool = False) -> Tensor:
        return torch.full((len(points),), math.log(len(queries) - skip_diagonal))

    bank.update(keys, torch.full((8, 8), math.inf))
    reference.update(keys, embeddings(8, seed=1), score=equal)
    assert torch.equal(bank.bank, reference.bank)
    torch.testing.assert_close(bank.log_weights, reference.log_weights)
    torch.testing.assert_close(bank.effective_sample_size, reference.effective_sample_size)


def test_one_finite_query_is_as_a_batch_of_one() -> None:
    bank = full_bank()
    alone, keys = copy.deepcopy(bank), embeddings(8)
    alone.update(keys[3:4])
    keys[torch.arange(8) != 3] = math.nan
    bank.update(keys)
    torch.testing.assert_close(bank.effective_sample_size, alone.effective_sample_size)


def test_bad_pairs_leave_the_particles_of_algorithm_6() -> None:
    criterion = JointSMCLoss(
        4, 32, count_own_query=True, resampling="multinomial", ess_threshold=None
    )
    for seed in range(4):
        criterion(*embeddings(8, seed=seed).chunk(2, dim=1))
    held = set(rows_of(criterion.particles))
    assert criterion(*torch.full((2, 8, 4), math.nan)).isnan()
    assert set(rows_of(criterion.particles)) <= held
    assert criterion(*embeddings(8, seed=4).chunk(2, dim=1)).isfinite()


def test_huge_rows_bring_no_nan() -> None:
    bank = full_bank()
    for _ in range(3):
        bank.update(1e25 * embeddings(8))
    assert torch.isfinite(bank.bank).all()
    assert torch.isfinite(bank.log_weights).all()


def test_constant_batches() -> None:
    bank = SMCMemoryBankModule((16, 8))
    constant = embeddings(1).expand(8, -1)
    for _ in range(6):
        bank.update(constant)
    assert torch.isfinite(bank.log_weights).all()
    assert bank.diagnostics()["unique_fraction"] == 1 / 16
    torch.testing.assert_close(bank.diagnostics()["ess_ratio"], torch.tensor(1.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    bank = full_bank(feature_dim_first=False)
    output, particles = bank(embeddings(8).to(dtype), update=True)
    assert output.dtype == particles.dtype == dtype
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert bank.bank.dtype == bank.log_weights.dtype == wide


def test_autocast_does_not_narrow_the_weights() -> None:
    plain, mixed = full_bank(ess_threshold=0.0), full_bank(ess_threshold=0.0)
    plain.update(embeddings(8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed.update(embeddings(8))
    assert torch.equal(plain.log_weights, mixed.log_weights)


def test_apply_moves_but_does_not_narrow() -> None:
    parent = nn.Sequential(nn.Linear(2, 2), full_bank())
    parent.to(torch.bfloat16)
    assert parent[0].weight.dtype == torch.bfloat16
    assert parent[1].bank.dtype == torch.float32
    parent.to("meta")
    assert parent[1].bank.device.type == parent[1].ages.device.type == "meta"


def test_moves_to_the_first_batch() -> None:
    bank = SMCMemoryBankModule((16, 8)).to("meta")
    _, particles = bank(torch.empty(4, 8, device="meta"))
    assert particles.device.type == "meta"


def test_entries_do_not_go_to_the_meta_device_with_a_batch() -> None:
    bank = full_bank()
    before = copy.deepcopy(bank.state_dict())
    size, dim = bank.size
    with pytest.raises(ValueError, match=rf"output must hold values, .* {size} entries cannot"):
        bank(torch.empty(4, dim, device="meta"))
    for name, value in bank.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_starts_anew_after_the_meta_device() -> None:
    bank = full_bank()
    size, dim = bank.size
    bank.to("meta").to_empty(device="cpu")
    assert bank.count == bank.step == 0
    assert torch.equal(bank.bank, SMCMemoryBankModule((size, dim), seed=bank.seed).bank)
    bank.update(embeddings(4, dim))
    assert bank.count == 4
    assert torch.isfinite(bank.log_weights[:4]).all()


def test_is_in_no_buffer_and_no_parameter() -> None:
    bank = full_bank()
    assert list(bank.buffers()) == []
    assert list(bank.parameters()) == []


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"size": (-1, 4)}, "non-negative"),
        ({"size": (4, 0)}, "size must be"),
        ({"size": (4, 2, 3)}, "size must be"),
        ({"size": (4.0, 2)}, "size must be"),
        ({"size": "16"}, "size must be"),
        ({"size": None}, "size must be"),
        ({"temperature": 0.0}, "temperature must be a finite number"),
        ({"temperature": -1.0}, "temperature must be a finite number"),
        ({"temperature": math.nan}, "temperature must be a finite number"),
        ({"temperature": math.inf}, "temperature must be a finite number"),
        ({"resampling": "fifo"}, "resampling must be one of multinomial"),
        ({"ess_threshold": 1.5}, r"ess_threshold must be a finite number in \[0.0, 1.0\]"),
        ({"seed": -1}, "seed must be an integer"),
        ({"seed": 0.5}, "seed must be an integer"),
    ],
)
def test_bad_arguments(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SMCMemoryBankModule(**{"size": (16, 4), **options})


@pytest.mark.parametrize(
    ("keys", "queries", "match"),
    [
        (torch.zeros(4), None, "output must have shape"),
        (torch.zeros(0, 8), None, "at least one row"),
        (torch.zeros(4, 7), None, "output must have 8 features"),
        (torch.zeros(4, 8, dtype=torch.int64), None, "output must be a floating tensor"),
        (torch.zeros(4, 8), torch.zeros(3, 8), "keys and queries must have the same shape"),
        (torch.zeros(4, 8), torch.zeros(4, 8, device="meta"), "must be on one device"),
    ],
)
def test_bad_batches(keys: Tensor, queries: Tensor | None, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        full_bank()(keys, update=True, queries=queries)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_default_dtype_does_not_narrow_the_state(dtype: torch.dtype) -> None:
    """Lightning's precision="bf16-true" makes modules under such a default."""
    torch.set_default_dtype(dtype)
    try:
        bank = SMCMemoryBankModule((16, 8))
    finally:
        torch.set_default_dtype(torch.float32)
    for seed in range(4):
        bank(embeddings(8, seed=seed).to(dtype), update=True)
    assert bank.bank.dtype == bank.log_weights.dtype == torch.float32


def test_algorithm_2_is_named_so() -> None:
    bank = SMCMemoryBankModule.paper((16, 4))
    named = bank.resampling, bank.ess_threshold, bank.count_own_query
    assert named == ("multinomial", None, True)


def test_ages_are_of_the_entries_that_have_come() -> None:
    bank = SMCMemoryBankModule((16, 4))
    for seed in (1, 2):
        bank(torch.randn(4, 4, generator=Generator().manual_seed(seed)), update=True)
    found = bank.diagnostics()
    assert (float(found["age_mean"]), float(found["age_max"])) == (0.5, 1.0)
