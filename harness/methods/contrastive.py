"""SimCLR and MoCo v2, written as in lightly's documentation, with any criterion and bank."""

from __future__ import annotations

from lightly.models.modules import MoCoProjectionHead, SimCLRProjectionHead
from torch import Tensor, nn

from harness.backbones import Backbone
from harness.methods.base import Method
from harness.methods.momentum import MomentumMethod
from harness.settings import MethodSettings, MoCoSettings, TrainerSettings
from harness.views import Views


class SimCLR(Method):
    """SimCLR (Chen et al. 2020) with any ``criterion(out0, out1)``.

    Args:
        backbone: As in :class:`Method`.
        criterion: The loss; its parameters, if any, are trained too.
        views: As in :class:`Method`.
        settings: As in :class:`Method`.
        trainer: As in :class:`Method`.
    """

    def __init__(
        self,
        backbone: Backbone,
        criterion: nn.Module,
        *,
        views: Views,
        settings: MethodSettings,
        trainer: TrainerSettings,
    ) -> None:
        super().__init__(backbone, criterion, views=views, settings=settings, trainer=trainer)
        self.projection_head = SimCLRProjectionHead(
            backbone.feature_dim, settings.hidden_dim, settings.output_dim
        )

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
    ) -> Tensor:  # shape: ()
        """The criterion of the two views' embeddings."""
        loss: Tensor = self.criterion(self(view0), self(view1))
        return loss


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

    def loss(
        self,
        view0: Tensor,  # shape: (B, C, H, W)
        view1: Tensor,  # shape: (B, C, H, W)
    ) -> Tensor:  # shape: ()
        """Moves the key encoder and returns the criterion of queries and keys."""
        self.move_momentum_encoder()
        query = self.projection_head(self.backbone(view0))
        key = self.targets(view1)
        loss: Tensor = self.criterion(query, key)
        return loss

    def terms(self) -> dict[str, Tensor]:
        """Besides, the diagnostics of the bank, where it has any."""
        diagnostics = getattr(self.criterion.memory_bank, "diagnostics", dict)
        return {**super().terms(), **diagnostics()}
