"""From composed configs to settings: the schemas that Hydra checks, and what it does not check.

Hydra composes the YAML files of ``configs/`` into the dataclasses, so an unknown key or a wrong
type never passes; :func:`resolve` adds the ranges and what cannot go together.
"""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from harness.settings import parts
from harness.settings.command_line import hint, told
from harness.settings.experiments import (
    GROUPS,
    ExperimentSettings,
    FailureModesSettings,
    LatentRowSettings,
    MNISTLatentsSettings,
    QuickstartSettings,
    ReplaySettings,
    Settings,
    SyntheticSettings,
)
from harness.settings.fields import SettingsError
from harness.settings.methods import BankSettings, MethodSettings

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
_SCHEMAS = {
    "settings": Settings,
    "quickstart": QuickstartSettings,
    "replay": ReplaySettings,
    "synthetic": SyntheticSettings,
    "failure_modes": FailureModesSettings,
    "mnist_latents": MNISTLatentsSettings,
    "data": parts.DataSettings,
    "views": parts.ViewSettings,
    "trainer": parts.TrainerSettings,
    "evaluation": parts.EvaluationSettings,
}


def register_schemas() -> None:
    """Makes the schemas known to Hydra, as the group ``schema`` that the YAML files build on."""
    importlib.import_module("harness.methods")  # each registers itself
    for name, schema in _SCHEMAS.items():
        ConfigStore.instance().store(group="schema", name=name, node=schema)


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
        settings = OmegaConf.to_object(config)
    except InterpolationKeyError as error:  # of what trainer=paper takes from the experiment
        name = config.experiment.name
        raise SettingsError(
            f"scale=paper and trainer=paper are for benchmark, banks and mnist_latents, not {name}"
        ) from error
    except OmegaConfBaseException as error:
        raise SettingsError(one_line(error)) from error
    if not isinstance(settings, Settings):
        raise SettingsError(f"the config must have the schema Settings, got {type(settings)}.")
    problems = list(_unused(settings.experiment, overrides)) or [
        *_unknown_keys(config, settings, ""),
        *_out_of_range(settings, ""),
        *_impossible(settings),
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
        return told(error)
    inner = error.__cause__ or error.__context__
    cause = inner if isinstance(inner, OmegaConfBaseException) else error
    if not isinstance(cause, OmegaConfBaseException):
        lines = [line for line in str(error).splitlines() if not line.startswith("To append")]
        return " ".join(lines[:2])
    message = str(cause.msg or cause).splitlines()[0]
    known = [f.name for f in fields(cause.object_type)] if is_dataclass(cause.object_type) else []
    close = difflib.get_close_matches(str(cause.key), known, n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else hint(str(cause.full_key))
    return f"{cause.full_key}: {message}{'' if cause.key in known else meant}"


def _unknown_keys(config: DictConfig, settings: Any, path: str) -> Iterator[str]:
    """Keys put in with Hydra's ``+``, which skips the schema."""
    # OmegaConf sets what a dataclass does not declare as an attribute of the object.
    declared = {item.name for item in fields(settings)} if is_dataclass(settings) else set(settings)
    for key in map(str, config):
        if key not in declared:
            yield f"{path}{key}: there is no such option"
        elif isinstance(config[key], DictConfig):
            value = settings[key] if isinstance(settings, dict) else getattr(settings, key)
            yield from _unknown_keys(config[key], value, f"{path}{key}.")


def _unused(experiment: ExperimentSettings, overrides: Sequence[str]) -> Iterator[str]:
    """What was typed for an experiment that does not use it, in one sentence."""
    names = [
        word.lstrip("+~").partition("=")[0].partition("@")[0].replace("/", ".")
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


def _impossible(settings: Settings) -> Iterator[str]:
    """Options that are each valid but not together."""
    pairs: dict[str, tuple[MethodSettings | None, BankSettings | None]]
    match settings.experiment:
        case QuickstartSettings(rows=rows):
            if not rows:
                yield "experiment.rows must hold at least one row"
            if settings.method is not None or settings.bank is not None:
                yield "method and bank are for benchmark and banks, not quickstart"
            pairs = {f"experiment.rows.{name}.": (r.method, r.bank) for name, r in rows.items()}
        case MNISTLatentsSettings(rows=rows, completed=completed):
            yield from _impossible_latents(settings, rows, completed)
            pairs = {}
        case SyntheticSettings(name=name) | FailureModesSettings(name=name):
            if settings.method is not None or settings.bank is not None:
                yield f"method and bank are for benchmark and banks, not {name}"
            pairs = {}
        case _:
            if settings.method is None:
                yield "method must be chosen (method=simclr, ...)"
            pairs = {"": (settings.method, settings.bank)}
    for path, (method, bank) in pairs.items():
        if method is not None:
            problems = [*method.problems(bank), *(bank.problems() if bank else ())]
            yield from (f"{path}{problem}" for problem in problems)
    if settings.experiment.name == "banks" and settings.method and settings.method.family != "MoCo":
        yield f"experiment=banks compares banks of moco, and {settings.method.name} has none"
    if settings.logger.mode == "online" and settings.logger.name != "wandb":
        yield f"logger.mode=online is for logger=wandb, not {settings.logger.name}"
    devices = settings.trainer.devices * settings.trainer.num_nodes
    if settings.trainer.batch_size < 2 * devices:
        yield (
            f"trainer.batch_size must hold at least 2 images for each of the {devices} devices, "
            f"got {settings.trainer.batch_size}"
        )
    elif settings.trainer.batch_size % devices:
        yield (
            f"trainer.batch_size must be a multiple of the {devices} devices that share it, "
            f"got {settings.trainer.batch_size}"
        )


def _impossible_latents(
    settings: Settings, rows: dict[str, LatentRowSettings], completed: str
) -> Iterator[str]:
    if settings.data.name != "mnist":
        yield f"experiment=mnist_latents is for data=mnist, not {settings.data.name}"
    if not rows:
        yield "experiment.rows must hold at least one row"
    elif completed not in rows:
        yield f"experiment.completed must be one of {', '.join(rows)}, got {completed!r}"
    if settings.method is not None or settings.bank is not None:
        yield "method and bank are for benchmark and banks, not mnist_latents"
    if settings.trainer.devices * settings.trainer.num_nodes > 1:
        yield "trainer.devices and trainer.num_nodes are for benchmark and banks"
    if settings.trainer.epochs < 1:
        yield "trainer.epochs must be at least 1 for mnist_latents"
    for name, row in rows.items():
        path, method = f"experiment.rows.{name}", row.method
        if method.family != "SimCLR":
            yield f"{path}.method must be of SimCLR's family, not {method.name}"
        if method.name != "parametric_gmje":
            if row.density.startswith("prototypes"):
                yield f"{path}.density={row.density} is for parametric_gmje"
        elif getattr(method, "entropy_weight", 1.0) == 0.0:
            yield f"{path}.method.entropy_weight must be above 0, for the average of prototypes_ema"


def _out_of_range(settings: Any, path: str) -> Iterator[str]:
    if isinstance(settings, dict):
        for key, value in settings.items():
            yield from _out_of_range(value, f"{path}{key}.")
    elif is_dataclass(settings):
        for item in fields(settings):
            value = getattr(settings, item.name)
            yield from _out_of_range(value, f"{path}{item.name}.")
            choices: Sequence[str | bool] = item.metadata.get("choices", ())
            if choices and value not in choices:
                allowed = ", ".join(str(word) for word in choices)
                yield f"{path}{item.name} must be one of {allowed}, got {value!r}"
            bounds = item.metadata.get("bounds", {})
            numbers = value if isinstance(value, list) else [value]
            if value is not None and bounds and not all(_inside(n, bounds) for n in numbers):
                wanted = [
                    f"{word} {bound}" for word, bound in bounds.items() if abs(bound) < math.inf
                ]
                yield f"{path}{item.name} must be finite, {' and '.join(wanted)}, got {value!r}"


def _inside(value: float, bounds: dict[str, float]) -> bool:
    """Whether a number is finite and within its bounds (NaN is within none)."""
    return (
        math.isfinite(value)
        and bounds["at least"] <= value <= bounds["at most"]
        and bounds["above"] < value < bounds["below"]
    )
