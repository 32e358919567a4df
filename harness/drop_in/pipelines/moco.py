"""lightly's examples/pytorch/moco.py."""

import copy
from collections.abc import Iterator

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms.moco_transform import MoCoV2Transform
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn

from harness.drop_in.pipelines import Batches


class MoCo(nn.Module):
    """Query encoder and its moving average, the key encoder."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection_head = MoCoProjectionHead(512, 512, 128)
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Queries of images."""
        query: Tensor = self.backbone(x).flatten(start_dim=1)
        query = self.projection_head(query)
        return query

    def forward_momentum(self, x: Tensor) -> Tensor:
        """Keys of images."""
        key: Tensor = self.backbone_momentum(x).flatten(start_dim=1)
        key = self.projection_head_momentum(key).detach()
        return key


transform = MoCoV2Transform(input_size=32)


def train(backbone: nn.Module, dataloader: Batches, device: str) -> Iterator[float]:
    """Trains the backbone in place, step by step; gives the loss of each."""
    model = MoCo(backbone)
    model.to(device)
    criterion = NTXentLoss(memory_bank_size=(4096, 128))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    for step, (x_query, x_key) in enumerate(dataloader):
        momentum_val = cosine_schedule(step, len(dataloader), 0.996, 1)
        update_momentum(model.backbone, model.backbone_momentum, m=momentum_val)
        update_momentum(model.projection_head, model.projection_head_momentum, m=momentum_val)
        query = model(x_query)
        key = model.forward_momentum(x_key)
        loss = criterion(query, key)
        yield loss.item()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
