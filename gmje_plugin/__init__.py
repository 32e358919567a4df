"""Gaussian (Mixture) Joint Embeddings for lightly (Huang 2026, arXiv 2603.26799)."""

from gmje_plugin import resampling
from gmje_plugin.density import (
    GrowingNeuralGas,
    JointGaussian,
    JointGaussianMixture,
    JointStudentTMixture,
)
from gmje_plugin.loss import (
    GJEDualLoss,
    GJEEntropyLoss,
    GJENLLLoss,
    GMJEMDNLoss,
    GMJEPrototypeLoss,
    HSICLoss,
    JointSMCLoss,
    SMCNTXentLoss,
)
from gmje_plugin.modules import GMJEMDNHead, SMCMemoryBankModule, SMCNNMemoryBankModule
from gmje_plugin.registry import register, swap_memory_bank, unregister

__all__ = [
    "GJEDualLoss",
    "GJEEntropyLoss",
    "GJENLLLoss",
    "GMJEMDNHead",
    "GMJEMDNLoss",
    "GMJEPrototypeLoss",
    "GrowingNeuralGas",
    "HSICLoss",
    "JointGaussian",
    "JointGaussianMixture",
    "JointSMCLoss",
    "JointStudentTMixture",
    "SMCMemoryBankModule",
    "SMCNNMemoryBankModule",
    "SMCNTXentLoss",
    "register",
    "resampling",
    "swap_memory_bank",
    "unregister",
]

__version__ = "0.1.0"
