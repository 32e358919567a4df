"""The options of each experiment, and all options together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import MISSING

from harness.settings.fields import choice, option, ranged
from harness.settings.methods import BankSettings, MethodSettings
from harness.settings.parts import (
    BackboneSettings,
    DataSettings,
    EvaluationSettings,
    LoggerSettings,
    TrainerSettings,
)
from harness.settings.registry import schema


@dataclass
class RowSettings:
    """One pipeline of a comparison."""

    title: str = MISSING
    method: MethodSettings = MISSING
    bank: BankSettings | None = None  # where the method has one

    def problems(self) -> Iterator[str]:
        """As the method says."""
        yield from self.method.problems_with(self.bank)


# What an experiment may use; seed, logger, output_root and overwrite are for all.
GROUPS = ("data", "backbone", "method", "bank", "scale", "trainer", "evaluation")


@dataclass
class ExperimentSettings:
    """What is run, and which groups, or options of groups, it uses."""

    uses: ClassVar[tuple[str, ...]] = GROUPS
    name: str = MISSING

    def problems_in(self, settings: Settings) -> Iterator[str]:
        """What it cannot do with the rest of the settings; here one with methods of its own."""
        if settings.method is not None or settings.bank is not None:
            yield f"method and bank are for benchmark and banks, not {self.name}"
        if settings.trainer.world_size > 1:
            yield "trainer.devices and trainer.num_nodes are for benchmark and banks"


@schema("quickstart")
@dataclass
class QuickstartSettings(ExperimentSettings):
    """Pipelines that differ by one line, each over several seeds from ``seed`` on."""

    uses: ClassVar[tuple[str, ...]] = ("data", "backbone", "trainer", "evaluation")
    name: str = choice("quickstart")
    num_seeds: int = ranged(3, low=1, help="How many seeds, from seed on.")
    workers: int = ranged(2, low=1, high=256, help="Processes, of trainer.threads each.")
    rows: dict[str, RowSettings] = field(
        default_factory=dict,
        metadata={
            "help": "Pipelines by name, each with title, method and bank; '~experiment.rows.byol' "
            "leaves one out."
        },
    )

    def problems_in(self, settings: Settings) -> Iterator[str]:
        """Besides, it needs rows that its figures can tell apart."""
        yield from super().problems_in(settings)
        if not self.rows:
            yield "experiment.rows must hold at least one row"
        if settings.trainer.epochs < 1:
            yield "trainer.epochs must be at least 1 for quickstart, which shows the untrained too"
        titles = Counter(row.title for row in self.rows.values())
        for name, row in self.rows.items():
            if titles[row.title] > 1:
                yield f"experiment.rows.{name}.title must be its own, {row.title!r} is another's"


@schema("single_run")
@dataclass
class SingleRunSettings(ExperimentSettings):
    """One method from one seed, as in the paper's Experiment 2 (Huang 2026, Sec. 5.2)."""

    name: str = choice("benchmark", "banks")
    # What differs between its parts 2a (banks) and 2b (benchmark).
    paper_epochs: int = ranged(200, low=1, help="What trainer.epochs is at scale=paper. [P]")
    bank_size: int = ranged(4096, low=1, help="What bank.size is. [R]; in 2a 256 [P]")

    def problems_in(self, settings: Settings) -> Iterator[str]:
        """It needs a method, with a bank or not as the method says."""
        if settings.method is None:
            yield "method must be chosen (method=simclr, ...)"
            return
        yield from settings.method.problems_with(settings.bank)
        if self.name == "banks" and not settings.method.has_bank:
            yield f"experiment=banks compares banks, and {settings.method.name} has none"


@schema("synthetic")
@dataclass
class SyntheticSettings(ExperimentSettings):
    """The paper's Experiment 1 (Huang 2026, Sec. 5.1), over several seeds from ``seed`` on."""

    uses: ClassVar[tuple[str, ...]] = ("trainer.threads",)
    name: str = choice("synthetic")
    num_seeds: int = ranged(10, low=1, help="How many seeds, from seed on.")
    workers: int = ranged(2, low=1, high=256, help="Processes, of one thread each.")
    num_pairs: int = ranged(3000, low=10, help="Pairs of context and target. [R]")
    noise: float = ranged(0.05, above=0.0, help="Standard deviation of the targets. [R]")
    epochs: int = ranged(1200, low=1, help="Full-batch steps of JEPA and MDN. [P]")
    hidden_dim: int = ranged(64, low=1, help="Width of the hidden layers of JEPA and MDN. [R]")
    jepa_learning_rate: float = ranged(1e-2, above=0.0, help="Of JEPA, by Adam. [R]")
    mdn_learning_rate: float = ranged(5e-3, above=0.0, help="Of MDN, by Adam. [R]")
    length_scale: float = ranged(
        0.3, above=0.0, help="Of the Gaussian process's RBF kernel, which is not fitted. [R]"
    )
    kernel_noise: float = ranged(0.1, above=0.0, help="Variance of that kernel's white noise. [R]")
    max_nodes: int = ranged(50, low=2, help="Nodes of GMJE-GNG at most. [R]")
    gng_epochs: int = ranged(10, low=1, help="Passes of GMJE-GNG over the pairs. [R]")
    # The paper has no joint SMC here.
    num_particles: int = ranged(256, low=1, help="Particles of the joint SMC. [R]")
    smc_epochs: int = ranged(20, low=1, help="Passes of the joint SMC over the pairs. [R]")
    smc_batch_size: int = ranged(256, low=1, help="Pairs in a step of the joint SMC. [R]")
    smc_learning_rate: float = ranged(
        0.03, above=0.0, help="Of the joint SMC's covariance, by Adam. [R]"
    )


@dataclass
class LatentRowSettings:
    """An encoder and the density of its embeddings that the paper's Table 2 has.

    gaussian: one Gaussian of all training embeddings. gmm: a mixture fitted afterwards by EM.
    prototypes: ``GMJEPrototypeLoss.mixture()``. prototypes_ema: its means with uniform weights and,
    for each, the loss's average of the second moment. prototypes_em: steps of EM from prototypes.
    """

    title: str = MISSING
    method: MethodSettings = MISSING
    density: str = choice("gaussian", "gmm", "prototypes", "prototypes_ema", "prototypes_em")

    def problems(self) -> Iterator[str]:
        """Both views are embedded alike, and only a mixture has prototypes."""
        method = self.method
        if method.family != "SimCLR":
            yield f"method must be of SimCLR's family, not {method.name}"
        if not method.has_mixture and self.density.startswith("prototypes"):
            yield f"density={self.density} is for parametric_gmje"
        if method.has_mixture and getattr(method, "entropy_weight", 1.0) == 0.0:
            yield "method.entropy_weight must be above 0, for the average of prototypes_ema"


@schema("mnist_latents")
@dataclass
class MNISTLatentsSettings(ExperimentSettings):
    """Encoders, decoders and latent densities of MNIST (Huang 2026, Sec. 5.3, App. P.4)."""

    uses: ClassVar[tuple[str, ...]] = ("data", "backbone", "scale", "trainer", "evaluation")
    name: str = choice("mnist_latents")
    paper_epochs: int = ranged(50, low=1, help="What trainer.epochs is at scale=paper. [P]")
    decoder_epochs: int = ranged(50, low=1, help="Epochs of the decoders. [P]")
    workers: int = ranged(2, low=1, high=256, help="Processes, of trainer.threads each.")
    num_components: int = ranged(50, low=1, help="Components of a mixture fitted by EM. [D]")
    completed: str = option(
        "gmje",
        help="Row in whose embeddings whole images are completed from halves; not in the paper.",
    )
    completion_epochs: int = ranged(5, low=1, help="Epochs of the networks that embed halves.")
    rows: dict[str, LatentRowSettings] = field(
        default_factory=dict,
        metadata={
            "help": "Encoders by name, each with title, method and density (gaussian | gmm | "
            "prototypes | prototypes_ema | prototypes_em): experiment.rows.gmje.density=gmm."
        },
    )

    def problems_in(self, settings: Settings) -> Iterator[str]:
        """Besides, it is for MNIST, and needs rows that are trained."""
        yield from super().problems_in(settings)
        if settings.data.name != "mnist":
            yield f"experiment=mnist_latents is for data=mnist, not {settings.data.name}"
        if not self.rows:
            yield "experiment.rows must hold at least one row"
        elif self.completed not in self.rows:
            yield (
                f"experiment.completed must be one of {', '.join(self.rows)}, "
                f"got {self.completed!r}"
            )
        if settings.trainer.epochs < 1:
            yield "trainer.epochs must be at least 1 for mnist_latents"


@schema("failure_modes")
@dataclass
class FailureModesSettings(ExperimentSettings):
    """Failures of the paper's objectives beside their remedies; only the seed can be chosen."""

    uses: ClassVar[tuple[str, ...]] = ("trainer.threads",)
    name: str = choice("failure_modes")


@schema("settings")
@dataclass
class Settings:
    """Everything one can ask of ``python -m harness``."""

    experiment: ExperimentSettings = MISSING
    method: MethodSettings | None = None  # the rows of quickstart and mnist_latents have their own
    bank: BankSettings | None = None  # where the method has one
    data: DataSettings = MISSING
    backbone: BackboneSettings = MISSING
    trainer: TrainerSettings = MISSING
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    logger: LoggerSettings = MISSING
    seed: int = ranged(
        1, low=0, high=2**31, help="Seed of all random numbers; the first where there are several."
    )
    output_root: str = option("outputs", help="Results go to output_root/experiment/options.")
    overwrite: bool = option(False, help="Whether to run again what has finished.")

    def problems(self) -> Iterator[str]:
        """As the experiment says."""
        yield from self.experiment.problems_in(self)
