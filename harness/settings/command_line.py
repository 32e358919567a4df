"""The words of a command line: what Hydra does not take as users type it, and what it says."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException

from harness.settings.experiments import Settings
from harness.settings.fields import SettingsError

COMMANDS = ("bench", "export", "gpu", "report")  # beside experiments
_CHOICES = {"method": "method=simclr", "bank": "bank=fifo, where the method has one"}
_PATHS = ("data.root", "output_root")  # whatever is typed for them is one string, ~ a home


def as_hydra_reads(words: Sequence[str]) -> list[str]:
    """The words with paths quoted where Hydra's grammar wants it.

    Raises:
        SettingsError: If a group is to be null, which Hydra has no clear word for.
    """
    for word in words:
        if word in ("scale=null", "method=null"):
            raise SettingsError(f"{word}: null is no choice of a group; leave it out")
    return [_quoted(word) for word in words]


def _quoted(word: str) -> str:
    name, _, value = word.partition("=")
    if name not in _PATHS:
        return word
    value = os.path.expanduser(value)
    word = f"{name}={value}"
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'{name}="{escaped}"'
    return word


def explain(error: OverrideParseException) -> str:
    """What is wrong with a word that Hydra cannot parse."""
    name, equals, value = error.override.partition("=")
    if not equals:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        meant = f" (did you mean {close[0]!r}?)" if close else hint(name)
        told = f"options are name=value, commands {', '.join(COMMANDS)}"
        return f"Error parsing override {name!r}: {told}{meant}"
    return (
        f"{error.override}: quote the value, once for the shell and once for Hydra: "
        f"'{name}=\"{value}\"'"
    )


def without_choice(words: Sequence[str]) -> str:
    """The option of a group of which nothing was chosen, which Hydra cannot set."""
    for word in words:
        group, dot, _ = word.partition("=")[0].lstrip("+~").partition(".")
        chosen = any(other.startswith(f"{group}=") for other in words)
        if dot and group in _CHOICES and not chosen:
            return f"{word} needs a choice first: {_CHOICES[group]}"
    return "an option of method or bank needs a choice first: method=simclr, ..."


def hint(name: str) -> str:
    """The option that may be meant by a name that is none: ``method.lr``, ``epochs``."""
    options = {option: option.rpartition(".")[2] for option in _options()}
    group, _, last = name.rpartition(".")
    same = [option for option, end in options.items() if last in (end, _initials(end))]
    close = difflib.get_close_matches(last, options.values(), n=1)
    near = [option for option, end in options.items() if end in close]
    meant = [
        option
        for alike in (same, near)
        for option in sorted(alike, key=lambda option: not option.startswith(f"{group}."))
    ]
    found = next((option for option in meant if option != name), None)
    return f" (did you mean {found!r}?)" if found else ""


def _options() -> list[str]:
    """All options by their full names; those of experiments and of all last."""
    found = [
        (path in ("", "experiment"), f"{path}.{item.name}".removeprefix("."))
        for path, kind in option_groups()
        for schema in kinds(kind)
        for item in fields(schema)
    ]
    return [name for _, name in sorted(found, key=lambda each: each[0])]


def option_groups(settings: type = Settings, path: str = "") -> Iterator[tuple[str, type]]:
    """The dataclasses that a command line fills, outermost first, each with its path."""
    yield path, settings
    for name, hint in get_type_hints(settings).items():
        for kind in (hint, *get_args(hint)) if get_origin(hint) is not dict else ():
            if is_dataclass(kind) and isinstance(kind, type):
                yield from option_groups(kind, f"{path}.{name}".removeprefix("."))


def kinds(settings: type) -> Iterator[type]:
    """A dataclass and those made from it."""
    yield settings
    subclasses: list[type] = settings.__subclasses__()
    for each in subclasses:
        yield from kinds(each)


def _initials(name: str) -> str:
    """``lr`` of ``learning_rate``."""
    return "".join(word[0] for word in name.split("_")) if "_" in name else name
