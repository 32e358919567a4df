"""What ``python -m harness --help`` prints: made from the settings and the files of ``configs``."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from itertools import takewhile
from pathlib import Path
from typing import Any

import omegaconf
from omegaconf import OmegaConf

from harness.settings.command_line import kinds, option_groups
from harness.settings.experiments import GROUPS
from harness.settings.registry import CONFIGS, Registered, registered
from harness.settings.words import as_typed

_USAGE = "python -m harness [GROUP=CHOICE ...] [OPTION=VALUE ...]"
_COMMANDS = (
    ("python -m harness", "the quickstart: minutes, no download"),
    ("python -m harness trainer.epochs=40", "another value of an option"),
    ("python -m harness experiment=synthetic", "another choice of a group"),
    ("python -m harness -m seed=1,4", "one run for each value"),
    ("python -m harness seed=7 --cfg job", "all that would be set; nothing runs"),
    ("python -m harness report outputs", "tables and figures of all runs"),
    ("python -m harness export RUN", "the trained backbone, for plain timm"),
    ("python -m harness bench bank", "speed and memory of banks"),
    ("python -m harness bench step", "speed of training steps"),
    ("python -m harness bench losses", "how costs grow with batch and nodes"),
    ("python -m harness bench mixture", "log-densities beside scikit-learn's"),
    ("python -m harness bench drop_in", "README's diffs at lightly's settings"),
    ("python -m harness bench bank_error", "banks against all training images"),
    ("python -m harness gpu --minutes 55", "tests, speed and long rows on a GPU"),
)
_RESULTS = (
    "Results go to outputs/EXPERIMENT/OPTIONS. The same command goes on with a run that was "
    "interrupted and shows one that has finished, unless overwrite=true. What is wrong with the "
    "options is told at once. report, export, bench and gpu have a --help of their own."
)
_OPTIONS = (
    "Each is shown with its default and, in brackets, what it may be. Defaults marked [P] are "
    "printed in the paper, [D] derived from printed figures, [R] chosen by us because the print is "
    "lost. What a choice of a group sets is said beside it; options that only some choices have "
    "stand below them."
)
_SIGNS = {"at least": ">=", "above": ">", "at most": "<=", "below": "<"}
_LEFT = 36  # columns of what is typed
_SPACE = "\N{NO-BREAK SPACE}"  # where lines do not end; printed as any space


@dataclass
class _Scale:
    """How much of the paper's protocols; each method's part of them is in configs/recipe."""


def help_text(width: int) -> str:
    """All of it, in lines of at most ``width`` columns as far as words allow."""
    return "\n".join(_lines(width))


def _lines(width: int) -> Iterator[str]:
    groups = [(path, kind, _choices(path, kind)) for path, kind in option_groups()]
    groups.insert(2, ("scale", _Scale, _choices("scale", _Scale)))  # next to the experiment
    usual = _set_by(CONFIGS / "config.yaml")
    yield from (_USAGE, "", *_table(_COMMANDS, width, left=42), "", *_wrap(_RESULTS, width))
    yield from ("", "GROUPS AND THEIR CHOICES", "")
    for path, _, choices in groups:
        marked = {usual.get(path): f"{usual.get(path)}{_SPACE}(default)"}
        if choices:
            text = f"{_typed(path)}: {', '.join(marked.get(name, name) for name in choices)}"
            yield from _wrap(text, width, first="  ", later=" " * 6)
    yield from ("", "OPTIONS", "", *_wrap(_OPTIONS, width))
    for path, kind, choices in groups:
        title = f"{_typed(path).upper()}: {inspect.getdoc(kind)}" if path else ""
        yield from ("", *_wrap(title, width))
        for settings in dict.fromkeys([kind, *(choice.settings for choice in choices.values())]):
            yield from _table(_rows(path, kind, settings, choices), width, left=_LEFT)


def _rows(
    path: str, kind: Any, settings: Any, choices: Mapping[str, Registered]
) -> Iterator[tuple[str, str]]:
    """The choices of a group that have the options of a dataclass, and these options.

    Args:
        path: The group.
        kind: The dataclass of the options that all its choices have.
        settings: That, or one made from it, whose other options are left out.
        choices: All of the group's.
    """
    for name, choice in choices.items():
        if choice.settings is settings:
            yield f"{_typed(path)}={name}", f"{choice.help}{_sets(choice.values)}"
    known = () if settings is kind else fields(kind)
    for item in fields(settings):
        if item.metadata.get("help") and item not in known:
            name = f"{path}.{item.name}".removeprefix(".")
            yield f"  {name}{_default(item)}", f"{item.metadata['help']}{_values(item)}"


def _default(item: Field[Any]) -> str:
    value: Any = item.default if item.default_factory is MISSING else item.default_factory()
    return "" if value in ({}, omegaconf.MISSING) else f"={as_typed(value)}"


def _values(item: Field[Any]) -> str:
    """What an option may be: one of some words, or of a type and in a range."""
    if item.default_factory is dict:
        return ""
    words = " | ".join(map(as_typed, item.metadata.get("choices", ())))
    bounds: Mapping[str, float] = item.metadata.get("bounds", {})
    signs = [f"{sign} {bounds[word]:.10g}" for word, sign in _SIGNS.items() if word in bounds]
    kind = f"{item.type} {', '.join(signs)}".replace("None", "null").strip()
    return f" ({words or kind.replace(' ', _SPACE)})"


def _choices(path: str, kind: type) -> dict[str, Registered]:
    """The choices of a group by name: registered dataclasses, or files."""
    found = dict(registered(path))
    for file in sorted((CONFIGS / _typed(path)).glob("*.yaml")) if path else ():
        lines = file.read_text().removeprefix("# @package _global_\n").splitlines()
        about = " ".join(line[2:] for line in takewhile(lambda line: line[:2] == "# ", lines))
        settings = next((each for each in kinds(kind) if _is_for(each, file.stem)), kind)
        uses: tuple[str, ...] = getattr(settings, "uses", GROUPS)
        about += f" Uses {', '.join(uses)}." if uses != GROUPS else ""
        found[file.stem] = Registered(file.stem, about, settings, _set_by(file))
    return found


def _is_for(settings: Any, name: str) -> bool:
    """Whether a dataclass has the options of a group's choice."""
    names = [item.metadata.get("choices", ()) for item in fields(settings) if item.name == "name"]
    return any(name in allowed for allowed in names)


def _set_by(file: Path) -> dict[str, Any]:
    """What a file of a group sets: other groups, and options but for those of rows."""
    config: Any = OmegaConf.to_container(OmegaConf.load(file))
    group = "" if file.parent == CONFIGS else f"{file.parent.name}/"
    found = {}
    for entry in config.pop("defaults", ()):
        pairs = entry.items() if isinstance(entry, dict) else ()
        for name, value in pairs:
            if name.startswith("override /"):
                found[name.removeprefix("override /")] = value
            elif not name.startswith("/"):  # a schema, or of a row
                found[f"{group}{name}"] = value
    for name, value in config.items():
        inner = value.items() if isinstance(value, dict) else ()
        found.update({f"{name}.{key}": each for key, each in inner} or {name: value})
    return {name: value for name, value in found.items() if not isinstance(value, dict)}


def _sets(values: Mapping[str, Any]) -> str:
    pairs = [f"{k}={as_typed(v)}" for k, v in values.items() if k.split(".")[-1] != "name"]
    return f" Sets {', '.join(pairs)}." if pairs else ""


def _table(rows: Iterable[tuple[str, str]], width: int, *, left: int) -> Iterator[str]:
    """What is typed on the left and what it is beside it, or below where it is too long."""
    for typed, text in rows:
        first = f"  {typed}".ljust(left - 2) + "  "
        if len(first) > left:
            yield first.rstrip()
            first = " " * left
        yield from _wrap(text, width, first=first, later=" " * left)


def _wrap(text: str, width: int, *, first: str = "", later: str = "") -> list[str]:
    lines = textwrap.wrap(
        text.replace("``", "").replace("\n\n", " "),
        width,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_SPACE, " ") for line in lines]


def _typed(path: str) -> str:
    """A group as it is typed: ``data/views``."""
    return path.replace(".", "/")
