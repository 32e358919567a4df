"""A page as a list of blocks, which the two renderers turn into Markdown and HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """A heading; the page's title is of level 1."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Text."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """Lines, one a bullet."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table; a row's first cell is its heading. ``numeric``: the others are right-aligned."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: bool = True


@dataclass(frozen=True)
class Picture:
    """A figure as SVG whose ink is ``currentColor``; ``name`` is unlike any other's of the page."""

    name: str
    svg: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Commands:
    """Lines to type."""

    lines: Sequence[str]


Block = Heading | Paragraph | Bullets | Table | Picture | Commands
