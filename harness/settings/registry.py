"""Hydra's groups of methods, banks and backbones: each config is a dataclass, registered by it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
_Settings = TypeVar("_Settings")


@dataclass(frozen=True)
class Registered:
    """A choice of a group.

    Attributes:
        title: What tables and figures say.
        help: What ``--help`` says.
        settings: Its options.
        values: Of those whose defaults are others.
    """

    title: str
    help: str
    settings: type[Any]
    values: Mapping[str, Any]


_REGISTERED: dict[str, dict[str, Registered]] = {}


def config(
    group: str, name: str, title: str = "", /, *, help: str = "", **values: Any
) -> Callable[[type[_Settings]], type[_Settings]]:
    """Registers a dataclass of settings as ``group=name``.

    Args:
        group: Of Hydra.
        name: What is typed; also the value of the field ``name``, unless ``values`` has that.
        title: What tables and figures say. Default: the name.
        help: What ``--help`` says. Default: the dataclass's docstring.
        **values: Of fields whose defaults are others.
    """

    def register(settings: type[_Settings]) -> type[_Settings]:
        node = settings(**{"name": name, **values})
        ConfigStore.instance().store(group=group, name=name, node=node)
        about = help or inspect.getdoc(settings) or ""
        _REGISTERED.setdefault(group, {})[name] = Registered(title or name, about, settings, values)
        return settings

    return register


def schema(name: str) -> Callable[[type[_Settings]], type[_Settings]]:
    """Registers a dataclass of settings as ``schema/name``, which a YAML file builds on."""

    def register(settings: type[_Settings]) -> type[_Settings]:
        ConfigStore.instance().store(group="schema", name=name, node=settings)
        return settings

    return register


def registered(group: str) -> Mapping[str, Registered]:
    """The choices of a group that are dataclasses, by name; the first of a dataclass is its own."""
    return _REGISTERED.get(group, {})


def title(group: str, name: str) -> str:
    """What tables and figures call a choice; the name itself if it is not known (any more)."""
    found = registered(group).get(name)
    return found.title if found else name
