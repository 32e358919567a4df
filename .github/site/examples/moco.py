"""MoCo with a Sequential Monte Carlo memory bank, in plain PyTorch."""

import copy

import torch
import torchvision
from digits import Digits
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms.moco_transform import MoCoV2Transform
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gmje_plugin import SMCNTXentLoss


class MoCo(nn.Module):
    """Query encoder and its moving average, the key encoder."""

    def __init__(self) -> None:
        super().__init__()
        resnet = torchvision.models.resnet18()
        self.encoder = nn.Sequential(
            *list(resnet.children())[:-1], nn.Flatten(), MoCoProjectionHead(512, 512, 128)
        )
        self.key_encoder = copy.deepcopy(self.encoder)
        deactivate_requires_grad(self.key_encoder)

    def forward(self, x_query: Tensor, x_key: Tensor) -> tuple[Tensor, Tensor]:
        """Queries of one view and keys of the other, shapes (B, 128)."""
        update_momentum(self.encoder, self.key_encoder, m=0.99)
        return self.encoder(x_query), self.key_encoder(x_key).detach()


def loader() -> DataLoader:
    """Batches of two views: of your images, torchvision.datasets.ImageFolder in place of Digits."""
    views = Digits(transform=MoCoV2Transform(input_size=32))
    return DataLoader(views, batch_size=32, shuffle=True, drop_last=True)


if __name__ == "__main__":
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = MoCo().to(device)
    criterion = SMCNTXentLoss(temperature=0.1, memory_bank_size=(128, 128))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    for (x_query, x_key), _ in loader():
        query, key = model(x_query.to(device), x_key.to(device))
        loss = criterion(query, key)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        bank = criterion.memory_bank.diagnostics()
        print(f"loss {loss:.3f}, effective sample size {bank['ess']:.0f}")
