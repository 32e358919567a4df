"""A page's Markdown as one HTML file that needs nothing else: no network, no script, no file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

_FRAME = Template(Path(__file__).with_name("page.html").read_text())
_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


def render(text: str, files: Mapping[str, bytes]) -> str:
    """The page's text.

    Args:
        text: Markdown; HTML in it is shown as it is.
        files: The pictures by their paths in the Markdown.
    """
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.add_render_rule("table_open", _table_open)
    reader.add_render_rule("table_close", lambda *_: "</table></div>\n")
    # Cells would lose the spaces that indent them.
    tokens = reader.parse(text.replace("\N{NO-BREAK SPACE}", "&nbsp;"))
    title, links = "", ""
    for index, token in enumerate(tokens):
        inside = tokens[index + 1].children or [] if token.nesting == 1 else []
        match token.type:
            case "heading_open":
                token.attrSet("id", f"part-{index}")
                words = "".join(child.content for child in inside)
                if token.tag == "h1":
                    title = escape(words)
                elif token.tag == "h2":
                    links += f'<li><a href="#part-{index}">{escape(words)}</a></li>'
            case "th_open":
                token.attrSet("scope", "col")
            case "td_open" if tokens[index - 1].type == "tr_open":
                token.tag = tokens[index + 2].tag = "th"
                token.attrSet("scope", "row")
            case "inline":
                for child in token.children or []:
                    if child.type == "image":
                        child.attrSet("src", _inlined(str(child.attrs["src"]), files))
    body = reader.renderer.render(tokens, reader.options, {})
    return _FRAME.substitute(title=title, links=links, body=body)


def _table_open(_renderer: Any, tokens: Sequence[Token], index: int, *_: Any) -> str:
    """A box that scrolls by itself where it is wider than the page, by keyboard too."""
    about = max(p for p, token in enumerate(tokens[:index]) if token.type == "heading_open")
    return f'<div class="box" tabindex="0" role="region" aria-labelledby="part-{about}"><table>\n'


def _inlined(path: str, files: Mapping[str, bytes]) -> str:
    return f"data:{_TYPES[Path(path).suffix]};base64,{b64encode(files[path]).decode()}"
