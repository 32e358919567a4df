"""The methods and their memory banks, one file each: settings, title and how it is built.

Adding one is a file here, with the paper's settings as its defaults; those found for the reduced
protocol are in ``configs/recipe/reduced``. The LightningModules, which several methods share, are
in ``modules``. Importing this package registers the settings and imports no torch.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    if not _module.ispkg:
        import_module(f"{__name__}.{_module.name}")
