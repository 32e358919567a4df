"""Which classes a memory bank holds: a diagnosis by labels that no loss sees."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from gmje_plugin.resampling import hash_rows

_UNKNOWN = -1
_HASHED = 4  # numbers of a row, enough to tell rows apart


class BankLabels(nn.Module):
    """The label of every entry of any bank, found by comparing its rows before and after a step.

    A row that was there before keeps its label. A new one is a key of the batch, the one closest
    to it. What a bank holds before the first keys come has no label.

    Args:
        size: Entries of the bank, M.

    Attributes:
        false_negatives: At the last update, the share of the bank's entries that were of the class
            of a query, mean over the batch: 0-d. With balanced classes and a fair sample, one over
            their number.
    """

    labels: Tensor
    codes: Tensor
    false_negatives: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("labels", torch.full((size,), _UNKNOWN))
        self.register_buffer("codes", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("false_negatives", torch.zeros(()))

    @torch.no_grad()
    def update(
        self,
        rows: Tensor,  # shape: (M, d)
        keys: Tensor,  # shape: (B, d)
        labels: Tensor,  # shape: (B,)
    ) -> None:
        """Follows an update of the bank by a batch of keys.

        Args:
            rows: What the bank holds after it.
            keys: The batch that came, of any norm.
            labels: Its classes.
        """
        held = self.labels.sort().values
        first, end = (torch.searchsorted(held, labels, right=right) for right in (False, True))
        self.false_negatives = (end - first).sum() / (len(labels) * len(held))
        codes = hash_rows(rows[:, :_HASHED])
        known, order = self.codes.sort()
        indices = torch.searchsorted(known, codes).clamp_max(len(known) - 1)
        stayed = known[indices] == codes
        found = self.labels[order[indices]]
        similarities = rows[~stayed].float() @ normalize(keys.float(), dim=1).T
        best, nearest = similarities.max(dim=1)
        found[~stayed] = torch.where(best > 0.99, labels[nearest], _UNKNOWN)
        self.labels = found
        self.codes = codes
