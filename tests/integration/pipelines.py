"""lightly's MoCo on scikit-learn's digits, written as lightly's own examples are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.utils.benchmarking import knn_predict
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, normalize

EPOCHS, BATCH, FEATURES, DIM = 8, 256, 128, 64


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Train images (1297, 1, 8, 8) and labels, test images (500, 1, 8, 8) and labels."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(data.images, dtype=torch.float32)[order, None] / 16 - 0.5
    labels = torch.tensor(data.target)[order]
    return images[500:], labels[500:], images[:500], labels[:500]


def view(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random rotation, scale, shift and noise of each image."""
    n = len(images)
    angle = (torch.rand(n, generator=generator) - 0.5) * 0.6
    scale = 0.8 + 0.4 * torch.rand(n, generator=generator)
    shift = (torch.rand(n, 2, generator=generator) - 0.5) * 0.5
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = angle.cos() * scale, -angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = angle.sin(), angle.cos() * scale
    theta[:, :, 2] = shift
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    moved = grid_sample(images, grid, align_corners=False, padding_mode="border")
    return moved + 0.1 * torch.randn(images.shape, generator=generator)


def backbone() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Conv2d(64, FEATURES, 3, padding=1, bias=False),
        nn.BatchNorm2d(FEATURES),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def views(images: Tensor, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(order) - BATCH + 1, BATCH):
            batch = images[order[start : start + BATCH]]
            yield view(batch, generator), view(batch, generator)


class MoCo(nn.Module):
    """lightly's MoCo example: the criterion is the one line that changes."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = backbone()
        self.projection_head = MoCoProjectionHead(FEATURES, FEATURES, DIM)
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)

    def loss(self, x0: Tensor, x1: Tensor, criterion: nn.Module) -> Tensor:
        update_momentum(self.backbone, self.backbone_momentum, 0.99)
        update_momentum(self.projection_head, self.projection_head_momentum, 0.99)
        query = self.projection_head(self.backbone(x0))
        with torch.no_grad():
            key = self.projection_head_momentum(self.backbone_momentum(x1))
        loss: Tensor = criterion(query, key)
        return loss


def knn_accuracy(backbone: nn.Module) -> float:
    """Weighted kNN accuracy in percent on the 500 test digits, frozen features."""
    train, train_labels, test, test_labels = digits()
    backbone.eval()
    with torch.no_grad():
        bank, queries = (normalize(backbone(images), dim=1) for images in (train, test))
    predicted = knn_predict(queries, bank.T, train_labels, num_classes=10, knn_k=20)[:, 0]
    return 100.0 * float((predicted == test_labels).float().mean())


def train(
    make_model: Callable[[], nn.Module], make_criterion: Callable[[], nn.Module], *, seed: int
) -> float:
    """kNN accuracy after 8 epochs of Adam at 2e-3."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, criterion = make_model(), make_criterion()
        parameters = [*model.parameters(), *criterion.parameters()]
        optimizer = torch.optim.Adam([p for p in parameters if p.requires_grad], lr=2e-3)
        for x0, x1 in views(digits()[0], seed):
            loss = model.loss(x0, x1, criterion)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return knn_accuracy(model.backbone)
