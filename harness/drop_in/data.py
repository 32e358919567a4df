"""Images, views, networks and the measure for lightly's example pipelines."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor, resize, to_pil_image

from harness.backbones import strided_blocks
from harness.data import AnyImageSet, ImageData, ImageSet, sources
from harness.evaluation.encoding import encode
from harness.evaluation.knn import knn_accuracy
from harness.settings import DataSettings

_SIZE = 32
_MEAN, _STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # lightly's
_COUNTS = {"digits": (None, None), "cifar10": (10_000, 2_000)}  # to train and to test on


def images(name: str, root: str = "data") -> ImageData:
    """All digits, or some of CIFAR-10's images, in RGB at 32 x 32."""
    *parts, variant = sources.read(DataSettings(name=name, root=root))
    train, test = (_some(part, most) for part, most in zip(parts, _COUNTS[name], strict=True))
    return ImageData(train, test, num_classes=10, mean=_MEAN, std=_STD, variant=variant)


def _some(images: AnyImageSet, most: int | None) -> ImageSet:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    found, labels, _ = images[order[:most]]
    resized = (resize(to_pil_image(image), [_SIZE, _SIZE]) for image in found)
    return ImageSet(torch.stack([pil_to_tensor(image.convert("RGB")) for image in resized]), labels)


def views(
    images: AnyImageSet,
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
    order = torch.arange(0)
    batches = []
    for _ in range(steps):
        if len(order) < batch:  # as drop_last
            order = torch.randperm(len(images))
        chosen, order = order[:batch], order[batch:]
        pairs = [transform(to_pil_image(image))[:2] for image in images[chosen][0]]
        first, second = (torch.stack(part).to(device) for part in zip(*pairs, strict=True))
        batches.append((first, second))
    return batches


def _small() -> nn.Module:
    return nn.Sequential(*strided_blocks(3, 32, 64, 512), nn.AdaptiveAvgPool2d(1))


def _resnet18() -> nn.Module:
    """As in lightly's examples."""
    return nn.Sequential(*list(torchvision.models.resnet18().children())[:-1])


NETWORKS: dict[str, Callable[[], nn.Module]] = {"small": _small, "resnet18": _resnet18}


def knn(backbone: nn.Module, images: ImageData, device: str = "cpu") -> float:
    """Weighted kNN accuracy of frozen features on the test images."""
    network = nn.Sequential(backbone, nn.Flatten()).to(device)
    train, test = (encode(network, part, images) for part in (images.train, images.test))
    return knn_accuracy(*train, *test, num_classes=10, knn_k=20, knn_t=0.1)
