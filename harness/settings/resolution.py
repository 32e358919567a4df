"""From composed configs to settings: the schemas that Hydra checks, and what it does not check.

Hydra composes the YAML files of ``configs/`` into the dataclasses, so an unknown key or a wrong
type never passes; :func:`resolve` adds the ranges and what cannot go together.
"""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, is_dataclass
from typing import Any, cast

from hydra import initialize_config_dir
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue, OmegaConfBaseException

from harness.settings.command_line import explain, hint
from harness.settings.experiments import GROUPS, ExperimentSettings, Settings
from harness.settings.fields import SettingsError
from harness.settings.registry import CONFIGS


def register_schemas() -> None:
    """Makes methods and banks known to Hydra, as all else is once this package is imported."""
    importlib.import_module("harness.methods")


@contextmanager
def composing() -> Iterator[None]:
    """Within it, ``hydra.compose`` finds the configs of this checkout."""
    register_schemas()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        yield


def resolve(config: DictConfig, overrides: Sequence[str] = ()) -> Settings:
    """Turns a composed config into settings, with every range checked.

    Args:
        config: As composed.
        overrides: What was typed: an experiment refuses options that it does not use.

    Raises:
        SettingsError: If a value is missing, out of its range, or not known to the schema.
    """
    try:
        settings = cast("Settings", OmegaConf.to_object(config))
    except InterpolationKeyError as error:  # of what trainer=paper takes from the experiment
        name = config.experiment.name
        raise SettingsError(
            f"scale=paper and trainer=paper are for benchmark, banks and mnist_latents, not {name}"
        ) from error
    except OmegaConfBaseException as error:
        raise SettingsError(one_line(error)) from error
    problems = list(_unused(settings.experiment, overrides)) or [
        *_unknown_keys(OmegaConf.to_container(config), asdict(settings)),
        *_wrong(settings),
    ]
    if problems:
        raise SettingsError("; ".join(problems))
    return settings


def one_line(error: BaseException) -> str:
    """What Hydra or OmegaConf has to say, on one line and with a close match where there is one."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        asked = "=".join(str(error.missing_cfg_file).rsplit("/", 1))
        return f"{asked}: there is no such config, only {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        return explain(error)
    inner = error.__cause__ or error.__context__
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        inner = None  # where a debugger or coverage watches, OmegaConf keeps what knows no key
    cause = inner if isinstance(inner, OmegaConfBaseException) else error
    if not isinstance(cause, OmegaConfBaseException):
        lines = [line for line in str(error).splitlines() if not line.startswith("To append")]
        if any(line.startswith("Could not override 'bank'") for line in lines):
            return "bank: there is none to choose without a method that has one (method=moco, ...)"
        if lines[0].startswith("Ambiguous value"):
            return f"{lines[0]}: -m runs the command once for each"
        return " ".join(lines[:2])
    if isinstance(cause, MissingMandatoryValue):
        return f"{cause.full_key} must be given: {cause.full_key}=..."
    message = str(cause.msg or cause).splitlines()[0]
    known = [f.name for f in fields(cause.object_type)] if is_dataclass(cause.object_type) else []
    close = difflib.get_close_matches(str(cause.key), known, n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else hint(str(cause.full_key))
    if known and not meant:
        meant = f" (which has {', '.join(known)})"
    return f"{cause.full_key}: {message}{'' if cause.key in known else meant}"


def _unknown_keys(config: Any, declared: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Keys put in with Hydra's ``+``, which skips the schema."""
    for key, value in config.items():
        if key not in declared:
            yield f"{path}{key}: there is no such option"
        elif isinstance(value, dict):
            yield from _unknown_keys(value, declared[key], f"{path}{key}.")


def _unused(experiment: ExperimentSettings, overrides: Sequence[str]) -> Iterator[str]:
    """What was typed for an experiment that does not use it, in one sentence."""
    names = [
        word.lstrip("+~").partition("=")[0].rpartition("@")[2].replace("/", ".")
        for word in overrides
    ]
    unused = [
        name
        for name in names
        if name.partition(".")[0] in GROUPS
        and not {name, name.partition(".")[0]} & set(experiment.uses)
    ]
    if unused:
        yield (
            f"{', '.join(unused)}: not used by experiment={experiment.name}, "
            f"which uses {', '.join(experiment.uses)}"
        )


def _parts(settings: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every dataclass of the settings, the whole last, with the path of its options."""
    if isinstance(settings, dict):
        children = settings
    else:
        known = fields(settings) if is_dataclass(settings) else ()
        children = {item.name: getattr(settings, item.name) for item in known}
    for name, child in children.items():
        yield from _parts(child, f"{path}{name}.")
    if is_dataclass(settings):
        yield path, settings


def _wrong(settings: Settings) -> Iterator[str]:
    """Options that are out of their range, or valid but not together: each part has its rules."""
    for path, part in _parts(settings):
        for item in fields(part):
            name, value = f"{path}{item.name}", getattr(part, item.name)
            choices: Sequence[str | bool] = item.metadata.get("choices", ())
            if choices and value not in choices:
                allowed = ", ".join(str(word) for word in choices)
                yield f"{name} must be one of {allowed}, got {value!r}"
            bounds = item.metadata.get("bounds", {})
            numbers = value if isinstance(value, list) else [value]
            if value == []:
                yield f"{name} must hold at least one number"
            if value is not None and bounds and not all(_inside(n, bounds) for n in numbers):
                wanted = [f"{word} {bound}" for word, bound in bounds.items()]
                yield f"{name} must be finite, {' and '.join(wanted)}, got {value!r}"
        yield from (f"{path}{problem}" for problem in getattr(part, "problems", tuple)())


def _inside(value: float, bounds: dict[str, float]) -> bool:
    """Whether a number is finite and within its bounds (NaN is within none)."""
    return (
        math.isfinite(value)
        and bounds.get("at least", value) <= value <= bounds.get("at most", value)
        and bounds.get("above", -math.inf) < value < bounds.get("below", math.inf)
    )
