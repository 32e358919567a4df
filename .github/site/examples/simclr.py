"""SimCLR with learnable prototypes of the views' joint density, in plain PyTorch."""

import torch
import torchvision
from digits import Digits
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms.simclr_transform import SimCLRTransform
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gmje_plugin import GMJEPrototypeLoss


class SimCLR(nn.Module):
    """One network for both views."""

    def __init__(self) -> None:
        super().__init__()
        resnet = torchvision.models.resnet18()
        self.backbone = nn.Sequential(*list(resnet.children())[:-1], nn.Flatten())
        self.projection_head = SimCLRProjectionHead(512, 512, 128)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings of one view, shape (B, 128)."""
        z: Tensor = self.projection_head(self.backbone(x))
        return z


def loader() -> DataLoader:
    """Batches of two views: of your images, torchvision.datasets.ImageFolder in place of Digits."""
    views = Digits(transform=SimCLRTransform(input_size=32, gaussian_blur=0.0))
    return DataLoader(views, batch_size=32, shuffle=True, drop_last=True)


if __name__ == "__main__":
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = SimCLR().to(device)
    criterion = GMJEPrototypeLoss(128, num_prototypes=16, tied=True, eps=0.1).to(device)
    # The prototypes are parameters: they are trained too.
    optimizer = torch.optim.SGD([*model.parameters(), *criterion.parameters()], lr=0.06)
    for (x0, x1), _ in loader():
        loss = criterion(model(x0.to(device)), model(x1.to(device)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"loss {loss:.3f}")
    density = criterion.mixture()  # of the two views' embeddings: sample, condition, log_prob
    print(f"{len(density.weights)} components over {density.means.shape[1]} dimensions")
