"""The options of every command line: names, types, ranges, defaults and where each comes from.

Hydra composes the YAML files of ``configs/`` into these dataclasses, so an unknown key or a wrong
type never passes; :func:`resolve` adds the ranges. Marks on defaults: [P] printed in the paper,
[R] chosen by us because the print is lost, [D] chosen by us for the digits: by kNN accuracy on a
fifth of the training images (``data.split=validation``), not on the test images.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import MissingConfigException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


class SettingsError(Exception):
    """What was asked cannot be run; the message is one line for the user."""


def ranged(
    default: float | None,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> Any:
    """A number with inclusive (``low``, ``high``) and exclusive (``above``, ``below``) bounds."""
    bounds = {"at least": low, "at most": high, "above": above, "below": below}
    return field(default=default, metadata={"bounds": bounds})


def choice(default: str, *others: str | bool) -> Any:
    """A word, or true or false, out of several."""
    return field(default=default, metadata={"choices": (default, *others)})


@dataclass
class ViewSettings:
    """The parts of a random view in the order in which they act, all off here.

    The values with their sources are in ``configs/data/views``: digits, simclr_paper, lightly,
    mnist_paper.
    """

    # Random resized crop, as torchvision's: least share of the area; 1 is off.
    crop_min: float = ranged(1.0, above=0.0, high=1.0)
    flip: float = ranged(0.0, low=0.0, high=1.0)  # probability, left to right
    # Random affine map; each view of an image draws its own, uniform within these bounds.
    rotation: float = ranged(0.0, low=0.0, high=180.0)  # degrees, either way
    shift: float = ranged(0.0, low=0.0, high=1.0)  # share of the width, either way
    zoom: float = ranged(0.0, low=0.0, below=1.0)  # size of the content from 1 - zoom to 1 + zoom
    shear: float = ranged(0.0, low=0.0, high=1.0)  # tangent of the angle, either way
    # Colour jitter, as torchvision's.
    jitter: float = ranged(0.0, low=0.0, high=1.0)  # probability of the next four together
    brightness: float = ranged(0.0, low=0.0, high=1.0)  # factor from 1 - x to 1 + x
    contrast: float = ranged(0.0, low=0.0, high=1.0)
    saturation: float = ranged(0.0, low=0.0, high=1.0)
    hue: float = ranged(0.0, low=0.0, high=0.5)  # turns, either way
    grayscale: float = ranged(0.0, low=0.0, high=1.0)  # probability
    # Mean and deviation to normalise by, for evaluation too: of the training images, or known.
    normalization: str = choice("training_images", "cifar10", "imagenet", "half")


@dataclass
class DataSettings:
    """Which images, how they are split, held and augmented."""

    name: str = choice("digits", "cifar10", "mnist", "folder")
    root: str = "data"  # where cifar10 and mnist lie or are put; with folder, the folder itself
    # validation holds training images out, for choosing settings: 5,000, or a fifth if fewer.
    split: str = choice("test", "validation")
    image_size: int | None = ranged(None, low=8, high=4096)  # pixels a side; folder only
    # Images of the largest class for one of the smallest, the others between in equal ratios.
    imbalance: float = ranged(1.0, low=1.0)  # 1 is off
    # class_correlated: a stream that drifts from class to class, two at a time.
    order: str = choice("shuffled", "class_correlated")
    # Where the images are: on the device if they take at most half of its free memory, else in
    # the host's, else in their files (folder only), which workers read anew each time.
    keep: str = choice("auto", "device", "host", "files")
    workers: int = ranged(4, low=0, high=256)  # processes that read files
    views: ViewSettings = field(default_factory=ViewSettings)


@dataclass
class BackboneSettings:
    """The network whose features are evaluated."""

    name: str = MISSING


@dataclass
class SmallCNNSettings(BackboneSettings):
    """Three convolutions, for a laptop."""

    name: str = choice("small_cnn")
    width: int = ranged(16, low=1, high=1024)  # channels of the first layer [D]


@dataclass
class ResNet18Settings(BackboneSettings):
    """torchvision's ResNet-18 with a 3 x 3 stem of stride 1 and no max-pooling [P]."""

    name: str = choice("resnet18")


@dataclass
class TimmSettings(BackboneSettings):
    """Any model of timm, by timm's name, without pretrained weights."""

    name: str = MISSING
    # Whether the first layer keeps more of the image: harness.backbones says how. auto: where the
    # images have at most 64 pixels a side and the model lets it be done.
    small_stem: str | bool = choice("auto", True, False)


@dataclass
class TrainerSettings:
    """How long and on what to train; the learning rate belongs to the method."""

    epochs: int = ranged(20, low=1)  # [D]
    batch_size: int = ranged(64, low=2)  # [D]
    warmup: float = ranged(0.1, low=0.0, below=1.0)  # share of the steps [R]
    log_every: int = ranged(1, low=1)  # steps
    accelerator: str = choice("cpu", "cuda")
    # Threads of one CPU operation. Operations on 8 x 8 images are too small to share, and two
    # threads on a core that another process uses wait for each other: 250 ms a step against 25.
    threads: int = ranged(1, low=1)


@dataclass
class EvaluationSettings:
    """Weighted k nearest neighbours (Wu et al. 2018), as in lightly's benchmarks."""

    neighbours: int = ranged(20, low=1)  # 200 in lightly's, of 50,000 images; digits have 1,347
    temperature: float = ranged(0.1, above=0.0)  # lightly's


@dataclass
class LoggerSettings:
    """Where curves go beside metrics.csv and results.json, which are always written."""

    name: str = choice("wandb", "none")
    mode: str = choice("offline", "online")  # offline needs neither an account nor a network
    project: str = "gmje-plugin"


@dataclass
class BankSettings:
    """A memory bank of MoCo."""

    size: int = ranged(64, low=1)  # one batch, as in the paper (256 of each) [P]


@dataclass
class FIFOBankSettings(BankSettings):
    """lightly's queue."""


@dataclass
class SMCBankSettings(BankSettings):
    """``SMCMemoryBankModule`` with its defaults; ``bank=smc_paper`` is Algorithm 2 [P]."""

    resampling: str = choice(
        "without_replacement", "multinomial", "stratified", "systematic", "residual"
    )
    ess_threshold: float | None = ranged(0.5, low=0.0, high=1.0)
    count_own_query: bool = False


@dataclass
class MethodSettings:
    """What every method has: SGD with a cosine schedule, and lightly's projection head."""

    learning_rate: float = ranged(0.1, above=0.0)  # each method has its own
    momentum: float = ranged(0.9, low=0.0, below=1.0)  # [R]
    weight_decay: float = ranged(5e-4, low=0.0)  # [R]
    hidden_dim: int = ranged(128, low=1)  # twice the features [D]
    output_dim: int = ranged(32, low=1)  # [D]


@dataclass
class SimCLRSettings(MethodSettings):
    """SimCLR with lightly's ``NTXentLoss``."""

    learning_rate: float = ranged(0.4, above=0.0)  # [D]
    temperature: float = ranged(0.2, above=0.0)  # [D]


@dataclass
class SimCLRPrototypeSettings(MethodSettings):
    """SimCLR's pipeline with ``GMJEPrototypeLoss``."""

    learning_rate: float = ranged(0.01, above=0.0)  # [D]
    num_prototypes: int = ranged(64, low=1)  # [R]
    temperature: float = ranged(0.05, above=0.0)  # [D]


@dataclass
class SimCLREntropySettings(MethodSettings):
    """SimCLR's pipeline with ``GJEEntropyLoss``."""

    learning_rate: float = ranged(0.05, above=0.0)  # [D]
    weight: float = ranged(1.0, low=0.0)  # the loss's default; 0.3 and less were worse [D]


@dataclass
class MoCoSettings(MethodSettings):
    """MoCo with any bank."""

    learning_rate: float = ranged(0.02, above=0.0)  # [D]
    bank: BankSettings = MISSING
    temperature: float = ranged(0.1, above=0.0)  # [R]
    ema: float = ranged(0.99, low=0.0, high=1.0)  # [R]
    in_batch_negatives: bool = False  # the same on both sides wherever banks are compared


@dataclass
class BYOLSettings(MethodSettings):
    """BYOL with lightly's ``BYOLPredictionHead`` and ``NegativeCosineSimilarity``."""

    learning_rate: float = ranged(0.1, above=0.0)  # [D]
    ema: float = ranged(0.99, low=0.0, high=1.0)  # [D]
    predictor_dim: int = ranged(128, low=1)  # [R]


@dataclass
class BYOLMDNSettings(BYOLSettings):
    """BYOL's pipeline with ``GMJEMDNHead`` and ``GMJEMDNLoss``."""

    learning_rate: float = ranged(0.008, above=0.0)  # an exact likelihood needs a small one [D]
    num_components: int = ranged(5, low=1)  # [R]
    scale: str = choice("softplus", "exp")  # [P]


@dataclass
class RowSettings:
    """One pipeline of a comparison."""

    title: str = MISSING
    method: MethodSettings = MISSING


@dataclass
class ExperimentSettings:
    """Any experiment."""

    name: str = MISSING


@dataclass
class QuickstartSettings(ExperimentSettings):
    """Pipelines that differ by one line, each over several seeds from ``seed`` on."""

    name: str = "quickstart"
    num_seeds: int = ranged(3, low=1)
    rows: dict[str, RowSettings] = field(default_factory=dict)


@dataclass
class Settings:
    """Everything one can ask of ``python -m harness``."""

    experiment: ExperimentSettings = MISSING
    data: DataSettings = MISSING
    backbone: BackboneSettings = MISSING
    trainer: TrainerSettings = MISSING
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    logger: LoggerSettings = MISSING
    seed: int = ranged(1, low=0, high=2**31)
    output_root: str = "outputs"
    overwrite: bool = False  # whether to run again what has finished


_SCHEMAS = {
    "settings": Settings,
    "quickstart": QuickstartSettings,
    "simclr": SimCLRSettings,
    "simclr_prototype": SimCLRPrototypeSettings,
    "simclr_entropy": SimCLREntropySettings,
    "moco": MoCoSettings,
    "byol": BYOLSettings,
    "byol_mdn": BYOLMDNSettings,
    "fifo": FIFOBankSettings,
    "smc": SMCBankSettings,
    "data": DataSettings,
    "small_cnn": SmallCNNSettings,
    "resnet18": ResNet18Settings,
    "timm": TimmSettings,
    "views": ViewSettings,
    "trainer": TrainerSettings,
    "logger": LoggerSettings,
}


def register_schemas() -> None:
    """Makes the schemas known to Hydra, as the group ``schema`` that the YAML files build on."""
    for name, schema in _SCHEMAS.items():
        ConfigStore.instance().store(group="schema", name=name, node=schema)


def resolve(config: DictConfig) -> Settings:
    """Turns a composed config into settings, with every range checked.

    Raises:
        SettingsError: If a value is missing, out of its range, or not known to the schema.
    """
    try:
        settings = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise SettingsError(one_line(error)) from error
    if not isinstance(settings, Settings):
        raise SettingsError(f"the config must have the schema Settings, got {type(settings)}.")
    problems = [*_unknown_keys(config, settings, ""), *_out_of_range(settings, "")]
    if problems:
        raise SettingsError("; ".join(problems))
    return settings


def one_line(error: BaseException) -> str:
    """What Hydra or OmegaConf has to say, on one line and with a close match where there is one."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        asked = "=".join(str(error.missing_cfg_file).rsplit("/", 1))
        return f"{asked}: there is no such config, only {', '.join(error.options)}"
    inner = error.__cause__ or error.__context__
    cause = inner if isinstance(inner, OmegaConfBaseException) else error
    if not isinstance(cause, OmegaConfBaseException):
        lines = [line for line in str(error).splitlines() if not line.startswith("To append")]
        return " ".join(lines[:2])
    message = str(cause.msg or cause).splitlines()[0]
    known = [f.name for f in fields(cause.object_type)] if is_dataclass(cause.object_type) else []
    close = difflib.get_close_matches(str(cause.key), known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close and cause.key not in known else ""
    return f"{cause.full_key}: {message}{hint}"


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
            if value is not None and bounds and not _inside(value, bounds):
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
