"""The methods and their memory banks, one file each: settings, title and how it is built.

Adding one is a file here, named below, with the paper's settings as its defaults; those found for
the reduced protocol are in ``configs/recipe/reduced``. The LightningModules, which several methods
share, are in ``modules``. Importing this package registers the settings and imports no torch.
"""

from harness.methods.banks import FIFOBankSettings, SMCBankSettings
from harness.methods.byol import BYOLSettings
from harness.methods.gje_entropy import GJEEntropySettings
from harness.methods.gmje_mdn import GMJEMDNSettings
from harness.methods.moco import MoCoSettings
from harness.methods.nnclr import NNCLRSettings
from harness.methods.parametric_gmje import ParametricGMJESettings
from harness.methods.simclr import SimCLRSettings
from harness.methods.swav import SwAVSettings
from harness.methods.vicreg import VICRegSettings

__all__ = [
    "BYOLSettings",
    "FIFOBankSettings",
    "GJEEntropySettings",
    "GMJEMDNSettings",
    "MoCoSettings",
    "NNCLRSettings",
    "ParametricGMJESettings",
    "SMCBankSettings",
    "SimCLRSettings",
    "SwAVSettings",
    "VICRegSettings",
]
