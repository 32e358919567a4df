import copy
import itertools
import math
import warnings
from typing import Any

import pytest
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules.memory_bank import MemoryBankModule
from torch import Tensor
from torch.nn.functional import normalize

from gmje_plugin import SMCMemoryBankModule, SMCNTXentLoss, log_sum_exp
from tests.references.smc import smc_ntxent


def batch_of(rows: int, dim: int = 8, seed: int = 0, **options: Any) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    out0 = torch.randn(rows, dim, generator=generator, **options)
    return out0, out0 + torch.randn(rows, dim, generator=generator, **options)


def full(criterion: SMCNTXentLoss, seed: int = 100) -> SMCNTXentLoss:
    size, dim = criterion.memory_bank.size
    while criterion.memory_bank.count < size:
        criterion.memory_bank.update(normalize(batch_of(8, dim, seed)[0], dim=1))
        seed += 1
    return criterion


def value_and_gradients(loss_fn: Any, out0: Tensor, out1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    out0, out1 = out0.clone().requires_grad_(), out1.clone().requires_grad_()
    loss = loss_fn(out0, out1)
    loss.backward()
    return loss.detach(), out0.grad, out1.grad


def test_equals_lightly_over_the_same_bank() -> None:
    """The limit case: no extras and a full bank, values, gradients, and a FIFO queue's life."""
    ours = full(
        SMCNTXentLoss(
            0.2,
            memory_bank=SMCMemoryBankModule((32, 8), ess_threshold=0.0),
            in_batch_negatives=False,
        )
    )
    stock = NTXentLoss(0.2, memory_bank_size=(32, 8))
    stock.memory_bank.bank = ours.memory_bank.bank.clone()
    for seed in range(8):
        batch = batch_of(8, seed=seed)
        for got, expected in zip(
            value_and_gradients(ours, *batch), value_and_gradients(stock, *batch), strict=True
        ):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_second_derivatives_are_an_error() -> None:
    for options in ({}, {"in_batch_negatives": False}):
        criterion = full(SMCNTXentLoss(0.2, (32, 8), **options)).eval()
        out0, out1 = batch_of(8)
        loss = criterion(out0.requires_grad_(), out1)
        with pytest.raises(RuntimeError, match="differentiated once, not with create_graph=True"):
            torch.autograd.grad(loss, out0, create_graph=True)


def test_views_the_wrong_way_round_are_warned_of() -> None:
    """Only queries have a gradient in MoCo: without one, lightly's bank is not updated either."""
    criterion = SMCNTXentLoss(0.2, (32, 8))
    out0, out1 = batch_of(8)
    out1.requires_grad_()
    with pytest.warns(
        UserWarning, match=r"the bank is not updated. The queries come first"
    ) as seen:
        criterion(out0, out1)
    assert seen[0].filename == __file__
    assert criterion.memory_bank.count == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        criterion(out1, out0)
        criterion(x0=out1, x1=out0)  # as another of lightly's losses calls them
        criterion.eval()(out0, out1)
    assert criterion.memory_bank.count == 16


def test_size_zero_is_lightlys_simclr_loss() -> None:
    batch = batch_of(8)
    for got, expected in zip(
        value_and_gradients(SMCNTXentLoss(0.2), *batch),
        value_and_gradients(NTXentLoss(0.2), *batch),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


OPTIONS = list(itertools.product([True, False], [True, False], [0.0, 0.5, 1.0]))
TEMPERATURES = [0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 10.0]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("in_batch", "weighted", "hardness"), OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_at_every_temperature(
    temperature: float, in_batch: bool, weighted: bool, hardness: float, dtype: torch.dtype
) -> None:
    criterion = full(
        SMCNTXentLoss(
            temperature,
            memory_bank=SMCMemoryBankModule((40, 8), ess_threshold=0.0),
            in_batch_negatives=in_batch,
            weighted=weighted,
            hardness=hardness,
        )
    )
    for seed in (1, 2):  # leaves unequal weights behind
        criterion.memory_bank.update(*(normalize(out, dim=1) for out in batch_of(6, seed=seed)))
    bank, log_weights = (
        criterion.memory_bank.bank.clone(),
        criterion.memory_bank.log_weights.clone(),
    )
    out0, out1 = batch_of(6, dtype=dtype)

    def reference(out0: Tensor, out1: Tensor) -> Tensor:
        return smc_ntxent(
            out0,
            out1,
            bank,
            log_weights if weighted else None,
            temperature=temperature,
            in_batch_negatives=in_batch,
            hardness=hardness,
        )

    got = value_and_gradients(criterion, out0, out1)
    expected = value_and_gradients(reference, out0.double(), out1.double())
    # Logits are products over the temperature: their float32 rounding error grows with 1 / T.
    rtol = 1e-9 if dtype == torch.float64 else 2e-6 * max(1.0, 1.0 / temperature)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(
            ours.double(), theirs, rtol=rtol, atol=rtol * max(float(theirs.abs().max()), 1e-3)
        )


@pytest.mark.parametrize("temperature", [0.005, 0.1])
@pytest.mark.parametrize("hardness", [0.0, 0.5])
def test_chunks_do_not_matter(
    temperature: float, hardness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven columns at a time, the last chunk smaller, give what one chunk gives."""
    results = []
    for elements in (2**19, 6 * 7):
        monkeypatch.setitem(log_sum_exp._CHUNK_ELEMENTS, "cpu", elements)
        criterion = full(SMCNTXentLoss(temperature, (40, 8), hardness=hardness, weighted=True))
        values = value_and_gradients(criterion, *batch_of(6, dtype=torch.float64))
        results.append((*values, criterion.memory_bank.bank, criterion.memory_bank.log_weights))
    for one, many in zip(*results, strict=True):
        torch.testing.assert_close(one, many, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("paper", [False, True])
def test_updates_the_bank_as_the_bank_itself_does(paper: bool) -> None:
    """The column sums of the loss's pass are the weights the bank computes alone."""
    make = SMCMemoryBankModule.paper if paper else SMCMemoryBankModule
    criterion = full(SMCNTXentLoss(0.1, memory_bank=make((32, 8), seed=3)))
    alone = make((32, 8), seed=3, temperature=0.1)
    alone.load_state_dict(criterion.memory_bank.state_dict())
    for seed in range(6):
        out0, out1 = batch_of(8, seed=seed)
        criterion(out0.requires_grad_(), out1)
        alone(normalize(out1, dim=1), update=True, queries=normalize(out0.detach(), dim=1))
        assert torch.equal(criterion.memory_bank.bank, alone.bank)
        torch.testing.assert_close(
            criterion.memory_bank.log_weights, alone.log_weights, rtol=1e-4, atol=1e-5
        )
        alone.load_state_dict(criterion.memory_bank.state_dict())


def test_filling_masks_the_places_not_yet_filled() -> None:
    criterion = SMCNTXentLoss(0.2, (32, 8), in_batch_negatives=False)
    first = batch_of(8, seed=0)
    loss, grad0, _ = value_and_gradients(criterion, *first)
    assert loss == 0  # no negatives yet
    assert (grad0 == 0).all()
    second = batch_of(8, seed=1)
    expected = smc_ntxent(
        *second,
        normalize(first[1], dim=1),
        None,
        temperature=0.2,
        in_batch_negatives=False,
        hardness=0.0,
    )
    torch.testing.assert_close(
        value_and_gradients(criterion, *second)[0].double(), expected, rtol=1e-5, atol=1e-6
    )


def test_weights_are_uniform_while_the_bank_fills() -> None:
    plain, weighted = (SMCNTXentLoss(0.2, (32, 8), weighted=each) for each in (False, True))
    for seed in range(3):
        batch = batch_of(8, seed=seed)
        expected = value_and_gradients(plain, *batch)
        torch.testing.assert_close(value_and_gradients(weighted, *batch), expected)


def test_bank_is_constant_without_a_gradient() -> None:
    criterion = full(SMCNTXentLoss(0.2, (32, 8)))
    state = {name: value.clone() for name, value in criterion.memory_bank.state_dict().items()}
    criterion(*batch_of(8))
    with torch.no_grad():
        criterion(*batch_of(8))
    for name, value in criterion.memory_bank.state_dict().items():
        assert torch.equal(value, state[name])


def test_backward_survives_later_updates() -> None:
    criterion = full(SMCNTXentLoss(0.2, (32, 8)))
    other = full(SMCNTXentLoss(0.2, (32, 8)))
    out0, out1 = batch_of(8)
    expected = value_and_gradients(other, out0, out1)[1]
    out0.requires_grad_()
    losses = [criterion(out0, out1), criterion(out0.detach().requires_grad_(), out1)]
    losses[0].backward()
    torch.testing.assert_close(out0.grad, expected)


def test_small_losses_do_not_cancel() -> None:
    """A positive at 1 and negatives at -1: the loss is exp(-20) of one, in float32."""
    criterion = SMCNTXentLoss(0.1, (1, 2), in_batch_negatives=False)
    query = torch.tensor([[1.0, 0.0]])
    criterion.memory_bank.update(-query)
    torch.testing.assert_close(
        criterion(query, query), torch.tensor(math.exp(-20)), rtol=1e-4, atol=0
    )


def test_symmetrised_moco_with_a_fifo_queue_equals_lightlys() -> None:
    """The criterion twice before one backward pass."""
    bank = SMCMemoryBankModule((32, 8), ess_threshold=0.0)
    ours = full(SMCNTXentLoss(0.2, memory_bank=bank, in_batch_negatives=False))
    stock = NTXentLoss(0.2, memory_bank_size=(32, 8))
    stock.memory_bank.bank = ours.memory_bank.bank.clone()
    for seed in range(4):
        out0, out1 = batch_of(8, seed=seed)
        results = [
            value_and_gradients(
                lambda a, b, c=loss: c(a, b.detach()) + c(b, a.detach()), out0, out1
            )
            for loss in (ours, stock)
        ]
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_compiles() -> None:
    plain, compiled = (full(SMCNTXentLoss(0.1, (32, 8))) for _ in range(2))
    step = torch.compile(compiled, backend="aot_eager")
    for seed in range(3):
        for got, expected in zip(
            value_and_gradients(step, *batch_of(8, seed=seed)),
            value_and_gradients(plain, *batch_of(8, seed=seed)),
            strict=True,
        ):
            torch.testing.assert_close(got, expected)
    assert torch.equal(plain.memory_bank.bank, compiled.memory_bank.bank)


def test_learnable_temperature_is_refused() -> None:
    criterion = SMCNTXentLoss(0.1, (16, 8))
    criterion.temperature = torch.tensor(0.1, requires_grad=True)
    with pytest.raises(ValueError, match="temperature must be a finite number"):
        criterion(*batch_of(4))


def test_terms_add_up() -> None:
    for criterion in (SMCNTXentLoss(0.2), full(SMCNTXentLoss(0.2, (32, 8)))):
        out0, out1 = batch_of(8)
        loss = criterion(out0.requires_grad_(), out1)
        assert set(criterion.terms) == {"alignment", "uniformity"}
        assert not any(term.requires_grad for term in criterion.terms.values())
        torch.testing.assert_close(sum(criterion.terms.values()), loss.detach())
        cosine = torch.cosine_similarity(out0, out1).mean().detach()
        torch.testing.assert_close(criterion.terms["alignment"], -cosine / 0.2)


@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_bad_rows_make_the_loss_nan_and_stay_out_of_the_bank(
    in_batch: bool, value: float, which: int
) -> None:
    criterion = full(SMCNTXentLoss(0.1, (32, 8), in_batch_negatives=in_batch))
    batch = batch_of(8)
    batch[which][2, 3] = value
    assert torch.isnan(criterion(batch[0].requires_grad_(), batch[1]))
    assert torch.isfinite(criterion.memory_bank.bank).all()
    assert torch.isfinite(criterion.memory_bank.log_weights).all()
    assert criterion.memory_bank.diagnostics()["rejected"] == which
    assert torch.isfinite(criterion(*batch_of(8, seed=5)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_and_autocast_compute_in_float32(dtype: torch.dtype) -> None:
    half = [out.to(dtype) for out in batch_of(8)]
    wide = [out.float() for out in half]
    expected = value_and_gradients(full(SMCNTXentLoss(0.05, (32, 8))), *wide)
    got = value_and_gradients(full(SMCNTXentLoss(0.05, (32, 8))), *half)
    assert got[0].dtype == torch.float32
    assert got[1].dtype == dtype
    torch.testing.assert_close(got[0], expected[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = full(SMCNTXentLoss(0.05, (32, 8)))(*wide)
    torch.testing.assert_close(mixed, expected[0])


@pytest.mark.parametrize("wide", [0, 1])
def test_one_float64_view_makes_float64(wide: int) -> None:
    batch = list(batch_of(8))
    batch[wide] = batch[wide].double()
    assert SMCNTXentLoss(0.05, (32, 8))(*batch).dtype == torch.float64


def test_float32_after_float64() -> None:
    """The bank stays float64: what is narrower is computed in its own dtype."""
    criterion, narrow = (full(SMCNTXentLoss(0.05, (32, 8))) for _ in range(2))
    wide = [out.double() for out in batch_of(8, seed=3)]
    assert criterion(wide[0].requires_grad_(), wide[1]).dtype == torch.float64
    narrow(wide[0].float().detach().requires_grad_(), wide[1].float())
    loss, gradient, _ = value_and_gradients(criterion, *batch_of(8, seed=4))
    expected = value_and_gradients(narrow, *batch_of(8, seed=4))
    assert loss.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close((loss, gradient), expected[:2])


def test_edges() -> None:
    one_row = full(SMCNTXentLoss(0.1, (32, 8)))
    assert torch.isfinite(value_and_gradients(one_row, *batch_of(1))[1]).all()
    larger_than_bank = SMCNTXentLoss(0.1, (4, 8))
    for seed in range(3):
        loss, grad0, _ = value_and_gradients(larger_than_bank, *batch_of(9, seed=seed))
        assert torch.isfinite(loss)
        assert torch.isfinite(grad0).all()
    assert larger_than_bank.memory_bank.count == 4
    constant = SMCNTXentLoss(0.1, (16, 8))
    for _ in range(4):
        loss, grad0, _ = value_and_gradients(constant, torch.ones(8, 8), torch.ones(8, 8))
        assert torch.isfinite(loss)
        assert torch.isfinite(grad0).all()
    zero = SMCNTXentLoss(0.1, (16, 8))
    assert torch.isfinite(zero(torch.zeros(8, 8, requires_grad=True), torch.zeros(8, 8)))
    first_row = SMCNTXentLoss(0.1, (16, 8), hardness=0.5)
    assert first_row(*batch_of(1)) == 0  # no negatives at all


def test_takes_a_bank_and_leaves_its_options_alone() -> None:
    bank = SMCMemoryBankModule((16, 8))
    criterion = SMCNTXentLoss(0.07, memory_bank=bank)
    assert criterion.memory_bank is bank
    assert criterion.memory_bank_size == (16, 8)
    assert SMCNTXentLoss(memory_bank_size=0).memory_bank_size == 0
    SMCNTXentLoss(0.2, memory_bank=bank)  # nobody gave the bank a temperature
    assert bank.temperature is None


@pytest.mark.parametrize("in_batch_negatives", [True, False])
def test_the_bank_is_weighted_by_the_temperature_of_the_loss_at_the_time(
    in_batch_negatives: bool,
) -> None:
    ours = full(SMCNTXentLoss(0.07, (32, 8), in_batch_negatives=in_batch_negatives))
    reference = copy.deepcopy(ours.memory_bank)
    for seed, temperature in enumerate((0.07, 0.2, 0.5)):  # a schedule
        ours.temperature = temperature
        out0, out1 = batch_of(8, seed=seed)
        ours(out0.requires_grad_(), out1)
        reference.temperature = temperature
        reference.update(normalize(out1, dim=1), normalize(out0.detach(), dim=1))
        torch.testing.assert_close(ours.memory_bank.log_weights, reference.log_weights)


def test_evaluation_mode_leaves_the_bank_alone() -> None:
    criterion = full(SMCNTXentLoss(0.1, (32, 8))).eval()
    before = copy.deepcopy(criterion.state_dict())
    out0, out1 = batch_of(8)
    criterion(out0.requires_grad_(), out1).backward()
    for name, value in criterion.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"temperature": 0.0}, "temperature must be a finite number"),
        ({"temperature": -0.1}, "temperature must be a finite number"),
        ({"temperature": math.nan}, "temperature must be a finite number"),
        ({"memory_bank_size": -1}, "non-negative"),
        ({"memory_bank_size": (4, 8), "hardness": -0.5}, "hardness must be a finite number"),
        ({"weighted": True}, "weighted and hardness need a memory bank"),
        ({"hardness": 0.5}, "weighted and hardness need a memory bank"),
        ({"memory_bank": MemoryBankModule((4, 8))}, "memory_bank must be an SMCMemoryBankModule"),
        (
            {"memory_bank": SMCMemoryBankModule((4, 8)), "memory_bank_size": (4, 8)},
            "exclude each other",
        ),
        (
            {"memory_bank": SMCMemoryBankModule((4, 8), gather_distributed=True)},
            "gather_distributed must be the memory_bank's",
        ),
        (
            {"memory_bank": SMCMemoryBankModule((4, 8), temperature=0.1)},
            "temperature must be the memory_bank's, got 0.5 and 0.1",
        ),
    ],
)
def test_bad_arguments(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SMCNTXentLoss(**options)


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        (((4, 8), (5, 8)), "out0 and out1 must have the same shape"),
        (((4,), (4,)), "out0 must have shape"),
        (((4, 7), (4, 7)), "out1 must have 8 features"),
    ],
)
def test_bad_batches(shapes: tuple[tuple[int, ...], ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SMCNTXentLoss(0.1, (16, 8))(*(torch.randn(shape) for shape in shapes))
