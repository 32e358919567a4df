"""Which words of a command line decide what comes out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

# Where results go, who is told of them, how the work is shared out; an experiment has a folder.
_NO_DIFFERENCE = re.compile(
    r"experiment|output_root|overwrite|logger(\..*)?|data\.(keep|workers)|experiment\.workers"
)
_CHOOSE_OTHERS = ("experiment", "scale")  # groups that say which configs other groups have


def deciding(overrides: Sequence[str], config: DictConfig) -> list[str]:
    """An experiment's overrides without those that change nothing that comes out.

    So neither ``logger=csv`` is among them nor ``seed=1`` where 1 is the default, and a number is
    written in one way. Hydra must be initialised.

    Args:
        overrides: As typed.
        config: What they compose to.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    options = {item.key_or_group: item for item in parsed if _is_option(item, config)}
    groups = [item for item in parsed if item.key_or_group not in options]
    return [*_groups(groups, list(options.values()), config), *_options(options, groups, config)]


def _groups(
    groups: Sequence[Override], options: Sequence[Override], config: DictConfig
) -> Iterator[str]:
    asked = _that_matter(groups)
    if not asked:
        return
    others = [item for item in groups if item.key_or_group in _CHOOSE_OTHERS]
    usual = compose("config", overrides=_lines(others), return_hydra_config=True)
    left = list(groups)
    for item in asked:
        rest = [other for other in left if other is not item]
        is_usual = usual.hydra.runtime.choices.get(item.key_or_group) == item.value()
        if is_usual and _compose_to(config, _lines([*rest, *options])):
            left = rest
        else:
            yield item.input_line or ""


def _options(
    options: dict[str, Override], groups: Sequence[Override], config: DictConfig
) -> Iterator[str]:
    asked = _that_matter(options.values())
    if not asked:
        return
    without = compose("config", overrides=_lines(groups))
    for name in (item.key_or_group for item in asked):
        value = OmegaConf.select(config, name)
        parent, _, last = name.rpartition(".")
        around = OmegaConf.select(without, parent) if parent else without
        # What is taken from another option may be the same only because that one was typed.
        taken = OmegaConf.is_dict(around) and OmegaConf.is_interpolation(around, last)
        if taken or OmegaConf.select(without, name) != value:
            yield f"{name}={as_typed(value)}"


def _compose_to(config: DictConfig, lines: list[str]) -> bool:
    try:
        return bool(_values(compose("config", overrides=lines)) == _values(config))
    except (HydraException, OmegaConfBaseException):
        return False


def _values(config: DictConfig) -> Any:
    return OmegaConf.to_container(config, resolve=True)


def _that_matter(overrides: Iterable[Override]) -> list[Override]:
    return [item for item in overrides if not _NO_DIFFERENCE.fullmatch(item.key_or_group)]


def _is_option(item: Override, config: DictConfig) -> bool:
    """Whether an override sets one value, not a group's config or a part of the tree."""
    name = item.key_or_group
    if item.is_delete() or item.package or "/" in name:
        return False
    value = OmegaConf.select(config, name)
    return not OmegaConf.is_dict(value) and ("." in name or value is not None)


def _lines(overrides: Sequence[Override]) -> list[str]:
    return [item.input_line or "" for item in overrides]


def as_typed(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, MutableSequence):  # a list, or OmegaConf's
        return f"[{','.join(map(as_typed, value))}]"
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)
