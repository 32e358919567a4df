"""The options of every command line: names, types, ranges, defaults and where each comes from.

Marks on defaults: [P] printed in the paper, [D] derived from what is, [R] chosen by us because the
print is lost.
"""

from harness.settings.command_line import COMMANDS as COMMANDS
from harness.settings.command_line import as_hydra_reads as as_hydra_reads
from harness.settings.command_line import without_choice as without_choice
from harness.settings.experiments import FailureModesSettings as FailureModesSettings
from harness.settings.experiments import LatentRowSettings as LatentRowSettings
from harness.settings.experiments import MNISTLatentsSettings as MNISTLatentsSettings
from harness.settings.experiments import QuickstartSettings as QuickstartSettings
from harness.settings.experiments import RowSettings as RowSettings
from harness.settings.experiments import Settings as Settings
from harness.settings.experiments import SingleRunSettings as SingleRunSettings
from harness.settings.experiments import SyntheticSettings as SyntheticSettings
from harness.settings.fields import SettingsError as SettingsError
from harness.settings.fields import choice as choice
from harness.settings.fields import option as option
from harness.settings.fields import ranged as ranged
from harness.settings.help import help_text as help_text
from harness.settings.methods import BankSettings as BankSettings
from harness.settings.methods import MethodSettings as MethodSettings
from harness.settings.parts import BackboneSettings as BackboneSettings
from harness.settings.parts import DataSettings as DataSettings
from harness.settings.parts import LoggerSettings as LoggerSettings
from harness.settings.parts import ResNet18Settings as ResNet18Settings
from harness.settings.parts import SmallCNNSettings as SmallCNNSettings
from harness.settings.parts import TimmSettings as TimmSettings
from harness.settings.parts import TrainerSettings as TrainerSettings
from harness.settings.parts import ViewSettings as ViewSettings
from harness.settings.registry import CONFIGS as CONFIGS
from harness.settings.registry import config as config
from harness.settings.resolution import composing as composing
from harness.settings.resolution import one_line as one_line
from harness.settings.resolution import register_schemas as register_schemas
from harness.settings.resolution import resolve as resolve
from harness.settings.words import NEUTRAL as NEUTRAL
from harness.settings.words import deciding as deciding
from harness.settings.words import is_neutral as is_neutral
