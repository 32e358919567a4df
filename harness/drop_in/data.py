"""Images, views, networks and the measure for lightly's example pipelines."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torchvision.transforms.functional import normalize, resize, to_pil_image, to_tensor

from harness.data import sources
from harness.evaluation.knn import knn_accuracy
from harness.settings import DataSettings

_SIZE = 32
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of lightly's transforms
_CIFAR10_IMAGES = {"train": 10_000, "test": 2_000}
Labelled = tuple[Tensor, Tensor]  # normalised images (N, 3, 32, 32), labels (N,)


@dataclass(frozen=True)
class Images:
    """What a pipeline is trained and measured on.

    Attributes:
        pil: The training images, as lightly's transforms take them.
        train: The same without augmentation.
        test: Others.
    """

    pil: list[Any]
    train: Labelled
    test: Labelled


def images(name: str, root: str = "data") -> Images:
    """Digits, half of them to train on, or 10,000 + 2,000 images of CIFAR-10, at 32 x 32."""
    found = sources.read(DataSettings(name=name, root=root))
    parts = {"train": found.train, "test": found.test}
    pil, labelled = {}, {}
    for part, of_part in parts.items():
        order = torch.randperm(len(of_part.labels), generator=torch.Generator().manual_seed(0))
        places = order if name == "digits" else order[: _CIFAR10_IMAGES[part]]
        pil[part] = [
            resize(to_pil_image(image), [_SIZE, _SIZE]).convert("RGB")
            for batch in of_part.select(places).batches(1000)
            for image in batch
        ]
        plain = torch.stack([normalize(to_tensor(image), _MEAN, _STD) for image in pil[part]])
        labelled[part] = plain, of_part.labels[places]
    return Images(pil["train"], labelled["train"], labelled["test"])


def views(
    pil: list[Any],
    transform: Callable[[Any], list[Tensor]],
    *,
    seed: int,
    steps: int,
    batch: int,
    device: str = "cpu",
) -> list[tuple[Tensor, Tensor]]:
    """The batches of a training, two views each: all variants see the same."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (lightly's transforms draw from it)
    torch.manual_seed(seed)
    order: list[int] = []
    batches = []
    for _ in range(steps):
        if len(order) < batch:  # as drop_last
            order = torch.randperm(len(pil)).tolist()
        chosen, order = order[:batch], order[batch:]
        pairs = [transform(pil[place])[:2] for place in chosen]
        first, second = (torch.stack(part).to(device) for part in zip(*pairs, strict=True))
        batches.append((first, second))
    return batches


def _small() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 512)):
        layers += [
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
            *(nn.BatchNorm2d(after), nn.ReLU()),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))


def _resnet18() -> nn.Module:
    """As in lightly's examples."""
    return nn.Sequential(*list(torchvision.models.resnet18().children())[:-1])


NETWORKS: dict[str, Callable[[], nn.Module]] = {"small": _small, "resnet18": _resnet18}


@torch.no_grad()
def knn(backbone: nn.Module, images: Images, device: str = "cpu") -> float:
    """Weighted kNN accuracy of frozen features on the test images."""
    backbone.to(device).eval()
    features = [
        torch.cat([backbone(chunk.to(device)).flatten(1).cpu() for chunk in torch.split(part, 500)])
        for part in (images.train[0], images.test[0])
    ]
    return knn_accuracy(
        features[0],
        images.train[1],
        features[1],
        images.test[1],
        num_classes=10,
        knn_k=20,
        knn_t=0.1,
    )
