"""lightly's examples/pytorch/byol.py."""

import copy
from collections.abc import Iterator

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms import BYOLTransform, BYOLView1Transform, BYOLView2Transform
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn

from harness.drop_in.pipelines import Batches


class BYOL(nn.Module):
    """Online network and its moving average, the target network."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection_head = BYOLProjectionHead(512, 1024, 256)
        self.prediction_head = BYOLPredictionHead(256, 1024, 256)
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Predictions from images."""
        y = self.backbone(x).flatten(start_dim=1)
        z = self.projection_head(y)
        p: Tensor = self.prediction_head(z)
        return p

    def forward_momentum(self, x: Tensor) -> Tensor:
        """Targets of images."""
        y = self.backbone_momentum(x).flatten(start_dim=1)
        z: Tensor = self.projection_head_momentum(y)
        z = z.detach()
        return z


transform = BYOLTransform(
    view_1_transform=BYOLView1Transform(input_size=32, gaussian_blur=0.0),
    view_2_transform=BYOLView2Transform(input_size=32, gaussian_blur=0.0),
)


def train(backbone: nn.Module, dataloader: Batches, device: str) -> Iterator[float]:
    """Trains the backbone in place, step by step; gives the loss of each."""
    model = BYOL(backbone)
    model.to(device)
    criterion = NegativeCosineSimilarity()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    for step, (x0, x1) in enumerate(dataloader):
        momentum_val = cosine_schedule(step, len(dataloader), 0.996, 1)
        update_momentum(model.backbone, model.backbone_momentum, m=momentum_val)
        update_momentum(model.projection_head, model.projection_head_momentum, m=momentum_val)
        p0 = model(x0)
        z0 = model.forward_momentum(x0)
        p1 = model(x1)
        z1 = model.forward_momentum(x1)
        loss = 0.5 * (criterion(p0, z1) + criterion(p1, z0))
        yield loss.item()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
