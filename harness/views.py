"""Batched augmentations of every image, on the device.

What an image gets is a function of (seed, epoch, index of the image, view) alone: random numbers
come from a hash of these, not from a generator, so that batch order, workers, a resumed run and
the number of ranks cannot change it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from harness import image_ops
from harness.keyed_random import keyed_uniforms
from harness.settings import ViewSettings

_ATTEMPTS = 10  # boxes that torchvision's RandomResizedCrop tries
_RATIOS = (3.0 / 4.0, 4.0 / 3.0)  # of width to height, its default
_PROBE = 1  # ends the key of the linear probe's numbers, which are not training's
_PADDING = 4  # [P]
_CHUNK = 3 * 2**17  # numbers: 1.5 MiB, which stay in a core's cache
_SIZES = [5, 2 * _ATTEMPTS + 2, 1, 1, 4, 4, 1]  # of the parts of Draws
_COUNT = sum(_SIZES)


class Draws(NamedTuple):
    """The random numbers of N images, in [0, 1), by what they decide."""

    affine: Tensor  # shape: (N, 5)
    crop: Tensor  # shape: (N, 22)
    flip: Tensor  # shape: (N,)
    jitter: Tensor  # shape: (N,)
    swings: Tensor  # shape: (N, 4)
    order: Tensor  # shape: (N, 4)
    grayscale: Tensor  # shape: (N,)

    @classmethod
    def of(
        cls,
        numbers: Tensor,  # shape: (N, _COUNT)
    ) -> Draws:
        """The numbers by name."""
        return cls(*(part.squeeze(1) for part in torch.split(numbers, _SIZES, dim=1)))


class _RandomView:
    """What views of training images are a function of, beside the images."""

    def __init__(self, *, mean: Tensor, std: Tensor, seed: int) -> None:
        self.mean = mean
        self.std = std
        self.seed = seed

    def _uniforms(self, images: Tensor, indices: Tensor, *key: int, count: int) -> Tensor:
        """The images' random numbers, on their device, with the statistics put there too."""
        # Once: a copy of even three numbers to a GPU waits for all that it has still to do.
        self.mean, self.std = self.mean.to(images.device), self.std.to(images.device)
        return keyed_uniforms((self.seed, *key), indices.to(images.device), count=count)


class Views(_RandomView):
    """Makes the views of a batch.

    Args:
        settings: How strong each part is.
        mean: Mean of each channel in [0, 1], for normalisation, shape (C,).
        std: Standard deviation of each channel, shape (C,).
        seed: Of the random numbers.

    Example:
        >>> mean, std = torch.zeros(3), torch.ones(3)
        >>> views = Views(ViewSettings(crop_min=0.2), mean=mean, std=std, seed=1)
        >>> images = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
        >>> first, second = views(images, torch.arange(8), epoch=0)
    """

    def __init__(self, settings: ViewSettings, *, mean: Tensor, std: Tensor, seed: int) -> None:
        super().__init__(mean=mean, std=std, seed=seed)
        self.settings = settings

    def __call__(
        self,
        images: Tensor,  # shape: (B, C, H, W)
        indices: Tensor,  # shape: (B,)
        *,
        epoch: int,
        count: int = 2,
    ) -> tuple[Tensor, ...]:
        """Returns normalised views, each of shape (B, C, H, W) and float32.

        Args:
            images: The images, uint8.
            indices: Theirs in the training set, int64.
            epoch: Each epoch shows other views.
            count: How many; another number of them is other views.
        """
        uniforms = self._uniforms(images, indices, epoch, count=count * _COUNT)
        # The views' affine maps come first, so that they do not depend on what else there is.
        maps, others = uniforms.tensor_split((count * _SIZES[0],), dim=1)
        of_views = zip(maps.chunk(count, dim=1), others.chunk(count, dim=1), strict=True)
        draws = torch.stack([torch.cat(parts, dim=1) for parts in of_views])
        chunk = len(images)
        if images.device.type == "cpu":
            chunk = max(1, _CHUNK // (count * images[0].numel()))
        parts = zip(torch.split(images, chunk), torch.split(draws, chunk, dim=1), strict=True)
        return torch.cat([self._augmented(*part) for part in parts], dim=1).unbind()

    def _augmented(
        self,
        images: Tensor,  # shape: (N, C, H, W)
        draws: Tensor,  # shape: (V, N, _COUNT)
    ) -> Tensor:  # shape: (V, N, C, H, W)
        pixels = to_pixels(images).repeat(len(draws), 1, 1, 1)
        pixels = augment(pixels, Draws.of(draws.flatten(0, 1)), self.settings)
        return normalize(pixels, mean=self.mean, std=self.std).view(-1, *images.shape)


class ProbeView(_RandomView):
    """The linear probe's view: crop with a border of 4 pixels, and flip (Huang 2026, App. P.3).

    Args:
        mean: Mean of each channel in [0, 1], for normalisation, shape (C,).
        std: Standard deviation of each channel, shape (C,).
        seed: Of the random numbers.

    Example:
        >>> view = ProbeView(mean=torch.zeros(3), std=torch.ones(3), seed=1)
        >>> images = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
        >>> pixels = view(images, torch.arange(8), epoch=0)
    """

    def __call__(
        self,
        images: Tensor,  # shape: (B, C, H, W)
        indices: Tensor,  # shape: (B,)
        *,
        epoch: int,
    ) -> Tensor:  # shape: (B, C, H, W)
        """Returns a normalised view; arguments as those of :class:`Views`."""
        draws = self._uniforms(images, indices, epoch, _PROBE, count=3)
        shifts = (draws[:, :2] * (2 * _PADDING + 1)).long()
        moved = image_ops.padded_crop(images, shifts, draws[:, 2] < 0.5, padding=_PADDING)
        return normalize(to_pixels(moved), mean=self.mean, std=self.std)


def to_pixels(images: Tensor) -> Tensor:
    """uint8 images as float32 numbers in [0, 1]."""
    return images.float().div_(255.0)


def normalize(pixels: Tensor, *, mean: Tensor, std: Tensor) -> Tensor:
    """Gives the channels of (N, C, H, W) pixels in [0, 1] mean 0 and deviation 1."""
    mean, std = mean.to(pixels.device), std.to(pixels.device)
    return (pixels - mean[:, None, None]).div_(std[:, None, None])


def augment(
    pixels: Tensor,  # shape: (N, C, H, W)
    draws: Draws,
    settings: ViewSettings,
) -> Tensor:  # shape: (N, C, H, W)
    """Every part that the settings switch on, in the order in which they name them."""
    if settings.crop_min < 1.0 or settings.flip > 0.0:
        height, width = pixels.shape[-2:]
        boxes = crop_boxes(draws.crop, height, width, least_area=settings.crop_min)
        pixels = image_ops.resized_crop(pixels, boxes, draws.flip < settings.flip)
    if settings.degrees or settings.translate or settings.scale or settings.shear:
        swings = 2.0 * draws.affine - 1.0
        pixels = image_ops.affine(
            pixels,
            angle=math.radians(settings.degrees) * swings[:, 0],
            translate=-settings.translate * swings[:, 3:],
            scale=1.0 + settings.scale * swings[:, 2],
            shear=settings.shear * swings[:, 1],
        )
    if settings.jitter > 0.0:
        swings = 2.0 * draws.swings - 1.0
        swings = torch.where(draws.jitter[:, None] < settings.jitter, swings, 0.0)
        order = draws.order.argsort(dim=1, stable=True)
        pixels = image_ops.color_jitter(pixels, jitter_factors(swings, settings), order)
    if settings.grayscale > 0.0:
        chosen = (draws.grayscale < settings.grayscale).to(pixels.dtype).view(-1, 1, 1, 1)
        pixels = pixels.lerp(image_ops.grayscale(pixels), chosen)
    return pixels


def crop_boxes(
    draws: Tensor,  # shape: (N, 22)
    height: int,
    width: int,
    *,
    least_area: float,
) -> Tensor:  # shape: (N, 4)
    """The boxes of torchvision's RandomResizedCrop: top, left, height, width, whole numbers.

    Out of ten boxes of random area and shape the first that fits into the image, or the largest
    in its centre. In float64, so that no device rounds to another box.

    Args:
        draws: Uniform numbers in [0, 1).
        height: Of the images.
        width: Of the images.
        least_area: Share of the image; the largest is 1.
    """
    draws = draws.double()
    areas = height * width * (least_area + (1.0 - least_area) * draws[:, :_ATTEMPTS])
    low, high = (math.log(ratio) for ratio in _RATIOS)
    ratios = (low + (high - low) * draws[:, _ATTEMPTS : 2 * _ATTEMPTS]).exp()
    widths, heights = (areas * ratios).sqrt().round(), (areas / ratios).sqrt().round()
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    first = fits.int().argmax(dim=1, keepdim=True)
    found = fits.any(dim=1)
    largest_width = min(width, round(height * _RATIOS[1]))
    largest_height = min(height, round(width / _RATIOS[0]))
    box_width = torch.where(found, widths.gather(1, first)[:, 0], largest_width)
    box_height = torch.where(found, heights.gather(1, first)[:, 0], largest_height)
    free = torch.stack([height - box_height, width - box_width], dim=1)
    anywhere = (draws[:, 2 * _ATTEMPTS :] * (free + 1.0)).floor()
    corner = torch.where(found[:, None], anywhere, (free / 2.0).floor())
    return torch.cat([corner, box_height[:, None], box_width[:, None]], dim=1)


def jitter_factors(
    swings: Tensor,  # shape: (N, 4)
    settings: ViewSettings,
) -> Tensor:  # shape: (N, 4)
    """Factors of brightness, contrast and saturation and the shift of the hue.

    Args:
        swings: In [-1, 1], from the weakest to the strongest; 0 changes nothing.
        settings: How far they reach.
    """
    reach = (settings.brightness, settings.contrast, settings.saturation)
    factors = [1.0 + most * swings[:, kind] for kind, most in enumerate(reach)]
    return torch.stack([*factors, settings.hue * swings[:, 3]], dim=1)
