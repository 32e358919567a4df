"""The options of each method and each memory bank.

Defaults marked [D] are for the quickstart's digits; ``configs/recipe/`` has those of the paper and
those of the reduced protocol. Learning rates of Parametric GMJE, GJE entropy and GMJE-MDN were
found when their losses were whole nats: they are those times the dimension of the embeddings, and
the weight decay is divided by it, which under SGD is the same training.
"""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from harness.settings.fields import choice, ranged


@dataclass
class BankSettings:
    """A memory bank of MoCo."""

    name: str = MISSING
    size: int = ranged(64, low=1)  # one batch, as in the paper (256 of each) [P]


@dataclass
class FIFOBankSettings(BankSettings):
    """lightly's queue."""

    name: str = choice("fifo")


@dataclass
class SMCBankSettings(BankSettings):
    """``SMCMemoryBankModule`` with its defaults; ``bank=smc_paper`` is Algorithm 2 [P]."""

    name: str = choice("smc", "smc_paper")
    resampling: str = choice(
        "without_replacement", "multinomial", "stratified", "systematic", "residual"
    )
    ess_threshold: float | None = ranged(0.5, low=0.0, high=1.0)
    count_own_query: bool = False


@dataclass
class MethodSettings:
    """What every method has: an optimiser with a cosine schedule, and lightly's projection head."""

    name: str = MISSING
    optimizer: str = choice("sgd", "lars", "adamw")  # torch's, lightly's LARS
    learning_rate: float = ranged(0.1, above=0.0)  # each method has its own
    momentum: float = ranged(0.9, low=0.0, below=1.0)  # of sgd and lars [R]
    weight_decay: float = ranged(5e-4, low=0.0)  # [R]
    hidden_dim: int = ranged(128, low=1)  # twice the features [D]
    output_dim: int = ranged(32, low=1)  # [D]


@dataclass
class SimCLRSettings(MethodSettings):
    """SimCLR with lightly's ``NTXentLoss``."""

    name: str = choice("simclr")
    learning_rate: float = ranged(0.4, above=0.0)  # [D]
    temperature: float = ranged(0.2, above=0.0)  # [D]


@dataclass
class ParametricGMJESettings(MethodSettings):
    """SimCLR's pipeline with ``GMJEPrototypeLoss``."""

    name: str = choice("parametric_gmje")
    learning_rate: float = ranged(0.32, above=0.0)  # [D]
    weight_decay: float = ranged(1.5625e-5, low=0.0)  # [D]
    num_prototypes: int = ranged(64, low=1)  # [R]
    covariance: str = choice("isotropic", "diagonal", "full")  # shared; the last two are learned
    temperature: float = ranged(0.05, above=0.0)  # [D]
    correlation: float = ranged(0.0, low=0.0, below=1.0)  # the paper's
    entropy_weight: float = ranged(1.0, low=0.0)  # the loss's default
    ema: float = ranged(0.5, low=0.0, below=1.0)  # of the second moment; the loss's default


@dataclass
class GJEEntropySettings(MethodSettings):
    """SimCLR's pipeline with ``GJEEntropyLoss``."""

    name: str = choice("gje_entropy")
    learning_rate: float = ranged(1.6, above=0.0)  # [D]
    weight_decay: float = ranged(1.5625e-5, low=0.0)  # [D]
    weight: float = ranged(1.0, low=0.0)  # the loss's default; 0.3 and less were worse [D]


@dataclass
class VICRegSettings(MethodSettings):
    """SimCLR's pipeline with lightly's ``VICRegProjectionHead`` and ``VICRegLoss``."""

    name: str = choice("vicreg")
    learning_rate: float = ranged(0.06, above=0.0)  # [R]
    invariance: float = ranged(25.0, low=0.0)  # the loss's lambda [P]
    variance: float = ranged(25.0, low=0.0)  # its mu [P]
    covariance: float = ranged(1.0, low=0.0)  # its nu [P]


@dataclass
class SwAVSettings(MethodSettings):
    """SwAV on two views with lightly's ``SwaVPrototypes`` and ``SwaVLoss``."""

    name: str = choice("swav")
    learning_rate: float = ranged(0.06, above=0.0)  # [R]
    num_prototypes: int = ranged(512, low=2)  # [R]
    temperature: float = ranged(0.1, above=0.0)  # [R]
    sinkhorn_iterations: int = ranged(3, low=1)  # [P]
    sinkhorn_epsilon: float = ranged(0.05, above=0.0)  # lightly's default


@dataclass
class MoCoSettings(MethodSettings):
    """MoCo v2 with any bank; with an SMC bank, SMC-GMJE."""

    name: str = choice("moco", "smc_gmje")
    learning_rate: float = ranged(0.02, above=0.0)  # [D]
    temperature: float = ranged(0.1, above=0.0)  # [R]
    ema: float = ranged(0.99, low=0.0, high=1.0)  # [R]
    in_batch_negatives: bool = False  # the same on both sides wherever banks are compared


@dataclass
class BYOLSettings(MethodSettings):
    """BYOL with lightly's ``BYOLPredictionHead`` and ``NegativeCosineSimilarity``."""

    name: str = choice("byol")
    learning_rate: float = ranged(0.1, above=0.0)  # [D]
    ema: float = ranged(0.99, low=0.0, high=1.0)  # [D]
    predictor_dim: int = ranged(128, low=1)  # [R]


@dataclass
class GMJEMDNSettings(BYOLSettings):
    """``GMJEMDNHead`` and ``GMJEMDNLoss`` in BYOL's pipeline, or without a momentum encoder."""

    name: str = choice("gmje_mdn")
    learning_rate: float = ranged(0.256, above=0.0)  # [D]
    weight_decay: float = ranged(1.5625e-5, low=0.0)  # [D]
    num_components: int = ranged(5, low=1)  # [R]
    scale: str = choice("softplus", "exp", "bounded")  # [P]
    min_scale: float = ranged(1e-3, above=0.0)  # of softplus and bounded
    init_scale: float | None = ranged(None, above=0.0)  # the head's default
    residual: bool = False  # the head's default
    momentum_encoder: bool = True  # without one, targets are learned too and have unit norm
    guard: str = choice("entropy", "marginal", "contrastive", "none")  # marginal is Eq. 23's
    guard_weight: float = ranged(1.0, low=0.0)  # the loss's default
