"""lightly's examples/pytorch/nnclr.py."""

from collections.abc import Iterator

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import NNCLRPredictionHead, NNCLRProjectionHead, NNMemoryBankModule
from lightly.transforms.simclr_transform import SimCLRTransform
from torch import Tensor, nn

from harness.drop_in.pipelines import Batches


class NNCLR(nn.Module):
    """Backbone, projection head and prediction head."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection_head = NNCLRProjectionHead(512, 512, 128)
        self.prediction_head = NNCLRPredictionHead(128, 512, 128)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings without gradient, and predictions."""
        y = self.backbone(x).flatten(start_dim=1)
        z = self.projection_head(y)
        p = self.prediction_head(z)
        z = z.detach()
        return z, p


transform = SimCLRTransform(input_size=32, gaussian_blur=0.0)


def train(backbone: nn.Module, dataloader: Batches, device: str) -> Iterator[float]:
    """Trains the backbone in place, step by step; gives the loss of each."""
    model = NNCLR(backbone)
    model.to(device)
    memory_bank = NNMemoryBankModule(size=(4096, 128))
    memory_bank.to(device)
    criterion = NTXentLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    for x0, x1 in dataloader:
        z0, p0 = model(x0)
        z1, p1 = model(x1)
        z0 = memory_bank(z0, update=False)
        z1 = memory_bank(z1, update=True)
        loss = 0.5 * (criterion(z0, p1) + criterion(z1, p0))
        yield loss.item()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
