"""What is trained beside the encoders: a decoder for each, and a classifier of images."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.backbones import strided_blocks
from harness.fitting import with_cosine
from harness.views import to_pixels

_CHUNK = 1000
_WIDTHS = (256, 128, 64, 32)
_MEAN = -1.1  # its hyperbolic tangent is MNIST's mean, -0.8 in [-1, 1]
Batch = tuple[Tensor, Tensor, Tensor]  # images uint8 (B, 1, 32, 32), labels (B,), indices (B,)


class AdamModule(pl.LightningModule):
    """Adam with one learning rate throughout, as printed."""

    learning_rate = 1e-3  # [R]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over all parameters."""
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


class Decoder(AdamModule):
    """Turns unit-norm embeddings back into images (Huang 2026, App. P.4).

    Args:
        codes: Embeddings of the training images by their indices, shape (N, d), unit norm; the
            encoder stays as it is, so they are made once.
    """

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.codes = codes  # no buffer: it is no part of what is learned
        layers: list[nn.Module] = [
            nn.Linear(codes.shape[1], 512),
            nn.ReLU(),
            nn.Linear(512, 4 * _WIDTHS[0]),
            nn.ReLU(),
            nn.Unflatten(1, (_WIDTHS[0], 2, 2)),
        ]
        for before, after in pairwise(_WIDTHS):
            layers += [_doubling(before, after), nn.BatchNorm2d(after), nn.ReLU()]
        last = _doubling(_WIDTHS[-1], 1)
        # From the mean pixel: from torch's own start, the first steps drive some background pixels
        # into the white end of the hyperbolic tangent, where it has no gradient: there they stay.
        if last.bias is not None:
            nn.init.constant_(last.bias, _MEAN)
        self.network = nn.Sequential(*layers, last)
        self.network.to(memory_format=torch.channels_last)

    def forward(
        self,
        codes: Tensor,  # shape: (B, d)
    ) -> Tensor:  # shape: (B, 1, 32, 32)
        """Images with values in [-1, 1]; in float32, as bfloat16 rounds 1 - tanh(5)^2 to 0."""
        images: Tensor = self.network(codes).float().tanh()
        return images

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Mean squared error of the images, in [-1, 1]."""
        images, _, indices = batch
        codes = self.codes[indices.to(self.codes.device)].to(images.device)
        return F.mse_loss(self(codes), to_signed(images))

    @torch.no_grad()
    def decode(
        self,
        codes: Tensor,  # shape: (N, d)
    ) -> Tensor:  # shape: (N, 1, 32, 32)
        """Embeddings of any norm, projected to the sphere, as uint8 images on the CPU."""
        self.eval()
        codes = F.normalize(codes.to(self.device, torch.float32), dim=1)
        images = torch.cat([self(chunk) for chunk in torch.split(codes, _CHUNK)])
        return images.add(1.0).mul(127.5).round().clamp(0, 255).byte().cpu()


class Classifier(AdamModule):
    """Names digits and gives the features that generated images are measured in.

    It learns from real images and their labels alone, and shares nothing with the encoders.
    """

    num_features = 128

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers = strided_blocks(1, 32, 64, 128)
        layers += [nn.Flatten(), nn.Linear(2048, self.num_features), nn.ReLU()]
        self.network = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.head = nn.Linear(self.num_features, num_classes)

    def configure_optimizers(self) -> Any:
        """Adam with a cosine schedule, for accuracy in few epochs."""
        return with_cosine(super().configure_optimizers(), self.trainer)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Cross-entropy."""
        images, labels, _ = batch
        return F.cross_entropy(self.head(self.network(to_signed(images))), labels)

    @torch.no_grad()
    def classify(
        self,
        images: Tensor,  # shape: (N, 1, 32, 32)
    ) -> tuple[Tensor, Tensor]:  # shapes: (N, 128), (N, num_classes)
        """Features and class probabilities of uint8 images, on the CPU."""
        self.eval()
        found = []
        for chunk in torch.split(images, _CHUNK):
            features = self.network(to_signed(chunk.to(self.device)))
            found.append((features.cpu(), self.head(features).softmax(dim=1).cpu()))
        features, probabilities = map(torch.cat, zip(*found, strict=True))
        return features, probabilities


def to_signed(images: Tensor) -> Tensor:
    """uint8 images as numbers in [-1, 1], the decoder's range."""
    return to_pixels(images).mul_(2.0).sub_(1.0)


def _doubling(before: int, after: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)
