import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from gmje_plugin import log_sum_exp
from gmje_plugin.log_sum_exp import NegativesLogSumExp, column_log_sum_exp, finite_rows


def unit_rows(rows: int, dim: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, dim, generator=generator, dtype=dtype), dim=1)


@pytest.mark.parametrize("elements", [7, 60, 2**19])
@pytest.mark.parametrize("skip_diagonal", [False, True])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_columns(
    elements: int, skip_diagonal: bool, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(log_sum_exp._CHUNK_ELEMENTS, "cpu", elements)
    queries, points = scale * unit_rows(6), scale * unit_rows(6, seed=1)
    logits = queries @ points.T / 0.01
    if skip_diagonal:
        logits = logits.masked_fill(torch.eye(6, dtype=torch.bool), -math.inf)
    got = column_log_sum_exp(queries, points, temperature=0.01, skip_diagonal=skip_diagonal)
    torch.testing.assert_close(got, logits.logsumexp(dim=0))


def test_columns_leave_bad_queries_out() -> None:
    queries, points = unit_rows(5), unit_rows(7, seed=1)
    good = torch.tensor([True, False, True, True, False])
    dirty = queries.clone()
    dirty[1, 2], dirty[4, 0] = math.nan, -math.inf
    assert torch.equal(finite_rows(dirty), good)
    expected = column_log_sum_exp(queries[good], points, temperature=0.1)
    torch.testing.assert_close(column_log_sum_exp(dirty, points, temperature=0.1), expected)
    none = column_log_sum_exp(torch.full((2, 4), math.nan), points.float(), temperature=0.1)
    assert (none == -math.inf).all()
    assert column_log_sum_exp(queries, points[:0], temperature=0.1).shape == (0,)


@settings(deadline=None, max_examples=60)
@given(
    temperature=st.sampled_from([0.001, 0.005, 0.02, 0.1, 1.0, 100.0]),
    hardness=st.sampled_from([0.0, 0.5, 1.3]),
    particles=st.integers(1, 20),
    weighted=st.booleans(),
    elements=st.sampled_from([9, 2**19]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    bad=st.booleans(),
)
def test_sums(
    temperature: float,
    hardness: float,
    particles: int,
    weighted: bool,
    elements: int,
    dtype: torch.dtype,
    bad: bool,
) -> None:
    queries, bank = unit_rows(5, dtype=dtype), unit_rows(particles, seed=1, dtype=dtype)
    log_weights = torch.linspace(-2, 1, particles, dtype=dtype) if weighted else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(log_sum_exp._CHUNK_ELEMENTS, "cpu", elements)
        rows, importance, _ = NegativesLogSumExp.apply(
            queries, bank, log_weights, temperature, hardness
        )
        dirty = queries.clone()
        dirty[2] = math.nan if bad else dirty[2]
        columns = NegativesLogSumExp.apply(dirty, bank, log_weights, temperature, hardness)[2]
    logits = queries.double() @ bank.double().T / temperature
    m = log_weights.double() if log_weights is not None else torch.zeros(particles).double()
    counted = [0, 1, 3, 4] if bad else slice(None)
    tolerance = {"rtol": 1e-5, "atol": 1e-5 / temperature if dtype == torch.float32 else 1e-7}
    for got, expected in (
        (rows, torch.logsumexp((1 + hardness) * logits + m, dim=1)),
        (columns, torch.logsumexp(logits[counted], dim=0)),
    ):
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), expected, **tolerance)
    if hardness > 0:
        expected = torch.logsumexp(hardness * logits + m, dim=1)
        torch.testing.assert_close(importance.double(), expected, **tolerance)


@pytest.mark.parametrize("temperature", [0.002, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradcheck(temperature: float, weighted: bool) -> None:
    """At 0.002 the sums overflow float64 and take the shifted path."""
    bank = unit_rows(24, seed=1)
    log_weights = torch.linspace(-1, 1, 24, dtype=torch.float64) if weighted else None

    def rows(queries: Tensor) -> Tensor:
        result: Tensor = NegativesLogSumExp.apply(queries, bank, log_weights, temperature, 0.0)[0]
        return result

    assert torch.autograd.gradcheck(rows, unit_rows(5).requires_grad_())


@pytest.mark.parametrize("temperature", [0.002, 0.1])
@pytest.mark.parametrize("hardness", [0.0, 0.5])
@pytest.mark.parametrize("first", [0, 3])
def test_negatives_of_the_batch(temperature: float, hardness: float, first: int) -> None:
    """Against a dense matrix, with the gradients to keys and queries, the own ones left out."""
    bank, others = unit_rows(7, seed=1), unit_rows(8, seed=2).requires_grad_()
    keys = unit_rows(8, seed=3).requires_grad_()
    own = torch.zeros(5, 8, dtype=torch.bool)
    own[range(5), range(first, first + 5)] = True

    queries = others[first : first + 5]
    rows, importance, columns = NegativesLogSumExp.apply(
        queries, bank, None, temperature, hardness, keys, others, first
    )
    got = torch.autograd.grad(rows.square().sum(), (others, keys))

    logits = [queries @ points.T / temperature for points in (bank, keys, others)]
    logits[1:] = [each.masked_fill(own, -math.inf) for each in logits[1:]]
    torch.testing.assert_close(columns, torch.cat(logits[:2], dim=1).logsumexp(dim=0))
    dense = torch.cat(logits, dim=1)
    harder = hardness * dense.detach() if hardness > 0.0 else 0.0
    expected_rows = (dense + harder).logsumexp(dim=1)
    torch.testing.assert_close(rows, expected_rows)
    if hardness > 0.0:
        torch.testing.assert_close(importance, harder.logsumexp(dim=1))
    expected = torch.autograd.grad(expected_rows.square().sum(), (others, keys))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("temperature", [0.005, 0.02, 0.1])
@pytest.mark.parametrize("log_multiplicity", [-150.0, -104.0, -40.0])
@pytest.mark.parametrize("hardness", [0.0, 0.5])
def test_all_the_mass_on_a_distant_particle(
    temperature: float, log_multiplicity: float, hardness: float
) -> None:
    """The nearest particle's weight underflows float32, and so does the distant one's product."""
    query = torch.tensor([[1.0, 0.0]])
    bank = torch.cat([query, -query])
    log_m = torch.tensor([log_multiplicity, 0.0])
    got, expected = [], []
    for results, dtype in ((got, torch.float32), (expected, torch.float64)):
        q = query.to(dtype).clone().requires_grad_()
        if dtype == torch.float32:
            rows = NegativesLogSumExp.apply(q, bank, log_m, temperature, hardness)[0]
        else:
            logits = q @ bank.T.double() / temperature
            rows = torch.logsumexp(logits + hardness * logits.detach() + log_m, dim=1)
        rows.sum().backward()
        results.extend([rows.detach().double(), q.grad.double()])
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=1e-4 / temperature)


@pytest.mark.parametrize("temperature", [0.001, 0.1])
def test_hard_gradient_stops_at_the_importance(temperature: float) -> None:
    queries, bank = unit_rows(5).requires_grad_(), unit_rows(24, seed=1)
    rows = NegativesLogSumExp.apply(queries, bank, None, temperature, 0.5)[0]
    (got,) = torch.autograd.grad(rows.sum(), queries)
    logits = queries @ bank.T / temperature
    expected_rows = torch.logsumexp(logits + 0.5 * logits.detach(), dim=1)
    (expected,) = torch.autograd.grad(expected_rows.sum(), queries)
    torch.testing.assert_close(got, expected)


def test_keeps_nothing_of_the_size_of_the_bank() -> None:
    saved: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    queries, bank = unit_rows(5).requires_grad_(), unit_rows(500, seed=1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        NegativesLogSumExp.apply(queries, bank, None, 0.1, 0.0)
    assert saved == [queries.numel()]
