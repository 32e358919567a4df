"""The words of a command line: what Hydra does not take as users type it, and what it says."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException

from harness.settings import methods, parts
from harness.settings.experiments import ExperimentSettings, Settings

_PATHS = ("data.root", "output_root")  # whatever is typed for them is one string, ~ a home
_NULL_BY_DEFAULT = ("scale=null", "method=null")  # Hydra has no null for a group
_PREFIXES: tuple[tuple[type, str], ...] = (
    (methods.MethodSettings, "method."),
    (methods.BankSettings, "bank."),
    (parts.BackboneSettings, "backbone."),
    (parts.DataSettings, "data."),
    (parts.ViewSettings, "data.views."),
    (parts.TrainerSettings, "trainer."),
    (parts.EvaluationSettings, "evaluation."),
    (parts.LoggerSettings, "logger."),
    (ExperimentSettings, "experiment."),
    (Settings, ""),
)


def as_hydra_reads(words: Sequence[str]) -> list[str]:
    """The words with paths quoted where Hydra's grammar wants it, and without defaults of null."""
    return [_quoted(word) for word in words if word not in _NULL_BY_DEFAULT]


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


def told(error: OverrideParseException) -> str:
    """What is wrong with a word that Hydra cannot parse."""
    name, equals, value = error.override.partition("=")
    if not equals:
        return f"Error parsing override {name!r}: options are name=value{hint(name)}"
    return (
        f"{error.override}: quote the value, once for the shell and once for Hydra: "
        f"'{name}=\"{value}\"'"
    )


def hint(name: str) -> str:
    """The option that may be meant by a name that is none: ``method.lr``, ``epochs``."""
    options = {option: option.rpartition(".")[2] for option in _options()}
    group, _, last = name.rpartition(".")
    same = [option for option, end in options.items() if last in (end, _initials(end))]
    same.sort(key=lambda option: not option.startswith(f"{group}."))
    close = difflib.get_close_matches(last, options.values(), n=1)
    near = [option for option, end in options.items() if end in close]
    near.sort(key=lambda option: not option.startswith(f"{group}."))
    found = next((option for option in [*same, *near] if option != name), None)
    return f" (did you mean {found!r}?)" if found else ""


def _options() -> Iterator[str]:
    """All options by their full names."""
    schema: Any
    for kind, prefix in _PREFIXES:
        for schema in _kinds(kind):
            yield from (f"{prefix}{item.name}" for item in fields(schema))


def _kinds(kind: type) -> Iterator[type]:
    yield kind
    subclasses: list[type] = kind.__subclasses__()
    for each in subclasses:
        yield from _kinds(each)


def _initials(name: str) -> str:
    """``lr`` of ``learning_rate``."""
    return "".join(word[0] for word in name.split("_")) if "_" in name else name
