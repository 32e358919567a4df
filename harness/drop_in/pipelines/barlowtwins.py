"""lightly's examples/pytorch/barlowtwins.py."""

from collections.abc import Iterator

import torch
from lightly.loss import BarlowTwinsLoss
from lightly.models.modules import BarlowTwinsProjectionHead
from lightly.transforms import BYOLTransform, BYOLView1Transform, BYOLView2Transform
from torch import Tensor, nn

from harness.drop_in.pipelines import Batches


class BarlowTwins(nn.Module):
    """Backbone and projection head."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection_head = BarlowTwinsProjectionHead(512, 2048, 2048)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of images."""
        x = self.backbone(x).flatten(start_dim=1)
        z: Tensor = self.projection_head(x)
        return z


# BarlowTwins uses BYOL augmentations.
transform = BYOLTransform(
    view_1_transform=BYOLView1Transform(input_size=32, gaussian_blur=0.0),
    view_2_transform=BYOLView2Transform(input_size=32, gaussian_blur=0.0),
)


def train(backbone: nn.Module, dataloader: Batches, device: str) -> Iterator[float]:
    """Trains the backbone in place, step by step; gives the loss of each."""
    model = BarlowTwins(backbone)
    model.to(device)
    criterion = BarlowTwinsLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    for x0, x1 in dataloader:
        z0 = model(x0)
        z1 = model(x1)
        loss = criterion(z0, z1)
        yield loss.item()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
