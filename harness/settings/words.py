"""Which words of a command line decide what comes out."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

# Where results go, who is told of them, how the work is shared out.
NEUTRAL = ("output_root", "overwrite", "logger", "data.keep", "data.workers", "experiment.workers")


def is_neutral(name: str) -> bool:
    """Whether an option, by its dotted name, changes nothing that comes out."""
    return any(name == neutral or name.startswith(f"{neutral}.") for neutral in NEUTRAL)


def deciding(overrides: Sequence[str], config: DictConfig) -> list[str]:
    """An experiment's overrides without those that change nothing that comes out.

    So neither ``logger=csv`` is among them nor ``seed=1`` where 1 is the default, and a number is
    written in one way. Hydra must be initialised.

    Args:
        overrides: As typed.
        config: What they compose to.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    left = sorted(parsed, key=lambda item: _is_option(item, config))  # groups first, as they act
    matter = [
        item
        for item in left
        # An experiment has a folder of its own.
        if item.key_or_group != "experiment" and not is_neutral(item.key_or_group)
    ]
    for item in matter:
        others = [other for other in left if other is not item]
        if _compose_to(config, others):
            left = others
    return [_as_one_writes_it(item, config) for item in left if item in matter]


def _compose_to(config: DictConfig, overrides: Sequence[Override]) -> bool:
    try:
        composed = compose("config", overrides=[item.input_line or "" for item in overrides])
        one, other = (OmegaConf.to_container(each, resolve=True) for each in (composed, config))
        return one == other
    # The assertion is OmegaConf's, of an option of a group of which nothing is chosen any more.
    except (AssertionError, HydraException, OmegaConfBaseException):
        return False


def _as_one_writes_it(item: Override, config: DictConfig) -> str:
    if _is_option(item, config):
        return f"{item.key_or_group}={as_typed(OmegaConf.select(config, item.key_or_group))}"
    return item.input_line or ""


def _is_option(item: Override, config: DictConfig) -> bool:
    """Whether an override sets one value, not a group's config or a part of the tree."""
    name = item.key_or_group
    if item.is_delete() or item.package or "/" in name:
        return False
    value = OmegaConf.select(config, name)
    return not OmegaConf.is_dict(value) and ("." in name or value is not None)


def as_typed(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, MutableSequence):  # a list, or OmegaConf's
        return f"[{','.join(map(as_typed, value))}]"
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)
