"""The parts of a page as Markdown, of text that means nothing to Markdown or HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


class Bold(str):
    """A table's cell in bold."""


@dataclass(frozen=True)
class Table:
    """A table; a row's first cell is its heading. ``numeric``: the others are right-aligned."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: bool = True

    def __str__(self) -> str:
        align = [":--", *(["--:" if self.numeric else ":--"] * (len(self.header) - 1))]
        first, *others = ([_cell(cell) for cell in cells] for cells in (self.header, *self.rows))
        lines = [f"| {' | '.join(cells)} |" for cells in (first, align, *others)]
        return "\n".join([escape(self.caption), "", *lines])


@dataclass(frozen=True)
class Picture:
    """A figure in a file beside the page, SVG or PNG; ``path`` is below the page's folder.

    ``alt`` is for those who cannot see it; a caption is for all, and may be empty.
    """

    path: str
    content: bytes
    alt: str
    caption: str = ""

    def __str__(self) -> str:
        return f"![{escape(self.alt)}]({self.path})\n\n{escape(self.caption)}".strip()


def heading(level: int, text: str) -> str:
    """A heading; the page's title is of level 1."""
    return f"{'#' * level} {escape(text)}"


def bullets(lines: Sequence[str]) -> str:
    """Lines, one a bullet."""
    return "\n".join(f"- {escape(line)}" for line in lines)


def commands(lines: Sequence[str]) -> str:
    """Lines to type."""
    longest = max(map(len, re.findall("`+", "\n".join(lines))), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}sh", *lines, fence])


def _cell(text: str) -> str:
    return f"**{escape(text)}**" if isinstance(text, Bold) else escape(text)


def escape(text: str) -> str:
    """Text on one line as it is."""
    line = re.sub(r"[^\S\N{NO-BREAK SPACE}]+", " ", text).strip(" ")
    plain = re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", line)
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
