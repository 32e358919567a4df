"""The commands: an experiment composed by Hydra (the default), bench, export, gpu or report."""

from __future__ import annotations

import errno
import importlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import hydra
import omegaconf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from harness.settings import (
    COMMANDS,
    CONFIGS,
    SettingsError,
    as_hydra_reads,
    deciding,
    help_text,
    one_line,
    register_schemas,
    resolve,
    without_choice,
)

# Hydra's, without its version and those for other folders of configs; its parser answers others
# with its usage.
_FLAGS = re.compile(r"-[hcpmi]|--(help|hydra-help|cfg|resolve|package|multirun|info)")
# A full disk, a quota or limit, a folder that is read-only, another's or a file.
_CANNOT_WRITE = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "ENOTDIR", "EEXIST")
    if hasattr(errno, name)
}
_statuses: list[int] = []  # of a multirun's jobs


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")
def _experiment(config: DictConfig) -> None:
    status = _run(config)
    if status and HydraConfig.get().mode is not RunMode.MULTIRUN:
        sys.exit(status)
    _statuses.append(status)  # the other jobs of a multirun go on


def _run(config: DictConfig) -> int:
    """Runs an experiment; what went wrong is told here, as Hydra adds lines to what passes it."""
    try:
        settings = resolve(config, HydraConfig.get().overrides.task)
        # A wrong option is told at once; torch and Lightning take seconds to import.
        from pytorch_lightning.utilities.exceptions import SIGTERMException

        from harness import experiments
        from harness.tracking import RunFolder
    except SettingsError as error:
        return _refuse(str(error))
    try:
        words = deciding(HydraConfig.get().overrides.task, config)
        experiments.run(settings, RunFolder.of_command(settings, words))
    except SettingsError as error:
        # A loader's process puts its traceback before what it has to say.
        kind = f"{SettingsError.__module__}.{SettingsError.__qualname__}: "
        told = str(error).splitlines()[-1].removeprefix(kind)
        return _refuse(told)
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        where = f" ({error.filename})" if error.filename else ""
        return _refuse(f"cannot write results: {error.strerror}{where}; what was whole stays")
    except (KeyboardInterrupt, SystemExit) as error:  # Lightning makes either signal a SystemExit
        sent = signal.SIGTERM if isinstance(error, SIGTERMException) else signal.SIGINT
        without = " without overwrite=true" if settings.overwrite else ""
        _refuse(f"ended by {sent.name}; the same command{without} goes on")
        sys.exit(128 + sent)
    return 0


def main(arguments: Sequence[str]) -> None:
    """Runs a command; what the user got wrong is one line on stderr and exit code 2."""
    if arguments and arguments[0] in COMMANDS:
        command = importlib.import_module(f"harness.{arguments[0]}")
        try:
            command.main(arguments[1:])
        except SettingsError as error:
            sys.exit(_refuse(str(error)))
        return
    if {"-h", "--help"} & set(arguments):
        register_schemas()
        print(help_text(min(Console().width, 120)))
        return
    if "--version" in arguments:
        from gmje_plugin import __version__  # torch takes seconds to import

        print(f"gmje-plugin {__version__}")
        return
    flags = (word for word in arguments if word.startswith("-"))
    unknown = [word for word in flags if not _FLAGS.fullmatch(word)]
    if unknown:
        sys.exit(_refuse(f"{unknown[0]}: no such flag (options are name=value; see --help)"))
    register_schemas()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    try:
        sys.argv[1:] = as_hydra_reads(arguments)  # where Hydra looks
        _experiment()
    except SettingsError as error:
        sys.exit(_refuse(str(error)))
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(_refuse(one_line(error)))
    except ValueError as error:
        if not _raised_in(hydra, error):
            raise
        sys.exit(_refuse(one_line(error)))  # Hydra has no type of its own for some errors
    except AssertionError as error:
        if not _raised_in(omegaconf, error):
            raise
        sys.exit(_refuse(without_choice(arguments)))
    if any(_statuses):
        sys.exit(max(_statuses))


def _raised_in(package: ModuleType, error: Exception) -> bool:
    raised = traceback.extract_tb(error.__traceback__)[-1]
    return Path(raised.filename).is_relative_to(package.__path__[0])


def _refuse(message: str) -> int:
    print(f"python -m harness: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main(sys.argv[1:])
