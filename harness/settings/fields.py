"""How a number's range and a word's alternatives are declared beside its default."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any


class SettingsError(Exception):
    """What was asked cannot be run; the message is one line for the user."""


def ranged(
    default: float | None,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> Any:
    """A number with inclusive (``low``, ``high``) and exclusive (``above``, ``below``) bounds."""
    bounds = {"at least": low, "at most": high, "above": above, "below": below}
    return field(default=default, metadata={"bounds": bounds})


def ranged_list(*default: int, low: int, high: int) -> Any:
    """Whole numbers, each with inclusive bounds."""
    bounds = {"at least": low, "at most": high, "above": -math.inf, "below": math.inf}
    return field(default_factory=lambda: list(default), metadata={"bounds": bounds})


def choice(default: str, *others: str | bool) -> Any:
    """A word, or true or false, out of several."""
    return field(default=default, metadata={"choices": (default, *others)})
