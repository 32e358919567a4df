"""A run's folder: what was asked, how far it is, what came out."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf

from harness.files import UNFINISHED, read_json, write_text
from harness.processes import is_first_process
from harness.settings import NEUTRAL, DataSettings, LoggerSettings, Settings, SettingsError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CONFIG, METRICS_FILE, RESULTS = "config.yaml", "metrics.csv", "results.json"
CHECKPOINT = "checkpoints/last.ckpt"
_LOCK = ".lock"
# Of file systems without flock, as Lustre's and NFS's may be.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_LONGEST_NAME = 100


def folder_name(words: Sequence[str]) -> str:
    """Overrides as a folder's name, the same in any order, hashed if long."""
    name = ",".join(sorted(words)).replace("/", "_")
    if len(name) > _LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        name = f"{name[: _LONGEST_NAME - 13]}-{digest}"
    return name or "default"


class RunFolder:
    """A folder of settings, metrics, checkpoints and results.

    ``config.yaml`` is written first and ``results.json`` last, each whole or not at all: a folder
    with the first is a run, one with both is finished.

    Args:
        path: The folder.
        settings: What was asked of it.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.settings = settings

    @classmethod
    def of_command(cls, settings: Settings, words: Sequence[str]) -> RunFolder:
        """The folder of a command line: outputs/<experiment>/<words that decide what comes out>."""
        root = Path(settings.output_root) / settings.experiment.name
        return cls(root / folder_name(words), settings)

    def part(self, name: str, settings: Settings) -> RunFolder:
        """The folder of one of the trainings of an experiment that makes several."""
        return RunFolder(self.path / "trainings" / name, settings)

    @property
    def checkpoint(self) -> Path | None:
        """The last checkpoint to go on from, if there is one yet."""
        path = self.path / CHECKPOINT
        # The first process clears what is to be overwritten, maybe after another looks here.
        cleared = self.settings.overwrite and not is_first_process(self.settings.trainer)
        return path if path.exists() and not cleared else None

    def finished_results(self) -> dict[str, Any] | None:
        """The results of the same run made before, or None if it is to run or go on.

        Raises:
            SettingsError: If the folder holds a run of other settings, or something else.
        """
        if self.settings.overwrite:
            return None
        self._check()
        found: dict[str, Any] | None = read_json(self.path / RESULTS)
        return found

    @contextmanager
    def started(self) -> Iterator[None]:
        """Holds the folder, made new, gone on with, or cleared if ``overwrite`` asks for it.

        Raises:
            SettingsError: If another process holds it, it cannot be written, or it is not a folder
                of this run.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with _locked(self.path / _LOCK):
            self._check()
            if self.settings.overwrite:
                for child in sorted(self.path.iterdir(), key=lambda child: child.name == CONFIG):
                    if child.name != _LOCK:  # the config last: without it this is no run's folder
                        shutil.rmtree(child) if child.is_dir() else child.unlink()
            write_text(self.path / CONFIG, self._config())
            yield

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Writes ``results.json``, whole or not at all."""
        write_text(self.path / RESULTS, json.dumps(results, indent=2) + "\n")

    def _check(self) -> None:
        """Refuses a folder of another run, with the difference, and one that is no run."""
        config = self.path / CONFIG
        if not config.exists():
            own = (_LOCK, CONFIG + UNFINISHED)  # of a run that was killed in its first moment
            if self.path.exists() and any(each.name not in own for each in self.path.iterdir()):
                raise SettingsError(f"{self.path} is not empty and not the folder of a run")
            return
        if self.settings.overwrite:
            return
        there, asked = config.read_text(errors="replace"), self._config()
        if not asked.startswith(there):  # one that is cut off is written again
            raise SettingsError(
                f"{self.path} holds a run of other settings ({_difference(there, asked)}): move it "
                f"away or run with overwrite=true"
            )

    def _config(self) -> str:
        """The settings but for those that change nothing that comes out, which have defaults."""
        config = OmegaConf.structured(self.settings)
        experiment = type(self.settings.experiment)()
        defaults = OmegaConf.structured(
            Settings(experiment=experiment, data=DataSettings(), logger=LoggerSettings())
        )
        for name in NEUTRAL:
            if OmegaConf.select(config, name) is not None:
                OmegaConf.update(config, name, OmegaConf.select(defaults, name))
        return OmegaConf.to_yaml(config)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock that ends with the process, however it ends, where the system has such."""
    if fcntl is None:
        yield
        return
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsError(f"{path.parent} is in use by another process") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            warnings.warn(
                f"{path.parent} cannot be locked ({error.strerror}): see to it that no other "
                f"process runs the same command",
                stacklevel=3,
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _difference(there: str, asked: str) -> str:
    """The options that differ between two configs, as "name: value there, value asked"."""
    try:
        before, now = (
            dict(leaves(OmegaConf.to_container(OmegaConf.create(text)))) for text in (there, asked)
        )
    except (yaml.YAMLError, ValueError):  # OmegaConf.create: no mapping
        return f"{CONFIG} is damaged"
    told = [
        f"{name}: {before.get(name, 'absent')} there, {now.get(name, 'absent')} asked"
        for name in dict.fromkeys([*before, *now])
        if before.get(name, "absent") != now.get(name, "absent")
    ]
    return "; ".join(told) or "written by another version"


def leaves(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The options of nested dicts by their names on the command line, as method.temperature."""
    if isinstance(config, dict) and config:
        for key, value in config.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, config
