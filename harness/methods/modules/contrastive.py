"""SimCLR and MoCo v2, written as in lightly's documentation, with any criterion and bank."""

from __future__ import annotations

from typing import Any

from lightly.models.modules import MoCoProjectionHead
from torch import Tensor, nn

from harness.backbones import Backbone
from harness.methods import MoCoSettings
from harness.methods.modules.bank_labels import BankLabels
from harness.methods.modules.base import Method
from harness.methods.modules.momentum import MomentumMethod
from harness.settings import MethodSettings, TrainerSettings
from harness.views import Views


class SimCLR(Method):
    """SimCLR (Chen et al. 2020) with any head and ``criterion(out0, out1)``.

    So also VICReg (Bardes et al. 2022), GJE with the Gaussian entropy and Parametric GMJE.

    Args:
        backbone: As in :class:`Method`.
        projection_head: Maps features to embeddings.
        criterion: The loss; its parameters, if any, are trained too.
        views: As in :class:`Method`.
        settings: As in :class:`Method`.
        trainer: As in :class:`Method`.
    """

    def __init__(
        self,
        backbone: Backbone,
        projection_head: nn.Module,
        criterion: nn.Module,
        *,
        views: Views,
        settings: MethodSettings,
        trainer: TrainerSettings,
    ) -> None:
        super().__init__(backbone, criterion, views=views, settings=settings, trainer=trainer)
        self.projection_head = projection_head

    def forward(
        self,
        images: Tensor,  # shape: (B, C, H, W)
    ) -> Tensor:  # shape: (B, output_dim)
        """Embeddings of normalised images."""
        embeddings: Tensor = self.projection_head(self.backbone(images))
        return embeddings

    def loss(
        self,
        view0: Tensor,  # shape: (B, C, H, W)
        view1: Tensor,  # shape: (B, C, H, W)
    ) -> tuple[Tensor, Tensor]:  # shapes: (), (B, feature_dim)
        """The criterion of the two views' embeddings, and the first view's features."""
        features = self.backbone(view0)
        return self.compare(self.projection_head(features), self(view1)), features


class MoCo(MomentumMethod):
    """MoCo v2 (Chen et al. 2020) with any ``criterion(query, key)`` that holds a memory bank.

    Args:
        backbone: As in :class:`MomentumMethod`.
        criterion: The loss, with its memory bank.
        views: As in :class:`MomentumMethod`.
        settings: As in :class:`MomentumMethod`.
        trainer: As in :class:`MomentumMethod`.
    """

    def __init__(
        self,
        backbone: Backbone,
        criterion: nn.Module,
        *,
        views: Views,
        settings: MoCoSettings,
        trainer: TrainerSettings,
    ) -> None:
        super().__init__(
            backbone,
            MoCoProjectionHead(backbone.feature_dim, settings.hidden_dim, settings.output_dim),
            criterion,
            ema=settings.ema,
            views=views,
            settings=settings,
            trainer=trainer,
        )
        for name, buffer in list(self.bank.named_buffers(recurse=False)):
            self.bank.register_buffer(name, buffer)  # lightly leaves its queue out of checkpoints
        self.bank_labels = BankLabels(self.bank.size[0])

    @property
    def bank(self) -> Any:
        """The criterion's memory bank."""
        return self.criterion.memory_bank

    def loss(
        self,
        view0: Tensor,  # shape: (B, C, H, W)
        view1: Tensor,  # shape: (B, C, H, W)
    ) -> tuple[Tensor, Tensor]:  # shapes: (), (B, feature_dim)
        """Moves the key encoder; the criterion of queries and keys, and the queries' features."""
        self.move_momentum_encoder()
        features = self.backbone(view0)
        self._keys = self.targets(view1)
        return self.compare(self.projection_head(features), self._keys), features

    def observe(self, labels: Tensor) -> None:
        """Keeps track of which classes the bank holds."""
        keys = self._keys
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
