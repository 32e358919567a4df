"""Hydra's groups of methods, banks and backbones: each config is a dataclass, registered by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore

_Settings = TypeVar("_Settings")
_TITLES: dict[tuple[str, str], str] = {}


def config(
    group: str, name: str, title: str = "", /, **values: Any
) -> Callable[[type[_Settings]], type[_Settings]]:
    """Registers a dataclass of settings as ``group=name``.

    Args:
        group: Of Hydra.
        name: What is typed; also the value of the field ``name``, unless ``values`` has that.
        title: What tables and figures say. Default: the name.
        **values: Of fields whose defaults are others.
    """

    def register(settings: type[_Settings]) -> type[_Settings]:
        node = settings(**{"name": name, **values})
        ConfigStore.instance().store(group=group, name=name, node=node)
        _TITLES[group, name] = title or name
        return settings

    return register


def title(group: str, name: str) -> str:
    """What tables and figures call a choice; the name itself if it is not known (any more)."""
    return _TITLES.get((group, name), name)
