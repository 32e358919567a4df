"""BYOL with a mixture density network as its predictor, in plain PyTorch."""

import copy

import torch
import torchvision
from digits import Digits
from lightly.models.modules import BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform
from torch import Tensor, nn
from torch.distributions import MixtureSameFamily
from torch.utils.data import DataLoader

from gmje_plugin import GMJEMDNHead, GMJEMDNLoss


class BYOL(nn.Module):
    """Online network with the predictor, and its moving average, the target network."""

    def __init__(self) -> None:
        super().__init__()
        resnet = torchvision.models.resnet18()
        self.online = nn.Sequential(
            *list(resnet.children())[:-1], nn.Flatten(), BYOLProjectionHead(512, 1024, 256)
        )
        self.predictor = GMJEMDNHead(256, 1024, 256)
        self.target = copy.deepcopy(self.online)
        deactivate_requires_grad(self.target)

    def forward(self, x0: Tensor, x1: Tensor) -> tuple[MixtureSameFamily, Tensor]:
        """The density of the second view's embedding given the first, and that embedding."""
        return self.predictor(self.online(x0)), self.target(x1).detach()


def loader() -> DataLoader:
    """Batches of two views: of your images, torchvision.datasets.ImageFolder in place of Digits."""
    first = BYOLView1Transform(input_size=32, gaussian_blur=0.0)
    second = BYOLView2Transform(input_size=32, gaussian_blur=0.0)
    return DataLoader(Digits(BYOLTransform(first, second)), batch_size=32, drop_last=True)


if __name__ == "__main__":
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, criterion = BYOL().to(device), GMJEMDNLoss(input_dim=256)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    for (x0, x1), _ in loader():
        x0, x1 = x0.to(device), x1.to(device)
        update_momentum(model.online, model.target, m=0.99)
        loss = 0.5 * (criterion(*model(x0, x1)) + criterion(*model(x1, x0)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"loss {loss:.3f}")
