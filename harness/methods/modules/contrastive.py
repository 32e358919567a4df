"""SimCLR and MoCo v2, written as in lightly's documentation, with any criterion and bank."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from harness.methods.modules.bank_labels import BankLabels
from harness.methods.modules.base import Method, Step
from harness.methods.modules.momentum import MomentumMethod


class Sum(nn.Module):
    """The sum of two losses of the same embeddings; ``terms`` are the second's."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second: Any = second

    @property
    def terms(self) -> dict[str, Tensor]:
        """Parts of the last loss."""
        found: dict[str, Tensor] = self.second.terms
        return found

    def forward(
        self,
        out0: Tensor,  # shape: (B, output_dim)
        out1: Tensor,  # shape: (B, output_dim)
    ) -> Tensor:  # shape: ()
        """Both losses of the two views' embeddings."""
        loss: Tensor = self.first(out0, out1) + self.second(out0, out1)
        return loss


class SimCLR(Method):
    """SimCLR (Chen et al. 2020) with any head and ``criterion(out0, out1)``.

    So also VICReg (Bardes et al. 2022), GJE with the Gaussian entropy and Parametric GMJE. Of more
    than two views, what is logged beside the loss is of the last two.
    Arguments are those of :class:`Method`.
    """

    def forward(
        self,
        images: Tensor,  # shape: (B, C, H, W)
    ) -> Tensor:  # shape: (B, output_dim)
        """Embeddings of normalised images."""
        embeddings: Tensor = self.projection_head(self.backbone(images))
        return embeddings

    def step(self, views: tuple[Tensor, ...]) -> Step:  # shapes: (B, C, H, W)
        """The criterion's mean over all pairs of views, a composite likelihood for densities."""
        features = self.backbone(views[0])
        embeddings = [self.projection_head(features), *map(self, views[1:])]
        losses = [self.compare(*pair) for pair in combinations(embeddings, 2)]
        return Step(torch.stack(losses).mean(), features)


class MoCo(MomentumMethod):
    """MoCo v2 (Chen et al. 2020) with any ``criterion(query, key)`` that holds a memory bank.

    Arguments are those of :class:`MomentumMethod`, besides ``bank_labels``.
    """

    bank_labels: BankLabels

    @property
    def bank(self) -> Any:
        """The criterion's memory bank."""
        return self.criterion.memory_bank

    def step(self, views: tuple[Tensor, ...]) -> Step:  # shapes: (B, C, H, W)
        """Moves the key encoder; the criterion of queries and keys."""
        self.move_momentum_encoder()
        features = self.backbone(views[0])
        keys = self.targets(views[1])
        return Step(self.compare(self.projection_head(features), keys), features, keys)

    def observe(self, step: Step, labels: Tensor) -> None:
        """Keeps track of which classes the bank holds."""
        if self.num_classes == 1:
            return
        keys: Any = step.keys
        if self.trainer.world_size > 1:
            gather: Any = self.all_gather
            keys, labels = gather(keys).flatten(0, 1), gather(labels).flatten(0, 1)
        self.bank_labels.update(self.bank.bank, keys, labels)  # not what it gives, a copy

    def terms(self) -> dict[str, Tensor]:
        """Besides, the diagnostics of the bank, where it has any, and its false negatives."""
        found = {**super().terms(), **of_bank(self.bank)}
        if self.num_classes > 1:
            found["bank/false_negatives"] = self.bank_labels.false_negatives
        return found


def of_bank(bank: Any) -> dict[str, Tensor]:
    """A bank's diagnostics by their logged names, where it has any."""
    diagnostics: dict[str, Tensor] = getattr(bank, "diagnostics", dict)()
    return {f"bank/{name}": value for name, value in diagnostics.items()}
