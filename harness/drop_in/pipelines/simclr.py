"""lightly's examples/pytorch/simclr.py."""

from collections.abc import Iterator

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms.simclr_transform import SimCLRTransform
from torch import Tensor, nn

from harness.drop_in.pipelines import Batches


class SimCLR(nn.Module):
    """Backbone and projection head."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection_head = SimCLRProjectionHead(512, 512, 128)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of images."""
        x = self.backbone(x).flatten(start_dim=1)
        z: Tensor = self.projection_head(x)
        return z


transform = SimCLRTransform(input_size=32, gaussian_blur=0.0)


def train(backbone: nn.Module, dataloader: Batches, device: str) -> Iterator[float]:
    """Trains the backbone in place, step by step; gives the loss of each."""
    model = SimCLR(backbone)
    model.to(device)
    criterion = NTXentLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    for x0, x1 in dataloader:
        z0 = model(x0)
        z1 = model(x1)
        loss = criterion(z0, z1)
        yield loss.item()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
