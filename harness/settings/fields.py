"""How an option is declared: its default, range or alternatives, and what ``--help`` says of it."""

from __future__ import annotations

from dataclasses import field
from typing import Any


class SettingsError(Exception):
    """What was asked cannot be run; the message is one line for the user."""


def option(default: str | bool, *, help: str) -> Any:
    """Any value of the field's type."""
    return field(default=default, metadata={"help": help})


def ranged(
    default: float | None,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    help: str,
) -> Any:
    """A number with inclusive (``low``, ``high``) and exclusive (``above``, ``below``) bounds."""
    bounds = {"at least": low, "at most": high, "above": above, "below": below}
    given = {word: bound for word, bound in bounds.items() if bound is not None}
    return field(default=default, metadata={"bounds": given, "help": help})


def share(*, help: str) -> Any:
    """A number from 0, the default, to 1."""
    return ranged(0.0, low=0.0, high=1.0, help=help)


def ranged_list(*default: int, low: int, high: int, help: str) -> Any:
    """Whole numbers, each with inclusive bounds."""
    bounds = {"at least": low, "at most": high}
    return field(default_factory=lambda: list(default), metadata={"bounds": bounds, "help": help})


def choice(default: str, *others: str | bool, help: str = "") -> Any:
    """A word, or true or false, out of several; without ``help`` the name of a group's choice."""
    return field(default=default, metadata={"choices": (default, *others), "help": help})
