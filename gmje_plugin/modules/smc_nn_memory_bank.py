"""An SMC memory bank that answers with nearest neighbours."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from gmje_plugin.modules.smc_memory_bank import SMCMemoryBankModule


class SMCNNMemoryBankModule(SMCMemoryBankModule):
    """Nearest neighbours from an SMC memory bank, in the place of ``NNMemoryBankModule`` in NNCLR.

    State and update are those of ``SMCMemoryBankModule`` (Huang 2026, Eq. 34); the embeddings stand
    in for the queries. Entries have the norm they came with, but are weighted and compared by their
    directions. Until the bank is full, neighbours come from the entries that are filled; lightly's
    bank answers with random vectors then.

    Attributes:
        size: Size of the bank as (num_features, dim).
        gather_distributed: As of ``SMCMemoryBankModule``, like the arguments that follow.
        feature_dim_first: See there; neighbours do not depend on it.
        temperature: See there.
        resampling: See there.
        ess_threshold: See there.
        count_own_query: See there.
        seed: See there.

    Raises:
        ValueError: If an argument is out of its range.

    Examples:
        >>> from gmje_plugin import SMCNNMemoryBankModule
        >>> memory_bank = SMCNNMemoryBankModule(size=(4096, 128))  # was: NNMemoryBankModule
        >>> z0, z1 = torch.randn(2, 64, 128)
        >>> z0 = memory_bank(z0.detach(), update=False)
        >>> z1 = memory_bank(z1.detach(), update=True)
    """

    def forward(  # type: ignore[override] # as in lightly, it has no labels
        self,
        output: Tensor,  # shape: (B, dim)
        update: bool = False,
    ) -> Tensor:  # shape: (B, dim)
        """Returns the nearest entries of the bank as it is and then, if asked, updates it.

        Args:
            output: Embeddings of the batch, shape (B, dim).
            update: Whether they enter the bank.

        Returns:
            The entry of the largest cosine with each, shape (B, dim), without gradient; of the
            random initial entries before the first update.

        Raises:
            ValueError: If a shape, dtype or feature size does not fit, or the size is 0.
        """
        if self.size[0] == 0:
            raise ValueError("size must hold at least one entry to have neighbours, got 0.")
        self.follow(output)
        filled = self.bank[: self.count or None]
        with torch.autocast(device_type=filled.device.type, enabled=False):
            queries = normalize(output.detach().to(filled.dtype), dim=1)
            nearest = (queries @ normalize(filled, dim=1).mT).argmax(dim=1)
        neighbours = filled[nearest].to(output.dtype)
        if update:
            self.update(output)
        return neighbours

    def _score(self, queries: Tensor, points: Tensor, *, skip_diagonal: bool = False) -> Tensor:
        queries, points = normalize(queries, dim=1), normalize(points, dim=1)
        return super()._score(queries, points, skip_diagonal=skip_diagonal)
