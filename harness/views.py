"""Two batched augmentations of every image, on the device.

What an image gets is a function of (seed, epoch, index of the image, view) alone: random numbers
come from a hash of these, not from a generator, so that batch order, workers, a resumed run and
the number of ranks cannot change it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.settings import ViewSettings

_MASK = 2**64 - 1
_WEYL = 0x9E3779B97F4A7C15  # odd, 2^64 over the golden ratio: SplitMix64's increment
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
_DRAWS = 5  # random numbers a view


class Views:
    """Makes the two views of a batch: random affine maps.

    Args:
        settings: How strong each part is.
        mean: Mean of each channel in [0, 1], for normalisation, shape (C,).
        std: Standard deviation of each channel, shape (C,).
        seed: Of the random numbers.
    """

    def __init__(self, settings: ViewSettings, *, mean: Tensor, std: Tensor, seed: int) -> None:
        self.settings = settings
        self.mean = mean
        self.std = std
        self.seed = seed

    def __call__(
        self,
        images: Tensor,  # shape: (B, C, H, W)
        indices: Tensor,  # shape: (B,)
        *,
        epoch: int,
    ) -> tuple[Tensor, Tensor]:
        """Returns two normalised views, each of shape (B, C, H, W) and float32.

        Args:
            images: The images, uint8.
            indices: Their places in the training set, int64.
            epoch: Each epoch shows other views.
        """
        uniforms = keyed_uniforms((self.seed, epoch), indices.to(images.device), count=2 * _DRAWS)
        draws = torch.cat(uniforms.chunk(2, dim=1)).mul(2.0).sub(1.0)
        pixels = images.float().div(255.0).repeat(2, 1, 1, 1)
        moved = self._move(pixels, draws)
        first, second = normalize(moved, mean=self.mean, std=self.std).chunk(2)
        return first, second

    def _move(
        self,
        pixels: Tensor,  # shape: (N, C, H, W)
        draws: Tensor,  # shape: (N, _DRAWS)
    ) -> Tensor:  # shape: (N, C, H, W)
        """Rotates, shears, zooms and shifts; ``draws`` are in [-1, 1)."""
        strength = self.settings
        angle = math.radians(strength.rotation) * draws[:, 0]
        shear = strength.shear * draws[:, 1]
        # affine_grid maps places in the output to places in the input: content of twice the size
        # reads steps of half the length, and a whole width is 2 in its coordinates.
        step = 1.0 / (1.0 + strength.zoom * draws[:, 2])
        cos, sin = step * angle.cos(), step * angle.sin()
        shift_x, shift_y = 2.0 * strength.shift * draws[:, 3], 2.0 * strength.shift * draws[:, 4]
        matrix = torch.stack(
            [cos, shear * cos - sin, shift_x, sin, shear * sin + cos, shift_y], dim=1
        )
        grid = F.affine_grid(matrix.view(-1, 2, 3), list(pixels.shape), align_corners=False)
        return F.grid_sample(pixels, grid, align_corners=False)


def normalize(pixels: Tensor, *, mean: Tensor, std: Tensor) -> Tensor:
    """Gives the channels of (N, C, H, W) pixels in [0, 1] mean 0 and deviation 1."""
    mean, std = mean.to(pixels.device), std.to(pixels.device)
    return (pixels - mean[:, None, None]) / std[:, None, None]


def keyed_uniforms(
    key: tuple[int, ...],
    indices: Tensor,  # shape: (N,)
    *,
    count: int,
) -> Tensor:  # shape: (N, count)
    """Uniform numbers that depend on a key and a row's index only, the same on every device.

    SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators") as a
    hash: its finaliser over the parts of the key, the index and the place in the row in turn.

    Args:
        key: Integers below 2^63, such as (seed, epoch).
        indices: Non-negative int64 numbers, shape (N,).
        count: Numbers a row.

    Returns:
        float32 numbers in [0, 1), multiples of 2^-24, shape (N, count).
    """
    rows = _mix(_stream(key) + indices * _signed(_WEYL))
    places = torch.arange(count, device=indices.device) * _signed(_WEYL)
    return _shift_right(_mix(rows[:, None] + places), 40).float() * 2.0**-24


@lru_cache(maxsize=16)
def _stream(key: tuple[int, ...]) -> int:
    """Where the numbers of a key start: SplitMix64 with the parts of the key added in turn."""
    state = torch.zeros((), dtype=torch.int64)
    for part in key:
        state = _mix(state + part + _signed(_WEYL))
    return int(state)


def _mix(state: Tensor) -> Tensor:
    """SplitMix64's finaliser; int64 products wrap around as unsigned ones do."""
    for shift, multiplier in zip(_SHIFTS, _MULTIPLIERS, strict=False):
        state = (state ^ _shift_right(state, shift)) * _signed(multiplier)
    return state ^ _shift_right(state, _SHIFTS[-1])


def _shift_right(state: Tensor, places: int) -> Tensor:
    """Logical shift: torch's own fills with the sign bit."""
    return (state >> places) & (_MASK >> places)


def _signed(value: int) -> int:
    """The int64 with the last 64 bits of a non-negative integer."""
    return (value + 2**63) % 2**64 - 2**63
