"""Blocks as Markdown; figures are files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.report.document import (
    Block,
    Bullets,
    Commands,
    Heading,
    Paragraph,
    Picture,
    Table,
)


def render(blocks: Sequence[Block]) -> str:
    """The page's text."""
    return "\n\n".join(_block(block) for block in blocks) + "\n"


def picture_file(picture: Picture) -> tuple[str, str]:
    """The path and content of a figure: black on white, as viewers differ in their ground."""
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    svg = picture.svg.replace("<svg ", '<svg color="#000" ', 1)
    end = svg.index(">") + 1
    return _path(picture), svg[:end] + ground + svg[end:] + "\n"


def _path(picture: Picture) -> str:
    return f"figures/{picture.name}.svg"


def _block(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {_escape(text)}"
        case Paragraph(text):
            return _escape(text)
        case Bullets(lines):
            return "\n".join(f"- {_escape(line)}" for line in lines)
        case Table(caption, header, rows, numeric):
            align = [":--", *(["--:" if numeric else ":--"] * (len(header) - 1))]
            first, *others = ([_escape(cell) for cell in cells] for cells in (header, *rows))
            lines = [f"| {' | '.join(cells)} |" for cells in (first, align, *others)]
            return "\n".join([_escape(caption), "", *lines])
        case Picture(_, _, alt, caption):
            return f"![{_escape(alt)}]({_path(block)})\n\n{_escape(caption)}"
        case Commands(lines):
            longest = max(map(len, re.findall("`+", "\n".join(lines))), default=0)
            fence = "`" * max(3, longest + 1)
            return "\n".join([f"{fence}sh", *lines, fence])


def _escape(text: str) -> str:
    """Text on one line that means nothing to Markdown or HTML."""
    line = re.sub(r"[^\S\N{NO-BREAK SPACE}]+", " ", text).strip(" ")
    plain = re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", line)
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
