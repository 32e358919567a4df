"""SimCLR and MoCo v2, written as in lightly's documentation, with any criterion and bank."""

from __future__ import annotations

from typing import Any

from lightly.models.modules import MoCoProjectionHead
from torch import Tensor, nn

from harness.methods import MoCoSettings
from harness.methods.context import BuildContext
from harness.methods.modules.bank_labels import BankLabels
from harness.methods.modules.base import Method, Step
from harness.methods.modules.momentum import MomentumMethod
from harness.settings import MethodSettings


class SimCLR(Method):
    """SimCLR (Chen et al. 2020) with any head and ``criterion(out0, out1)``.

    So also VICReg (Bardes et al. 2022), GJE with the Gaussian entropy and Parametric GMJE.

    Args:
        context: As in :class:`Method`.
        settings: As in :class:`Method`.
        criterion: As in :class:`Method`.
        projection_head: Maps features to embeddings.
    """

    def __init__(
        self,
        context: BuildContext,
        settings: MethodSettings,
        criterion: nn.Module,
        projection_head: nn.Module,
    ) -> None:
        super().__init__(context, settings, criterion)
        self.projection_head = projection_head

    def forward(
        self,
        images: Tensor,  # shape: (B, C, H, W)
    ) -> Tensor:  # shape: (B, output_dim)
        """Embeddings of normalised images."""
        embeddings: Tensor = self.projection_head(self.backbone(images))
        return embeddings

    def step(
        self,
        view0: Tensor,  # shape: (B, C, H, W)
        view1: Tensor,  # shape: (B, C, H, W)
    ) -> Step:
        """The criterion of the two views' embeddings."""
        features = self.backbone(view0)
        return Step(self.compare(self.projection_head(features), self(view1)), features)


class MoCo(MomentumMethod):
    """MoCo v2 (Chen et al. 2020) with any ``criterion(query, key)`` that holds a memory bank.

    Args:
        context: As in :class:`MomentumMethod`.
        settings: As in :class:`MomentumMethod`.
        criterion: The loss, with its memory bank.
    """

    def __init__(self, context: BuildContext, settings: MoCoSettings, criterion: nn.Module) -> None:
        feature_dim = context.backbone.feature_dim
        head = MoCoProjectionHead(feature_dim, settings.hidden_dim, settings.output_dim)
        super().__init__(context, settings, criterion, head)
        for name, buffer in list(self.bank.named_buffers(recurse=False)):
            self.bank.register_buffer(name, buffer)  # lightly leaves its queue out of checkpoints
        self.bank_labels = BankLabels(self.bank.size[0])

    @property
    def bank(self) -> Any:
        """The criterion's memory bank."""
        return self.criterion.memory_bank

    def step(
        self,
        view0: Tensor,  # shape: (B, C, H, W)
        view1: Tensor,  # shape: (B, C, H, W)
    ) -> Step:
        """Moves the key encoder; the criterion of queries and keys."""
        self.move_momentum_encoder()
        features = self.backbone(view0)
        keys = self.targets(view1)
        return Step(self.compare(self.projection_head(features), keys), features, keys)

    def observe(self, step: Step, labels: Tensor) -> None:
        """Keeps track of which classes the bank holds."""
        if self.num_classes == 1:
            return
        keys: Any = step.keys
        if self.trainer.world_size > 1:
            gather: Any = self.all_gather
            keys, labels = gather(keys).flatten(0, 1), gather(labels).flatten(0, 1)
        _, rows = self.bank(keys, update=False)
        self.bank_labels.update(rows.T, keys, labels)

    def terms(self) -> dict[str, Tensor]:
        """Besides, the diagnostics of the bank, where it has any, and its false negatives."""
        diagnostics: dict[str, Tensor] = getattr(self.bank, "diagnostics", dict)()
        if self.num_classes > 1:
            diagnostics["false_negatives"] = self.bank_labels.false_negatives
        of_bank = {f"bank/{name}": value for name, value in diagnostics.items()}
        return {**super().terms(), **of_bank}
