"""Modules that replace parts of ``lightly.models.modules``."""

from gmje_plugin.modules.mdn_head import GMJEMDNHead
from gmje_plugin.modules.smc_memory_bank import SMCMemoryBankModule

__all__ = ["GMJEMDNHead", "SMCMemoryBankModule"]
