"""What methods with a momentum encoder share: the copies, their move, the targets they give."""

from __future__ import annotations

import copy

from lightly.models.utils import deactivate_requires_grad, update_momentum
from torch import Tensor, nn

from harness.methods.byol import BYOLSettings
from harness.methods.moco import MoCoSettings
from harness.methods.modules.base import Method
from harness.methods.modules.context import BuildContext


class MomentumMethod(Method):
    """A method whose targets come from a moving average of backbone and projection head.

    Args:
        context: As in :class:`Method`.
        settings: As in :class:`Method`; ``encoder_momentum`` is the share of the old weights at
            each step.
        criterion: As in :class:`Method`.
        projection_head: As in :class:`Method`.
        parts: As in :class:`Method`.
    """

    def __init__(
        self,
        context: BuildContext,
        settings: BYOLSettings | MoCoSettings,
        criterion: nn.Module,
        projection_head: nn.Module,
        **parts: nn.Module,
    ) -> None:
        super().__init__(context, settings, criterion, projection_head, **parts)
        self.encoder_momentum = settings.encoder_momentum
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = copy.deepcopy(projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)

    def move_momentum_encoder(self) -> None:
        """Moves the copies one step towards the encoder."""
        update_momentum(self.backbone, self.backbone_momentum, m=self.encoder_momentum)
        update_momentum(
            self.projection_head, self.projection_head_momentum, m=self.encoder_momentum
        )

    def targets(
        self,
        view: Tensor,  # shape: (B, C, H, W)
    ) -> Tensor:  # shape: (B, output_dim)
        """The momentum encoder's embeddings, without a gradient."""
        embeddings: Tensor = self.projection_head_momentum(self.backbone_momentum(view)).detach()
        return embeddings
