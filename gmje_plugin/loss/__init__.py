"""Losses that replace parts of ``lightly.loss``."""

from gmje_plugin.loss.gje_dual_loss import GJEDualLoss
from gmje_plugin.loss.gje_entropy_loss import GJEEntropyLoss
from gmje_plugin.loss.gje_nll_loss import GJENLLLoss
from gmje_plugin.loss.gmje_mdn_loss import GMJEMDNLoss
from gmje_plugin.loss.gmje_prototype_loss import GMJEPrototypeLoss
from gmje_plugin.loss.hsic_loss import HSICLoss
from gmje_plugin.loss.joint_smc_loss import JointSMCLoss
from gmje_plugin.loss.smc_ntxent_loss import SMCNTXentLoss

__all__ = [
    "GJEDualLoss",
    "GJEEntropyLoss",
    "GJENLLLoss",
    "GMJEMDNLoss",
    "GMJEPrototypeLoss",
    "HSICLoss",
    "JointSMCLoss",
    "SMCNTXentLoss",
]
