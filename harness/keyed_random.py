"""Random numbers that are a function of a key or seed, not of what was drawn before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

_MASK = 2**64 - 1
_WEYL = 0x9E3779B97F4A7C15  # odd, 2^64 over the golden ratio: SplitMix64's increment
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the CPU's global generator, which layers draw their weights from, for a while."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


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
