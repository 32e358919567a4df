"""Modules that replace parts of ``lightly.models.modules``."""

from gmje_plugin.modules.mdn_head import GMJEMDNHead
from gmje_plugin.modules.smc_memory_bank import SMCMemoryBankModule
from gmje_plugin.modules.smc_nn_memory_bank import SMCNNMemoryBankModule

__all__ = ["GMJEMDNHead", "SMCMemoryBankModule", "SMCNNMemoryBankModule"]
