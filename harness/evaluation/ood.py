"""Images that are none of the training set's kind, and how well a score tells them from it."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_images
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def out_of_distribution_images(
    digits: Tensor,  # shape: (N, 1, 32, 32)
    *,
    seed: int,
) -> dict[str, Tensor]:  # shapes: (N or fewer, 1, 32, 32)
    """Sets of uint8 images like handwritten digits in ever fewer respects.

    The other digits are scikit-learn's, of other writers and another scanner, 8 x 8 pixels enlarged
    to MNIST's 20 x 20; the photographs are grayscale crops of scikit-learn's two sample images.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        "other digits": _other_digits(),
        "quarter turn": torch.rot90(digits, dims=(2, 3)),
        "photographs": _photographs(len(digits), side=digits.shape[-1], generator=generator),
        "noise": torch.randint(256, digits.shape, dtype=torch.uint8, generator=generator),
    }


def auroc(
    in_distribution: Tensor,  # shape: (N,)
    out_of_distribution: Tensor,  # shape: (M,)
) -> float:
    """Probability that an out-of-distribution image has the higher score; 1/2 if chance decides."""
    labels = np.repeat([0, 1], [len(in_distribution), len(out_of_distribution)])
    return float(roc_auc_score(labels, torch.cat([in_distribution, out_of_distribution]).numpy()))


def _other_digits() -> Tensor:  # shape: (1797, 1, 32, 32)
    pixels = torch.from_numpy(load_digits().images)[:, None] * (255.0 / 16.0)
    enlarged = F.interpolate(pixels, size=(20, 20), mode="bilinear", antialias=True)
    return F.pad(enlarged.round().byte(), (6, 6, 6, 6))


def _photographs(number: int, *, side: int, generator: torch.Generator) -> Tensor:
    photographs = [torch.from_numpy(image @ _LUMA) for image in load_sample_images().images]
    crops = []
    for index in range(number):
        photograph = photographs[index % len(photographs)]
        top, left = (
            int(torch.randint(length - side + 1, (), generator=generator))
            for length in photograph.shape
        )
        crops.append(photograph[top : top + side, left : left + side])
    return torch.stack(crops)[:, None].round().byte()
