import io
import math

import pytest
import torch
from torch import nn

from gmje_plugin import SMCMemoryBankModule
from tests.banks import embeddings, full_bank


def test_resumes_exactly_through_a_parent_module_and_a_file() -> None:
    whole = nn.ModuleDict({"criterion": full_bank(temperature=0.05)})
    resumed = nn.ModuleDict({"criterion": SMCMemoryBankModule((32, 8), temperature=0.05)})
    state = whole.state_dict()
    assert sorted(state) == sorted(
        f"criterion.{name}" for name in ("bank", "log_weights", "ages", "step", "count")
    )
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    assert resumed.load_state_dict(torch.load(file, weights_only=True)).missing_keys == []
    for seed in range(10):
        keys, queries = embeddings(8, seed=seed), embeddings(8, seed=77 + seed)
        for parent in (whole, resumed):
            parent["criterion"](keys, update=True, queries=queries)
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), name
        assert whole["criterion"].diagnostics() == resumed["criterion"].diagnostics()


def test_loading_does_not_share_memory() -> None:
    bank, other = full_bank(), SMCMemoryBankModule((32, 8))
    state = bank.state_dict()
    other.load_state_dict(state)
    before = {name: value.clone() for name, value in state.items()}
    other.update(embeddings(8, seed=5))
    for name, value in state.items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(bank.bank, before["bank"])


def test_a_loaded_bank_that_fills_has_the_figures_of_its_entries() -> None:
    bank, resumed = SMCMemoryBankModule((32, 8)), SMCMemoryBankModule((32, 8))
    bank.update(embeddings(8))
    resumed.load_state_dict(bank.state_dict())
    assert resumed.diagnostics()["ess"] == 8
    assert resumed.diagnostics()["ess_ratio"] == 1


@pytest.mark.filterwarnings("error")
def test_a_bank_of_size_zero_misses_no_state() -> None:
    SMCMemoryBankModule(0).load_state_dict({})


def test_a_state_with_a_gradient_leaves_none_on_the_bank() -> None:
    bank, state = SMCMemoryBankModule((32, 8)), full_bank().state_dict()
    bank.load_state_dict(state | {"bank": state["bank"].requires_grad_()})
    assert not bank.bank.requires_grad


def test_checkpoint_without_the_bank_loads_with_a_warning() -> None:
    parent = nn.ModuleDict({"linear": nn.Linear(2, 2), "bank": full_bank()})
    before = parent["bank"].bank.clone()
    with pytest.warns(UserWarning, match=r"no state of 'bank\.'"):
        parent.load_state_dict({f"linear.{k}": v for k, v in parent["linear"].state_dict().items()})
    assert torch.equal(parent["bank"].bank, before)


def test_bad_state() -> None:
    state = full_bank().state_dict()
    with pytest.raises(RuntimeError, match="size mismatch for the bank"):
        SMCMemoryBankModule((16, 8)).load_state_dict(state)
    with pytest.raises(RuntimeError, match="Missing key"):
        SMCMemoryBankModule((32, 8)).load_state_dict({k: state[k] for k in ("bank", "step")})
    state["bank"][3, 2] = math.nan
    with pytest.raises(RuntimeError, match="damaged"):
        SMCMemoryBankModule((32, 8)).load_state_dict(state)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("log_weights", torch.zeros(8)),
        ("ages", torch.zeros(3, dtype=torch.int64)),
        ("count", torch.tensor(1000)),
        ("count", torch.tensor(-1)),
    ],
)
def test_parts_that_do_not_fit(name: str, value: torch.Tensor) -> None:
    state = {**full_bank().state_dict(), name: value}
    with pytest.raises(RuntimeError, match="log_weights, ages or count do not fit"):
        SMCMemoryBankModule((32, 8)).load_state_dict(state)


def test_a_state_kept_aside_stays_of_one_step() -> None:
    bank = full_bank()
    state = bank.state_dict()
    before = {name: value.clone() for name, value in state.items()}
    bank.update(embeddings(8))
    for name, value in state.items():
        assert torch.equal(value, before[name]), name


def test_a_half_checkpoint_does_not_narrow_the_bank() -> None:
    bank = SMCMemoryBankModule((32, 8))
    state = full_bank().state_dict()
    bank.load_state_dict({n: v.half() if v.is_floating_point() else v for n, v in state.items()})
    assert bank.bank.dtype == bank.log_weights.dtype == torch.float32


def test_what_inference_mode_made_can_be_updated_later() -> None:
    bank = SMCMemoryBankModule((20, 8))
    state = full_bank(20, batch=6).state_dict()
    with torch.inference_mode():
        bank.load_state_dict(state)
        bank(embeddings(6).double())
        bank.update(embeddings(6))
        filled = SMCMemoryBankModule((20, 8))
        filled.update(embeddings(50))
        loaded = SMCMemoryBankModule((20, 8))
        loaded.load_state_dict(state)
    for each in (bank, filled, loaded):
        for seed in range(3):
            each.update(embeddings(6, seed=seed))
        assert torch.isfinite(each.log_weights).all()


def test_meta_device_and_default_device() -> None:
    state = full_bank().state_dict()
    parent = nn.ModuleDict({"bank": SMCMemoryBankModule((32, 8))}).to("meta")
    parent.load_state_dict({f"bank.{k}": v for k, v in state.items()}, assign=True)
    assert torch.equal(parent["bank"].bank, state["bank"])
    emptied = SMCMemoryBankModule((32, 8)).to("meta").to_empty(device="cpu")
    emptied.load_state_dict(state)
    assert torch.equal(emptied.bank, state["bank"])
    with torch.device("meta"):
        bank = SMCMemoryBankModule((32, 8))
    bank.update(embeddings(4))
    assert bank.diagnostics()["unique_fraction"] == 1
