"""The options of each experiment, and all options together."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from harness.settings.fields import choice, ranged
from harness.settings.methods import BankSettings, MethodSettings
from harness.settings.parts import (
    BackboneSettings,
    DataSettings,
    EvaluationSettings,
    LoggerSettings,
    TrainerSettings,
)


@dataclass
class RowSettings:
    """One pipeline of a comparison."""

    title: str = MISSING
    method: MethodSettings = MISSING
    bank: BankSettings | None = None  # of MoCo


@dataclass
class ExperimentSettings:
    """Any experiment."""

    name: str = MISSING


@dataclass
class QuickstartSettings(ExperimentSettings):
    """Pipelines that differ by one line, each over several seeds from ``seed`` on."""

    name: str = choice("quickstart")
    num_seeds: int = ranged(3, low=1)
    rows: dict[str, RowSettings] = field(default_factory=dict)


@dataclass
class ReplaySettings(ExperimentSettings):
    """One method from one seed, as in the paper's Experiment 2 (Huang 2026, Sec. 5.2)."""

    name: str = choice("benchmark", "banks")
    # What differs between its parts 2a (banks) and 2b (benchmark).
    paper_epochs: int = ranged(200, low=1)
    bank_size: int = ranged(4096, low=1)


@dataclass
class LatentRowSettings:
    """An encoder and the density of its embeddings that the paper's Table 2 has.

    gaussian: one Gaussian of all training embeddings. gmm: a mixture fitted afterwards by EM.
    prototypes: ``GMJEPrototypeLoss.mixture()``. prototypes_ema: its means with uniform weights and,
    for each, the loss's average of the second moment. prototypes_em: steps of EM from there.
    """

    title: str = MISSING
    method: MethodSettings = MISSING
    density: str = choice("gaussian", "gmm", "prototypes", "prototypes_ema", "prototypes_em")


@dataclass
class MNISTLatentsSettings(ExperimentSettings):
    """Encoders, decoders and latent densities of MNIST (Huang 2026, Sec. 5.3, App. P.4)."""

    name: str = choice("mnist_latents")
    paper_epochs: int = ranged(50, low=1)  # [P]
    decoder_epochs: int = ranged(50, low=1)  # [P]
    num_components: int = ranged(50, low=1)  # of a mixture fitted by EM; [R]
    # Whole images are completed from their halves in the embeddings of this row; not in the paper.
    completed: str = "gmje"
    completion_epochs: int = ranged(10, low=1)
    rows: dict[str, LatentRowSettings] = field(default_factory=dict)


@dataclass
class FailureModesSettings(ExperimentSettings):
    """Failures of the paper's objectives beside their remedies; only the seed can be chosen."""

    name: str = choice("failure_modes")


@dataclass
class Settings:
    """Everything one can ask of ``python -m harness``."""

    experiment: ExperimentSettings = MISSING
    method: MethodSettings | None = None  # the rows of quickstart and mnist_latents have their own
    bank: BankSettings | None = None  # of MoCo
    data: DataSettings = MISSING
    backbone: BackboneSettings = MISSING
    trainer: TrainerSettings = MISSING
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    logger: LoggerSettings = MISSING
    seed: int = ranged(1, low=0, high=2**31)
    output_root: str = "outputs"
    overwrite: bool = False  # whether to run again what has finished
