"""What a loss, head or bank shows of itself."""

import inspect
from collections.abc import Callable

import pytest
from torch import nn

from gmje_plugin import (
    GJEDualLoss,
    GJEEntropyLoss,
    GJENLLLoss,
    GMJEMDNHead,
    GMJEMDNLoss,
    GMJEPrototypeLoss,
    HSICLoss,
    JointSMCLoss,
    SMCMemoryBankModule,
    SMCNNMemoryBankModule,
    SMCNTXentLoss,
)


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (
            lambda: SMCMemoryBankModule((16, 4), seed=3),
            "SMCMemoryBankModule(size=(16, 4), gather_distributed=False, feature_dim_first=True, "
            "temperature=None, resampling='without_replacement', ess_threshold=0.5, "
            "count_own_query=False, seed=3)",
        ),
        (lambda: SMCMemoryBankModule(0), "SMCMemoryBankModule(size=(0,), "),
        (lambda: SMCNNMemoryBankModule((16, 4)), "SMCNNMemoryBankModule(size=(16, 4), "),
        (
            lambda: SMCNTXentLoss(0.1, (16, 4)),
            "SMCNTXentLoss(\n  temperature=0.1, memory_bank_size=(16, 4), "
            "gather_distributed=False, in_batch_negatives=True, weighted=False, hardness=0.0",
        ),
        (lambda: GJEEntropyLoss(0.3), "GJEEntropyLoss(weight=0.3, covariance='marginal', "),
        (lambda: GJENLLLoss(4), "GJENLLLoss(\n  input_dim=4, covariance='ema', momentum=0.99"),
        (lambda: GMJEMDNLoss(4), "GMJEMDNLoss(\n  input_dim=4, guard='entropy', "),
        (lambda: GMJEMDNHead(4, 8, 4), "GMJEMDNHead(\n  input_dim=4, hidden_dim=8, output_dim=4, "),
        (lambda: GMJEPrototypeLoss(4, 2), "GMJEPrototypeLoss(\n  input_dim=4, num_prototypes=2, "),
        (lambda: GJEDualLoss(), "GJEDualLoss(kernel='rbf', length_scale=1.0, "),
        (
            lambda: GJEDualLoss(length_scale=0.5, learn_length_scale=True),
            "GJEDualLoss(kernel='rbf', length_scale=0.5, learn_length_scale=True, ",
        ),
        (lambda: HSICLoss(), "HSICLoss(kernel='rbf', length_scale=None, normalized=True, "),
        (lambda: JointSMCLoss(4, 8), "JointSMCLoss(\n  input_dim=4, num_particles=8, "),
    ],
)
def test_options_are_attributes_and_shown(make: Callable[[], nn.Module], shown: str) -> None:
    module = make()
    assert repr(module).startswith(shown)
    missing = [
        name for name in inspect.signature(type(module)).parameters if not hasattr(module, name)
    ]
    assert missing == []


def test_repr_follows_what_was_changed() -> None:
    criterion = SMCNTXentLoss(0.1, (16, 4))
    criterion.temperature = 0.2
    assert "temperature=0.2" in repr(criterion)
    swapped = nn.ModuleDict({"bank": SMCMemoryBankModule((16, 4), ess_threshold=None)})
    assert "ess_threshold=None" in repr(swapped)
