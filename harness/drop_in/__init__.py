"""README's diffs, applied to lightly's example pipelines: what a user who adopts the plugin does.

``python -m harness bench drop_in`` trains them at length, ``tests/test_readme.py`` for a moment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

_ROOT = Path(__file__).parents[2]
PAGES = (_ROOT / "README.md", _ROOT / ".github/site/pages/guides/drop_in.md")
_PACKAGE = f"{__name__}.pipelines"
_PIPELINE = re.compile(r"# lightly's examples/pytorch/(\w+)\.py(?:, (.+))?")
_OPTIMIZER = re.compile(r"torch\.optim\.SGD\((.*), lr=0\.06\)")


@dataclass(frozen=True)
class Diff:
    """A diff of README or of its page on drop-in replacements.

    Attributes:
        pipeline: The example that it is for, which its first line names.
        lines: The lines behind that one, each with its sign.
        note: What else the first line says, to tell apart two diffs that put in the same.
    """

    pipeline: str
    lines: tuple[str, ...]
    note: str | None = None

    @property
    def title(self) -> str:
        """What is put in, the names that the added lines import, and the note."""
        imports = [line for line in self.lines if line.startswith("+from gmje_plugin import ")]
        words = [line.partition(" import ")[2] for line in imports]
        return ", ".join([*words, self.note] if self.note else words)


def diffs() -> list[Diff]:
    """The diffs of the pages, in their order, that name one of lightly's examples."""
    text = "".join(page.read_text() for page in PAGES)
    found = []
    for block in re.findall(r"^```diff\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        first, *lines = block.splitlines()
        if (named := _PIPELINE.search(first)) is not None:
            found.append(Diff(named[1], tuple(lines), named[2]))
    return found


def source(pipeline: str) -> str:
    """The text of an example."""
    return files(_PACKAGE).joinpath(f"{pipeline}.py").read_text()


def patch(text: str, diff: Diff) -> str:
    """The text with the diff's lines taken out and put in, wherever they stand.

    A new line is indented as the one in whose place, or behind which, it comes.

    Raises:
        ValueError: If a line of the diff is not in the text.
    """
    lines, at, indent = text.splitlines(), 0, ""
    for signed in diff.lines:
        sign, line = signed[:1], signed[1:].strip()
        if sign == "+":
            lines.insert(at, indent + line)
            at += 1
            continue
        stripped = [each.strip() for each in lines]
        if line not in stripped:
            raise ValueError(f"examples/pytorch/{diff.pipeline}.py has no line {line!r}")
        at = stripped.index(line)
        indent = lines[at].removesuffix(lines[at].lstrip())
        if sign == "-":
            del lines[at]
        else:
            at += 1
    return "\n".join(lines) + "\n"


def transform(pipeline: str) -> Callable[[Any], list[Tensor]]:
    """The transform of an example: two views of a PIL image."""
    views: Callable[[Any], list[Tensor]] = import_module(f"{_PACKAGE}.{pipeline}").transform
    return views


def run(
    text: str,
    backbone: nn.Module,
    views: Sequence[tuple[Tensor, Tensor]],
    *,
    device: str = "cpu",
    make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
) -> list[float]:
    """Runs the text of an example.

    Args:
        text: As of :func:`source`, or a patched one.
        backbone: Trained in place; 512 features.
        views: The batches, two views each, shapes (B, 3, H, W).
        device: Where.
        make_optimizer: From parameters to an optimizer, instead of the example's SGD.

    Returns:
        The loss of each step.
    """
    namespace: dict[str, Any] = {"__name__": __name__, "make_optimizer": make_optimizer}
    if make_optimizer is not None:
        text, count = _OPTIMIZER.subn(r"make_optimizer(\1)", text)
        if count != 1:
            raise ValueError("the example must make its optimizer as lightly's do")
    exec(compile(text, "<README's diff>", "exec"), namespace)
    return list(namespace["train"](backbone, views, device))
