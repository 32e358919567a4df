"""The options of every command line: names, types, ranges, defaults and where each comes from.

Marks on defaults: [P] printed in the paper, [R] chosen by us because the print is lost.
"""

from harness.settings.command_line import COMMANDS, as_hydra_reads, without_choice
from harness.settings.experiments import (
    FailureModesSettings,
    LatentRowSettings,
    MNISTLatentsSettings,
    QuickstartSettings,
    RowSettings,
    Settings,
    SingleRunSettings,
    SyntheticSettings,
)
from harness.settings.fields import SettingsError
from harness.settings.help import help_text
from harness.settings.methods import BankSettings, MethodSettings
from harness.settings.parts import (
    BackboneSettings,
    DataSettings,
    LoggerSettings,
    ResNet18Settings,
    SmallCNNSettings,
    TimmSettings,
    TrainerSettings,
    ViewSettings,
)
from harness.settings.registry import CONFIGS
from harness.settings.resolution import (
    composing,
    one_line,
    register_schemas,
    resolve,
)
from harness.settings.words import NEUTRAL, deciding, is_neutral

__all__ = [
    "COMMANDS",
    "CONFIGS",
    "NEUTRAL",
    "BackboneSettings",
    "BankSettings",
    "DataSettings",
    "FailureModesSettings",
    "LatentRowSettings",
    "LoggerSettings",
    "MNISTLatentsSettings",
    "MethodSettings",
    "QuickstartSettings",
    "ResNet18Settings",
    "RowSettings",
    "Settings",
    "SettingsError",
    "SingleRunSettings",
    "SmallCNNSettings",
    "SyntheticSettings",
    "TimmSettings",
    "TrainerSettings",
    "ViewSettings",
    "as_hydra_reads",
    "composing",
    "deciding",
    "help_text",
    "is_neutral",
    "one_line",
    "register_schemas",
    "resolve",
    "without_choice",
]
