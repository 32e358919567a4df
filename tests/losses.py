"""That a table of losses holds all that the plugin has: a new one joins every table."""

from collections.abc import Iterable

from torch import nn

from gmje_plugin import loss

ALL = set(loss.__all__)


def kinds(modules: Iterable[nn.Module]) -> set[str]:
    """The names of the plugin's losses among modules and what they are made of."""
    parts = (part for module in modules for part in module.modules())
    return {type(part).__name__ for part in parts} & ALL
