import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gmje_plugin import resampling

UNBIASED = ["multinomial", "stratified", "systematic", "residual"]
SCHEMES = [*UNBIASED, "without_replacement"]

log_weight = st.one_of(st.floats(-50, 50), st.just(-2000.0), st.just(-math.inf))
log_weight_vectors = st.lists(log_weight, min_size=1, max_size=30).filter(
    lambda values: any(math.isfinite(value) for value in values)
)


def counts_of(scheme: str, log_weights: torch.Tensor, n: int, seed: int) -> torch.Tensor:
    drawn = getattr(resampling, scheme)(
        log_weights, n, generator=torch.Generator().manual_seed(seed)
    )
    assert drawn.shape == (n,)
    assert drawn.dtype == torch.int64
    return torch.bincount(drawn, minlength=len(log_weights))


@pytest.mark.parametrize("scheme", UNBIASED)
@pytest.mark.parametrize("n", [3, 8, 40])
def test_unbiased(scheme: str, n: int) -> None:
    # 4000 runs, seeds 0..3999; the mean count of each of 8 particles lies within 5 standard
    # errors of n * w: fails with probability below 1e-4 over all cases if the seeds are redrawn.
    log_weights = torch.randn(8, generator=torch.Generator().manual_seed(1)) * 1.5
    log_weights[3] = -math.inf
    runs = torch.stack([counts_of(scheme, log_weights, n, seed) for seed in range(4000)]).double()
    expected = n * log_weights.double().softmax(dim=0)
    error = runs.std(dim=0) / math.sqrt(len(runs))
    assert ((runs.mean(dim=0) - expected).abs() <= 5 * error + 1e-9).all()
    assert runs[:, 3].sum() == 0


@settings(deadline=None)
@given(values=log_weight_vectors, n=st.integers(1, 60), seed=st.integers(0, 2**31))
@pytest.mark.parametrize("scheme", UNBIASED)
def test_counts(scheme: str, values: list[float], n: int, seed: int) -> None:
    log_weights = torch.tensor(values, dtype=torch.float64)
    counts = counts_of(scheme, log_weights, n, seed)
    expected = n * log_weights.softmax(dim=0)
    assert counts.sum() == n
    assert (counts[log_weights == -math.inf] == 0).all()
    slack = 1e-9
    if scheme in ("systematic", "residual"):
        assert (counts >= torch.floor(expected - slack)).all()
    if scheme == "systematic":
        assert ((counts - expected).abs() <= 1 + slack).all()
    if scheme == "stratified":
        assert ((counts - expected).abs() <= 2 + slack).all()


def test_draws_of_the_strata_are_independent() -> None:
    log_weights = torch.zeros(4)
    drawn = {scheme: set() for scheme in ("stratified", "systematic")}
    for scheme, pairs in drawn.items():
        for seed in range(40):
            generator = torch.Generator().manual_seed(seed)
            pairs.add(
                tuple(getattr(resampling, scheme)(log_weights, 2, generator=generator).tolist())
            )
    assert drawn["stratified"] == {(0, 2), (0, 3), (1, 2), (1, 3)}
    assert drawn["systematic"] == {(0, 2), (1, 3)}


def test_low_variance_schemes_have_less_variance_than_multinomial() -> None:
    log_weights = torch.randn(10, generator=torch.Generator().manual_seed(2))
    variance = {
        scheme: torch.stack([counts_of(scheme, log_weights, 20, s) for s in range(500)])
        .double()
        .var(dim=0)
        .sum()
        for scheme in UNBIASED
    }
    for scheme in ("stratified", "systematic", "residual"):
        assert variance[scheme] < 0.7 * variance["multinomial"]


@pytest.mark.parametrize("scheme", UNBIASED)
def test_underflowing_weights_keep_their_ratio(scheme: str) -> None:
    # exp(-2000) is zero in float64; only the differences count. 4000 draws, seed 5: a share of 1/4
    # within 5 standard errors of the multinomial, which the other schemes stay below.
    log_weights = torch.tensor([-2000.0, -math.inf, -2000.0 + math.log(3.0)])
    counts = counts_of(scheme, log_weights, 4000, seed=5)
    assert counts[1] == 0
    assert abs(int(counts[0]) - 1000) < 5 * math.sqrt(4000 * 0.25 * 0.75)


@pytest.mark.parametrize("scheme", ["systematic", "stratified"])
def test_a_point_that_rounds_to_one_stays_inside(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 7
    largest = torch.full((n if scheme == "stratified" else 1,), 1 - 2**-53, dtype=torch.float64)
    monkeypatch.setattr(resampling, "uniform", lambda *_: largest)
    drawn = getattr(resampling, scheme)(torch.tensor([0.0, 0.0, -math.inf]), n)
    assert drawn.max() == 1


def exact_inclusion(weights: list[float], n: int) -> list[float]:
    """Inclusion probabilities of n sequential draws, by enumerating all ordered draws."""
    included = [0.0] * len(weights)
    for order in itertools.permutations(range(len(weights)), n):
        probability, left = 1.0, sum(weights)
        for index in order:
            probability *= weights[index] / left
            left -= weights[index]
        for index in order:
            included[index] += probability
    return included


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
def test_without_replacement_inclusion(n: int) -> None:
    # 6000 runs, seeds 0..5999, 6 particles: within 5 binomial standard errors of the enumerated
    # probabilities; fails with probability below 1e-4 over all cases if the seeds are redrawn.
    weights = [0.05, 0.1, 0.3, 0.15, 0.22, 0.18]
    log_weights = torch.tensor(weights, dtype=torch.float64).log()
    runs = torch.stack(
        [counts_of("without_replacement", log_weights, n, seed) for seed in range(6000)]
    ).double()
    assert runs.max() == 1
    expected = torch.tensor(exact_inclusion(weights, n), dtype=torch.float64)
    error = (expected * (1 - expected) / len(runs)).clamp_min(0).sqrt()
    assert ((runs.mean(dim=0) - expected).abs() <= 5 * error + 1e-9).all()


def test_without_replacement_needs_enough_particles() -> None:
    log_weights = torch.tensor([0.0, -math.inf, 1.0])
    assert sorted(resampling.without_replacement(log_weights, 2).tolist()) == [0, 2]
    with pytest.raises(ValueError, match="n must be at most the number of finite log_weights"):
        resampling.without_replacement(log_weights, 3)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_generator_decides(scheme: str) -> None:
    log_weights = torch.randn(50, generator=torch.Generator().manual_seed(3))
    first = counts_of(scheme, log_weights, 20, seed=7)
    state = torch.random.get_rng_state()
    assert torch.equal(first, counts_of(scheme, log_weights, 20, seed=7))
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(first, counts_of(scheme, log_weights, 20, seed=8))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("log_weights", "n", "match"),
    [
        (torch.zeros(2, 2), 1, "log_weights must be a tensor of shape"),
        (torch.zeros(0), 1, "log_weights must be a tensor of shape"),
        ([0.0], 1, "log_weights must be a tensor of shape"),
        (torch.zeros(3, dtype=torch.int64), 1, "log_weights must be floating"),
        (torch.zeros(3), 0, "n must be an integer of at least 1"),
        (torch.zeros(3), 1.5, "n must be an integer of at least 1"),
        (torch.tensor([0.0, math.nan]), 1, "log_weights must not hold NaN"),
        (torch.tensor([0.0, math.inf]), 1, "log_weights must not hold NaN or"),
        (torch.tensor([-math.inf]), 1, "at least one finite value"),
    ],
)
def test_bad_arguments(scheme: str, log_weights: torch.Tensor, n: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        getattr(resampling, scheme)(log_weights, n)


@given(values=log_weight_vectors)
def test_effective_sample_size(values: list[float]) -> None:
    log_weights = torch.tensor(values, dtype=torch.float64)
    weights = log_weights.softmax(dim=0)
    ess = resampling.effective_sample_size(log_weights)
    assert ess.ndim == 0
    torch.testing.assert_close(ess, 1 / weights.square().sum(), rtol=1e-9, atol=0)
    assert 1 - 1e-9 <= float(ess) <= len(values) * (1 + 1e-9)


def test_effective_sample_size_of_no_weight_is_zero() -> None:
    assert resampling.effective_sample_size(torch.full((3,), -math.inf)) == 0


def test_effective_sample_size_of_half_weights_does_not_overflow() -> None:
    ess = resampling.effective_sample_size(torch.zeros(70_000, dtype=torch.float16))
    assert ess.dtype == torch.float32
    assert ess == 70_000


@settings(deadline=None)
@given(values=log_weight_vectors, share=st.floats(0, 1))
def test_temper_reaches_the_target(values: list[float], share: float) -> None:
    log_weights = torch.tensor(values, dtype=torch.float64)
    positive = int(torch.isfinite(log_weights).sum())
    target = 1 + share * (positive - 1)
    exponent = resampling.temper(log_weights, target)
    tempered = (exponent * log_weights).masked_fill(log_weights == -math.inf, -math.inf)
    ess = float(resampling.effective_sample_size(tempered))
    assert 0 <= float(exponent) <= 1
    assert ess >= target * (1 - 1e-6)
    if float(exponent) < 1:
        # The largest such exponent: a little more falls below the target.
        more = (log_weights * (exponent + 1e-6)).masked_fill(log_weights == -math.inf, -math.inf)
        assert float(resampling.effective_sample_size(more)) <= target * (1 + 1e-3)


def test_temper_to_the_rounding_of_float64() -> None:
    log_weights = torch.tensor([0.0, -1.0], dtype=torch.float64)
    target = float(resampling.effective_sample_size(0.3 * log_weights))
    assert float(resampling.temper(log_weights, target)) == pytest.approx(0.3, abs=1e-10)


def test_temper_of_equal_weights_is_one() -> None:
    for count in range(1, 50):
        assert resampling.temper(torch.zeros(count, dtype=torch.float64), count) == 1


def test_temper_limits() -> None:
    log_weights = torch.tensor([0.0, -1.0, -math.inf])
    assert resampling.temper(log_weights, 1.0) == 1
    assert resampling.temper(log_weights, 3.0) == 0  # two positive weights cannot give three
    assert torch.isnan(resampling.temper(torch.tensor([0.0, math.nan]), 1.5))
    for target in (0.5, 3.5, math.nan):
        with pytest.raises(ValueError, match="target_ess must be a finite number"):
            resampling.temper(log_weights, target)


def test_distinct_rows_of_a_pattern() -> None:
    pair = torch.zeros(2, 8)
    pair[0, [0, 6]] = pair[1, [2, 4]] = 2**-0.5
    assert resampling.count_distinct(pair) == 2
    signs = 2.0 * (torch.arange(2**12)[:, None] >> torch.arange(16) & 1) - 1.0
    assert resampling.count_distinct(signs / 4.0) == 2**12
    assert resampling.count_distinct(torch.eye(256)) == 256


def test_equal_rows_have_equal_hashes_whatever_their_zero() -> None:
    rows = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]])
    hashes = resampling.hash_rows(rows)
    assert hashes[0] == hashes[1] != hashes[2]
    assert resampling.hash_rows(rows.bfloat16()).tolist() == hashes.tolist()


def test_count_distinct() -> None:
    rows = torch.randn(40, 5, generator=torch.Generator().manual_seed(4))
    assert resampling.count_distinct(rows) == 40
    assert resampling.count_distinct(rows[torch.arange(100) % 7]) == 7
    assert resampling.count_distinct(rows.double()[[0, 0, 1]]) == 2
    assert resampling.count_distinct(rows[:0]) == 0


def test_float64_rows_are_told_apart() -> None:
    rows = torch.tensor([[1.0, 2.0], [1.0 + 1e-12, 2.0]], dtype=torch.float64)
    assert resampling.count_distinct(rows) == 2


def select(
    log_weights: torch.Tensor, ages: torch.Tensor, n: int, *, resample: bool, seed: int
) -> resampling.Selection:
    noise = torch.rand(
        len(ages), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    return resampling.select(log_weights, ages, n, resample=torch.tensor(resample), noise=noise)


def pool(n: int, newcomers: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    log_weights = torch.randn(n + newcomers, dtype=torch.float64, generator=generator)
    ages = torch.randint(0, 5, (n + newcomers,), generator=generator)
    ages[n:] = 0
    return log_weights, ages


def entries(selected: resampling.Selection, n: int) -> list[int]:
    """The members of the pool in each entry of the bank."""
    places = torch.arange(n)
    if selected.slots is None:
        return selected.members.tolist()
    return places.index_copy(0, selected.slots, selected.members).tolist()


@given(st.integers(1, 40), st.integers(1, 20), st.booleans(), st.integers(0, 2**31))
@settings(deadline=None)
def test_selection(n: int, newcomers: int, resample: bool, seed: int) -> None:
    """Every entry is a member of its own, the youngest or those that the weights draw."""
    log_weights, ages = pool(n, newcomers, seed)
    found = select(log_weights, ages, n, resample=resample, seed=seed)
    kept = entries(found, n)
    assert len(set(kept)) == n
    assert found.ages.tolist() == ages[kept].tolist()
    if resample:
        drawn = resampling.without_replacement(
            log_weights, n, generator=torch.Generator().manual_seed(seed)
        )
        assert set(kept) == set(drawn.tolist())
        assert found.log_weights.tolist() == [-math.log(n)] * n
    else:
        assert sorted(ages[kept].tolist()) == sorted(ages.tolist())[:n]
        expected = log_weights[kept].log_softmax(dim=0)
        torch.testing.assert_close(found.log_weights, expected)


def test_a_large_bank_changes_in_as_many_places_as_there_are_newcomers() -> None:
    log_weights, ages = pool(100, 10, 0)
    found = select(log_weights, ages, 100, resample=True, seed=0)
    assert found.slots is not None
    assert len(set(found.slots.tolist())) == 10


def test_equal_ages_leave_at_random() -> None:
    ages = torch.ones(40, dtype=torch.int64)
    kept = {
        tuple(
            sorted(entries(select(torch.zeros(40).double(), ages, 20, resample=False, seed=s), 20))
        )
        for s in range(20)
    }
    assert len(kept) == 20


@pytest.mark.parametrize("n", [16, 100])
@pytest.mark.parametrize("resample", [False, True])
def test_selection_is_one_graph(n: int, resample: bool) -> None:
    torch.compiler.reset()
    log_weights, ages = pool(n, 10, 0)
    noise = torch.rand(n + 10, dtype=torch.float64)
    options = {"resample": torch.tensor(resample), "noise": noise}
    compiled = torch.compile(resampling.select, backend="aot_eager", fullgraph=True)
    found = compiled(log_weights, ages, n, **options)
    expected = resampling.select(log_weights, ages, n, **options)
    assert entries(found, n) == entries(expected, n)
    torch.testing.assert_close(found.log_weights, expected.log_weights)
