"""Losses that replace parts of ``lightly.loss``."""

from gmje_plugin.loss.smc_ntxent_loss import SMCNTXentLoss

__all__ = ["SMCNTXentLoss"]
