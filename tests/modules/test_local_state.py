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
    other.load_state_dict(bank.state_dict())
    before = bank.bank.clone()
    other.update(embeddings(8, seed=5))
    assert torch.equal(bank.bank, before)


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
