"""Losses that replace parts of ``lightly.loss``."""

from gmje_plugin.loss.gje_entropy_loss import GJEEntropyLoss
from gmje_plugin.loss.gje_nll_loss import GJENLLLoss
from gmje_plugin.loss.gmje_mdn_loss import GMJEMDNLoss
from gmje_plugin.loss.gmje_prototype_loss import GMJEPrototypeLoss
from gmje_plugin.loss.smc_ntxent_loss import SMCNTXentLoss

__all__ = ["GJEEntropyLoss", "GJENLLLoss", "GMJEMDNLoss", "GMJEPrototypeLoss", "SMCNTXentLoss"]
