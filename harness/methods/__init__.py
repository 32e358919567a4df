"""The methods and their memory banks, one file each: settings, title and how it is built.

Adding one is a file here, named below, with the paper's settings as its defaults; those found for
the reduced protocol are in ``configs/recipe/reduced``. The LightningModules, which several methods
share, are in ``modules``. Importing this package registers the settings and imports no torch.
"""

from harness.methods import (  # noqa: F401
    banks,
    byol,
    gje_entropy,
    gmje_mdn,
    moco,
    nnclr,
    parametric_gmje,
    simclr,
    swav,
    vicreg,
)
