"""Which of the processes of a training this one is."""

from __future__ import annotations

import os

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.lsf import LSFEnvironment
from lightning_fabric.plugins.environments.mpi import MPIEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.utilities import rank_zero_only

from harness.settings import SettingsError, TrainerSettings

# As Lightning looks for them.
_LAUNCHERS: tuple[type[ClusterEnvironment], ...] = (
    TorchElasticEnvironment,
    SLURMEnvironment,
    LSFEnvironment,
    MPIEnvironment,
)


def environment(trainer: TrainerSettings) -> ClusterEnvironment:
    """Who has started the processes of a training.

    With one device in all, nobody: then ``RANK``, ``SLURM_PROCID`` and the like tell trainings
    apart that share an allocation, not the processes of one. ``torchrun`` starts those of one only.

    Raises:
        SettingsError: If the launcher has started another number of processes.
    """
    if trainer.world_size == 1 and not TorchElasticEnvironment.detect():
        return LightningEnvironment()
    try:
        found = next((kind() for kind in _LAUNCHERS if kind.detect()), LightningEnvironment())
        found.validate_settings(trainer.devices, trainer.num_nodes)
        processes = int(os.environ.get("WORLD_SIZE", trainer.world_size))
        if processes != trainer.world_size:  # not all launchers look
            raise ValueError(f"WORLD_SIZE is {processes}.")
    except (RuntimeError, ValueError) as error:
        told = " ".join(str(error).split())
        raise SettingsError(
            f"trainer.devices={trainer.devices}, trainer.num_nodes={trainer.num_nodes} do not fit "
            f"the processes that were started: {told}"
        ) from error
    return found


def is_first_process(trainer: TrainerSettings) -> bool:
    """Whether this is the process of a training that writes: the others only train."""
    found = environment(trainer)
    return trainer.world_size == 1 or not (found.node_rank() or found.local_rank())


def be_first_process() -> None:
    """Tells Lightning what it takes from ``RANK`` and the like when it is imported."""
    rank_zero_only.rank = 0  # type: ignore[attr-defined]
