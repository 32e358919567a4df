"""Which class every entry of a bank is of, against the labels that its keys came with."""

from __future__ import annotations

import pytest
import torch
from lightly.models.modules.memory_bank import MemoryBankModule
from torch.nn.functional import normalize

from gmje_plugin import SMCMemoryBankModule
from harness.methods.modules.bank_labels import BankLabels

SIZE, DIM, BATCH, CLASSES = 40, 8, 16, 4
BANKS = {
    "lightly": MemoryBankModule((SIZE, DIM)),
    "default": SMCMemoryBankModule((SIZE, DIM)),
    "paper": SMCMemoryBankModule.paper((SIZE, DIM), temperature=0.1),
}


@pytest.mark.parametrize("name", BANKS)
def test_entries_keep_the_labels_of_their_keys(name: str) -> None:
    bank, tracked = BANKS[name], BankLabels(SIZE)
    generator = torch.Generator().manual_seed(0)
    truth: dict[bytes, int] = {}
    before = [-1] * SIZE
    for _ in range(12):
        keys = normalize(torch.randn(BATCH, DIM, generator=generator), dim=1)
        labels = torch.randint(CLASSES, (BATCH,), generator=generator)
        truth |= {
            key.numpy().tobytes(): int(label) for key, label in zip(keys, labels, strict=True)
        }
        bank(keys, update=True)
        rows = bank(keys, update=False)[1].T
        tracked.update(rows, 3.0 * keys, labels)
        same = [label == entry for label in labels.tolist() for entry in before]
        assert float(tracked.false_negatives) == pytest.approx(sum(same) / len(same))
        before = [truth.get(row.numpy().tobytes(), -1) for row in rows.contiguous()]
        assert tracked.labels.tolist() == before
    assert -1 not in before
