"""torchvision's transforms of one image as functions of a batch, each image with its parameters.

Pixels are floating, in [0, 1], of shape (N, C, H, W). Nothing here draws random numbers. Loops
over images, kernels that depend on a value and waits for a GPU are avoided: what is off for an
image is computed with parameters that change nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # as torchvision's ColorJitter numbers them
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL


def resized_crop(
    pixels: Tensor,  # shape: (N, C, H, W)
    boxes: Tensor,  # shape: (N, 4)
    flipped: Tensor,  # shape: (N,)
) -> Tensor:  # shape: (N, C, H, W)
    """Enlarges a box of every image to the image's size (bilinear), and mirrors some.

    Args:
        pixels: The images.
        boxes: Top, left, height and width in pixels. No box is larger than the image, so there
            is nothing to smooth.
        flipped: Which images to mirror left to right, bool.
    """
    height, width = pixels.shape[-2:]
    top, left, box_height, box_width = boxes.to(pixels).unbind(dim=1)
    rows = _sources(top, box_height, height)
    columns = _sources(left, box_width, width)
    columns = torch.where(flipped[:, None], columns.flip(1), columns)
    x = columns[:, None, :].expand(-1, height, -1)
    grid = torch.stack([x, rows[:, :, None].expand_as(x)], dim=-1)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def _sources(
    start: Tensor,  # shape: (N,)
    length: Tensor,  # shape: (N,)
    size: int,
) -> Tensor:  # shape: (N, size)
    """Where along an axis the pixels of a resized box come from, in grid_sample's coordinates."""
    pixels = (torch.arange(size, device=start.device) + 0.5) * (length[:, None] / size) - 0.5
    # Resizing a box alone, as torchvision does, never looks beyond its outermost pixels.
    pixels = start[:, None] + torch.minimum(pixels.clamp_min(0.0), length[:, None] - 1.0)
    return (2.0 * pixels + 1.0) / size - 1.0


def affine(
    pixels: Tensor,  # shape: (N, C, H, W)
    *,
    angle: Tensor,  # shape: (N,)
    translate: Tensor,  # shape: (N, 2)
    scale: Tensor,  # shape: (N,)
    shear: Tensor,  # shape: (N,)
) -> Tensor:  # shape: (N, C, H, W)
    """Rotates, translates, scales and shears the images (bilinear); what comes in is black.

    Args:
        pixels: The images.
        angle: Of rotation, in radians.
        translate: Shares of the width, to the right, and of the height, downwards.
        scale: Size of the content, 1 for as it is.
        shear: Tangent of the angle.
    """
    # affine_grid maps places in the output to places in the input: content of twice the size
    # reads steps of half the length, and a whole width is 2 in its coordinates.
    step = 1.0 / scale
    cos, sin = step * angle.cos(), step * angle.sin()
    x, y = (-2.0 * translate).unbind(dim=1)
    matrix = torch.stack([cos, shear * cos - sin, x, sin, shear * sin + cos, y], dim=1)
    grid = F.affine_grid(matrix.view(-1, 2, 3), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, align_corners=False)


def color_jitter(
    pixels: Tensor,  # shape: (N, C, H, W)
    factors: Tensor,  # shape: (N, 4)
    order: Tensor,  # shape: (N, 4)
) -> Tensor:  # shape: (N, C, H, W)
    """Changes brightness, contrast, saturation and hue, each image in an order of its own.

    Hue is the expensive one and shifted once: the others lie in three places before it and three
    after it, and an image leaves three of these places unused.

    Args:
        pixels: The images; of one channel, they have neither saturation nor hue.
        factors: Of brightness, contrast and saturation, 1 for none; shift of the hue in turns.
        order: Which of the four comes first, second, third and fourth.
    """
    hue_at = (order == HUE).int().argmax(dim=1, keepdim=True)
    steps = torch.arange(3, device=order.device)
    kinds = torch.cat([order[:, :3], order[:, 1:]], dim=1)
    used = torch.cat([steps < hue_at, steps + 1 > hue_at], dim=1)
    blends = blend_weights(torch.where(used, factors.gather(1, kinds), 1.0), kinds).unbind(dim=1)
    for weights in blends[:3]:
        pixels = blend(pixels, weights)
    if pixels.shape[1] == 3:
        pixels = shift_hue(pixels, factors[:, HUE])
    for weights in blends[3:]:
        pixels = blend(pixels, weights)
    return pixels


def blend_weights(
    factors: Tensor,  # shape: (...)
    kinds: Tensor,  # shape: (...)
) -> Tensor:  # shape: (..., 3)
    """What :func:`blend` takes of the image, its grayscale version and the mean of that.

    A change by a factor is factor x image + (1 - factor) x the image without the quality: black
    without brightness, the mean without contrast, its grayscale without saturation.

    Args:
        factors: 1 gives the very image.
        kinds: ``BRIGHTNESS``, ``CONTRAST`` or ``SATURATION``.
    """
    others = 1.0 - factors
    of_grayscale, of_mean = (torch.where(kinds == k, others, 0.0) for k in (SATURATION, CONTRAST))
    return torch.stack([factors, of_grayscale, of_mean], dim=-1)


def blend(
    pixels: Tensor,  # shape: (N, C, H, W)
    weights: Tensor,  # shape: (N, 3)
) -> Tensor:  # shape: (N, C, H, W)
    """The weighted sum of images, their grayscale versions and these means, kept in [0, 1]."""
    of_image, of_grayscale, of_mean = weights[:, :, None, None, None].unbind(dim=1)
    luma = grayscale(pixels)
    # In float64 the mean does not depend, to float32, on the order of summation.
    mean = luma.mean(dim=(1, 2, 3), keepdim=True, dtype=torch.float64).to(pixels.dtype)
    return (pixels * of_image).add_((luma * of_grayscale).add_(mean * of_mean)).clamp_(0.0, 1.0)


def grayscale(
    pixels: Tensor,  # shape: (N, C, H, W)
) -> Tensor:  # shape: (N, 1, H, W)
    """The images without colour; those of one channel are returned as they are."""
    if pixels.shape[1] == 1:
        return pixels
    red, green, blue = pixels.unbind(dim=1)
    luma = (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])
    return luma[:, None]


def shift_hue(
    pixels: Tensor,  # shape: (N, 3, H, W)
    turns: Tensor,  # shape: (N,)
) -> Tensor:  # shape: (N, 3, H, W)
    """Turns the hue, without the way to HSV and back: the largest and smallest channel stay.

    With hue h in sixths of a turn, channel n of a colour is max - (max - min) clamp(2 - |k - 2|),
    k = (h + n) mod 6, clamp to [0, 1], n = 5, 3, 1 for red, green and blue (Smith 1978, "Color
    gamut transform pairs").
    """
    red, green, blue = pixels.unbind(dim=1)
    largest = torch.maximum(torch.maximum(red, green), blue)
    chroma = largest - torch.minimum(torch.minimum(red, green), blue)
    inverse = chroma.clamp_min(1e-12).reciprocal_()  # grayscale has no hue; any will do
    # By weights 0 and 1: of bool masks torch.where takes 20 times the time on a CPU.
    is_red, is_green = largest.clone().eq_(red), largest.clone().eq_(green)
    of_green, of_blue = (blue - red).mul_(inverse).add_(2.0), (red - green).mul_(inverse).add_(4.0)
    sixths = of_blue.lerp_(of_green, is_green).lerp_((green - blue).mul_(inverse), is_red)
    sixths = sixths.add_(6.0 * turns[:, None, None])
    numbers = torch.arange(5, 0, -2, device=pixels.device).view(1, 3, 1, 1)
    k = sixths[:, None] + numbers
    k.sub_(k.mul(1.0 / 6.0).floor_().mul_(6.0))  # torch.remainder takes twice the time
    below = k.sub_(2.0).abs_().neg_().add_(2.0).clamp_(0.0, 1.0).mul_(chroma[:, None])
    return torch.sub(largest[:, None], below, out=below)


def padded_crop(
    images: Tensor,  # shape: (N, C, H, W)
    shifts: Tensor,  # shape: (N, 2)
    flipped: Tensor,  # shape: (N,)
    *,
    padding: int,
) -> Tensor:  # shape: (N, C, H, W)
    """Crops of the images' own size out of the images with a black border, some mirrored.

    Args:
        images: Of any dtype.
        shifts: Top and left of the crop in the bordered image, int64 from 0 to 2 ``padding``.
        flipped: Which images to mirror left to right, bool.
        padding: Width of the border.
    """
    count, channels, height, width = images.shape
    rows = shifts[:, :1] + torch.arange(height, device=images.device)
    columns = shifts[:, 1:] + torch.arange(width, device=images.device)
    columns = torch.where(flipped[:, None], columns.flip(1), columns)
    batch = torch.arange(count, device=images.device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(1, -1, 1, 1)
    bordered = F.pad(images, (padding,) * 4)
    return bordered[batch, channel, rows[:, None, :, None], columns[:, None, None, :]]
