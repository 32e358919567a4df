import math
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any

import lightly.loss
import lightly.models.modules
import numpy as np
import pytest
import torch
from lightly.loss import NTXentLoss
from lightly.loss.regularizer import CO2Regularizer
from lightly.models.modules import NNMemoryBankModule
from lightly.models.modules.memory_bank import MemoryBankModule
from packaging.version import Version
from torch import nn

import gmje_plugin
from gmje_plugin import SMCMemoryBankModule, register, swap_memory_bank, unregister


def test_swaps_every_plain_bank_and_leaves_the_rest() -> None:
    model = nn.ModuleDict(
        {
            "moco": NTXentLoss(0.07, (32, 8)),
            "nested": nn.Sequential(NTXentLoss(0.2, (16, 8))),
            "co2": CO2Regularizer(t_consistency=0.03, memory_bank_size=(24, 8)),
            "simclr": NTXentLoss(0.5),
            "nnclr": NNMemoryBankModule((16, 8)),
        }
    )
    simclr, nnclr = model["simclr"].memory_bank, model["nnclr"]
    assert swap_memory_bank(model, ess_threshold=None, resampling="systematic", seed=3) == 3
    for criterion, size, temperature in (
        (model["moco"], (32, 8), 0.07),
        (model["nested"][0], (16, 8), 0.2),
        (model["co2"], (24, 8), 0.03),
    ):
        bank = criterion.memory_bank
        assert type(bank) is SMCMemoryBankModule
        assert bank.size == size
        assert bank.temperature == temperature
        assert (bank.ess_threshold, bank.resampling, bank.seed) == (None, "systematic", 3)
    assert model["simclr"].memory_bank is simclr
    assert model["nnclr"] is nnclr
    with pytest.raises(ValueError, match="module must hold a MemoryBankModule"):
        swap_memory_bank(model)


def test_shared_bank_stays_shared_and_keeps_its_options() -> None:
    criterion = NTXentLoss(0.1, (16, 8))
    other = NTXentLoss(0.1, 0)
    other.memory_bank = criterion.memory_bank
    criterion.memory_bank.gather_distributed = True
    criterion.memory_bank.feature_dim_first = False
    model = nn.ModuleList([criterion, other]).to("meta").eval()
    assert swap_memory_bank(model) == 1
    bank = criterion.memory_bank
    assert other.memory_bank is bank
    assert bank.gather_distributed
    assert not bank.feature_dim_first
    assert not bank.training
    assert bank.bank.device.type == "meta"


def test_bank_under_two_names_of_one_owner() -> None:
    criterion = NTXentLoss(0.1, (16, 8))
    criterion.second_name = criterion.memory_bank
    assert swap_memory_bank(criterion) == 1
    assert criterion.second_name is criterion.memory_bank
    assert type(criterion.memory_bank) is SMCMemoryBankModule


def test_owners_of_different_temperatures() -> None:
    first, second = NTXentLoss(0.1, (16, 8)), NTXentLoss(0.2)
    second.memory_bank = first.memory_bank
    model = nn.ModuleList([first, second])
    with pytest.raises(ValueError, match=r"temperature must be given.*\[0.1, 0.2\]"):
        swap_memory_bank(model)
    assert type(first.memory_bank) is not SMCMemoryBankModule  # nothing half done
    assert swap_memory_bank(model, temperature=0.3) == 1
    assert first.memory_bank.temperature == 0.3


def test_bank_without_a_tempered_owner_and_bad_options() -> None:
    model = nn.ModuleDict({"bank": NTXentLoss(0.1, (16, 8)).memory_bank})
    for options in ({"temperature": 0.0}, {"temperature": math.nan}, {"resampling": "fifo"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            swap_memory_bank(model, **options)
    assert swap_memory_bank(model) == 1
    assert model["bank"].temperature is None
    with pytest.raises(ValueError, match="Linear holds none"):
        swap_memory_bank(nn.Linear(2, 2))


@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.25),
        np.float32(0.25),
        torch.tensor(0.25),
        torch.tensor([0.25]),
        nn.Parameter(torch.tensor(0.25)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_temperature_of_any_kind_of_number(value: object) -> None:
    criterion = NTXentLoss(0.1, (16, 8))
    criterion.temperature = value
    swap_memory_bank(criterion)
    assert criterion.memory_bank.temperature == 0.25


@pytest.mark.parametrize("value", ["a tenth", [0.1, 0.2], torch.tensor([0.1, 0.2])])
def test_temperature_that_is_no_number(value: object) -> None:
    criterion = NTXentLoss(0.1, (16, 8))
    criterion.temperature = value
    with pytest.raises(ValueError, match="temperature must be given"):
        swap_memory_bank(criterion)


def test_the_list_of_queues_of_swav() -> None:
    """lightly's examples/pytorch/swav_queue.py holds them in an nn.ModuleList."""
    model = nn.Module()
    model.queues = nn.ModuleList([MemoryBankModule(size=(16, 8)) for _ in range(2)])
    assert swap_memory_bank(model) == 2
    assert all(type(queue) is SMCMemoryBankModule for queue in model.queues)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        # lightly's examples/pytorch/smog.py: a variable
        (lambda: MemoryBankModule((16, 8)), "got the MemoryBankModule itself"),
        (lambda: [MemoryBankModule((16, 8))], "got list: put several banks in an nn.ModuleList"),
        (lambda: NNMemoryBankModule((16, 8)), "make an SMCNNMemoryBankModule"),
        (lambda: SMCMemoryBankModule((16, 8)), "holds SMC banks already"),
        (lambda: NTXentLoss(0.1), "holds one of size 0"),
        (lambda: holding([MemoryBankModule((16, 8))]), "has them in a list or dict"),
        (lambda: holding({"queue": MemoryBankModule((16, 8))}), "has them in a list or dict"),
        (lambda: holding(nn.Linear(2, 2)), "Module holds none"),
    ],
)
def test_a_refusal_says_why(make: Callable[[], Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        swap_memory_bank(make())


def holding(value: Any) -> nn.Module:
    module = nn.Module()
    module.queues = value
    return module


@pytest.mark.skipif(
    Version(version("lightly")) >= Version("1.6"), reason="lightly 1.6 has no lazily sized bank"
)
@pytest.mark.filterwarnings("ignore:Memory bank size")
@pytest.mark.parametrize("used", [False, True])
def test_lazily_sized_bank(used: bool) -> None:
    criterion = NTXentLoss(0.1, 16)
    if used:
        criterion(torch.randn(4, 8), torch.randn(4, 8))
    assert swap_memory_bank(criterion) == 1
    criterion(torch.randn(4, 8, requires_grad=True), torch.randn(4, 8)).backward()
    assert criterion.memory_bank.bank.shape == (16, 8)
    assert criterion.memory_bank.count == 4


def test_register_is_idempotent_and_undone() -> None:
    before = set(vars(lightly.loss)), set(vars(lightly.models.modules))
    assert not hasattr(lightly.loss, "SMCNTXentLoss")  # importing the plugin patches nothing
    register()
    register()
    import lightly.models.modules as registered
    from lightly.loss import GJEEntropyLoss, SMCNTXentLoss
    from lightly.models.modules import GMJEMDNHead

    assert SMCNTXentLoss is gmje_plugin.SMCNTXentLoss
    assert GJEEntropyLoss is gmje_plugin.GJEEntropyLoss
    assert GMJEMDNHead is gmje_plugin.GMJEMDNHead
    assert registered.SMCMemoryBankModule is SMCMemoryBankModule
    unregister()
    unregister()
    assert (set(vars(lightly.loss)), set(vars(lightly.models.modules))) == before


def test_register_does_not_overwrite(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = object()
    monkeypatch.setattr(lightly.loss, "SMCNTXentLoss", theirs, raising=False)
    with pytest.raises(ValueError, match=r"lightly.loss has another SMCNTXentLoss"):
        register()
    assert not hasattr(lightly.models.modules, "SMCMemoryBankModule")
    unregister()
    assert lightly.loss.SMCNTXentLoss is theirs


@pytest.mark.parametrize("where", ["gmje_plugin.loss", "gmje_plugin.modules"])
def test_every_public_class_is_registered(where: str) -> None:
    package = import_module(where)
    place = lightly.loss if where.endswith("loss") else lightly.models.modules
    register()
    try:
        for name in package.__all__:
            assert getattr(place, name) is getattr(package, name)
    finally:
        unregister()


def test_a_swapped_bank_has_the_options_given() -> None:
    options = {
        "temperature": 0.3,
        "resampling": "systematic",
        "ess_threshold": 0.25,
        "count_own_query": True,
        "seed": 7,
    }
    criterion = NTXentLoss(0.3, (16, 8))
    swap_memory_bank(criterion, **options)
    assert {name: getattr(criterion.memory_bank, name) for name in options} == options
