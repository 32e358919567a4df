"""Blocks as one HTML page that needs nothing else: no network, no script, no file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from harness.figures import BLUE
from harness.report.document import (
    Block,
    Bullets,
    Commands,
    Heading,
    Paragraph,
    Picture,
    Table,
)

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #59626b; --ground: #fdfdfc;
  --card: #f4f5f4; --line: #d5d9dc; --link: #00558c; --blue: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --soft: #a3acb5; --ground: #15181b; --card: #1e2226; --line: #3a4147;
    --link: #7cc0f0; --blue: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 76rem;
  font: 1rem/1.55 system-ui, sans-serif; color: var(--ink); background: var(--ground);
  overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.25; margin: 2.2rem 0 0.6rem; }
h1 { font-size: 1.8rem; margin-top: 0.5rem; }
h2 { font-size: 1.4rem; padding-top: 1.2rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.1rem; }
p, ul { max-width: 48rem; margin: 0.6rem 0; }
a { color: var(--link); }
nav ul { padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: 0.3rem 1.2rem; }
.box { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px;
  background: var(--card); }
.box:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
figure { margin: 1.2rem 0; }
figcaption { color: var(--soft); font-size: 0.9rem; max-width: 48rem; margin-bottom: 0.4rem; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 0.8rem; text-align: left; vertical-align: top; }
thead th { vertical-align: bottom; }
tbody tr { border-top: 1px solid var(--line); }
tbody th { font-weight: 500; min-width: min(12rem, 40vw); max-width: min(22rem, 45vw); }
.numeric :is(td, thead th:not(:first-child)) { text-align: right; }
.numeric td { white-space: nowrap; }
table:not(.numeric) { width: max-content; }
td { max-width: min(44rem, 70vw); }
thead + tbody td { max-width: 20rem; }
svg { display: block; width: 100%; min-width: 44rem; height: auto; padding: 0.6rem; }
pre { margin: 0; padding: 0.8rem 1rem; font: 0.85rem/1.6 ui-monospace, monospace; }
@media print { body { max-width: none; padding: 0; } .box { overflow: visible; border: 0; }
  svg { min-width: 0; } tr, figure.picture { break-inside: avoid; } h2, h3 { break-after: avoid; }
  pre { white-space: pre-wrap; } }
"""


def render(blocks: Sequence[Block]) -> str:
    """The page's text."""
    headings = [block for block in blocks if isinstance(block, Heading)]
    title = next(heading.text for heading in headings if heading.level == 1)
    anchors = {id(heading): f"part-{number}" for number, heading in enumerate(headings)}
    links = "".join(
        f'<li><a href="#{anchors[id(heading)]}">{escape(heading.text)}</a></li>'
        for heading in headings
        if heading.level == 2
    )
    body = []
    for block in blocks:
        if isinstance(block, Heading):
            level, anchor = block.level, anchors[id(block)]
            body.append(f'<h{level} id="{anchor}">{escape(block.text)}</h{level}>')
            if level == 1:
                body.append(f'<nav aria-label="Contents"><ul>{links}</ul></nav>')
        else:
            body.append(_block(block))
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
            *body,
            "</main>\n</body>\n</html>\n",
        ]
    )


def _block(block: Paragraph | Bullets | Table | Picture | Commands) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Bullets(lines):
            return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"
        case Table():
            return _captioned(block.caption, _table(block), kind="table")
        case Picture():
            return _captioned(block.caption, _inline(block), kind="picture")
        case Commands(lines):
            return _box("Commands", "<pre><code>" + escape("\n".join(lines)) + "</code></pre>")


def _captioned(caption: str, inside: str, *, kind: str) -> str:
    return (
        f'<figure class="{kind}"><figcaption>{escape(caption)}</figcaption>'
        f"{_box(caption, inside)}</figure>"
    )


def _box(label: str, inside: str) -> str:
    """Scrolls by itself where it is wider than the page, by keyboard too."""
    return (
        f'<div class="box" tabindex="0" role="region" aria-label="{escape(label)}">{inside}</div>'
    )


def _table(table: Table) -> str:
    cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    head = f"<thead><tr>{cells}</tr></thead>" if any(table.header) else ""
    lines = [
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in others)
        + "</tr>"
        for first, *others in table.rows
    ]
    kind = ' class="numeric"' if table.numeric else ""
    return f"<table{kind}>{head}<tbody>{''.join(lines)}</tbody></table>"


def _inline(picture: Picture) -> str:
    """The SVG without what only a file of its own needs, its text for those who cannot see it."""
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", picture.svg)
    svg = re.sub(BLUE, "var(--blue)", svg, flags=re.IGNORECASE)  # lighter on a dark page
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(picture.alt)}" ', 1)
