"""One LightningModule a family of methods, and how settings become one.

In :func:`build` the lines that a user of lightly would change stand side by side.
"""

from __future__ import annotations

from gmje_plugin import (
    GJEEntropyLoss,
    GMJEMDNHead,
    GMJEMDNLoss,
    GMJEPrototypeLoss,
    SMCMemoryBankModule,
    SMCNTXentLoss,
)
from lightly.loss import NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules import BYOLPredictionHead
from torch import nn

from harness.backbones import Backbone
from harness.methods.base import Method
from harness.methods.byol import BYOL
from harness.methods.contrastive import MoCo, SimCLR
from harness.settings import (
    BYOLMDNSettings,
    BYOLSettings,
    FIFOBankSettings,
    MethodSettings,
    MoCoSettings,
    SettingsError,
    SimCLREntropySettings,
    SimCLRPrototypeSettings,
    SimCLRSettings,
    SMCBankSettings,
    TrainerSettings,
)
from harness.views import Views

__all__ = ["Method", "build"]


def build(
    settings: MethodSettings,
    backbone: Backbone,
    *,
    views: Views,
    trainer: TrainerSettings,
    seed: int,
) -> Method:
    """Builds the method that the settings are of, with weights from torch's global generator."""
    common = {"views": views, "trainer": trainer}
    dim = settings.output_dim
    match settings:
        case SimCLRSettings():
            criterion = NTXentLoss(temperature=settings.temperature)
            return SimCLR(backbone, criterion, settings=settings, **common)
        case SimCLRPrototypeSettings():
            criterion = GMJEPrototypeLoss(
                dim, settings.num_prototypes, temperature=settings.temperature
            )
            return SimCLR(backbone, criterion, settings=settings, **common)
        case SimCLREntropySettings():
            criterion = GJEEntropyLoss(weight=settings.weight)
            return SimCLR(backbone, criterion, settings=settings, **common)
        case MoCoSettings():
            return MoCo(backbone, _bank_criterion(settings, seed), settings=settings, **common)
        case BYOLMDNSettings():
            head = GMJEMDNHead(
                dim,
                settings.predictor_dim,
                dim,
                num_components=settings.num_components,
                scale=settings.scale,
            )
            criterion = GMJEMDNLoss(dim)
            return BYOL(backbone, head, criterion, settings=settings, **common)
        case BYOLSettings():
            head = BYOLPredictionHead(dim, settings.predictor_dim, dim)
            criterion = NegativeCosineSimilarity()
            return BYOL(backbone, head, criterion, settings=settings, **common)
    raise SettingsError(f"there is no method for {type(settings).__name__}")


def _bank_criterion(settings: MoCoSettings, seed: int) -> nn.Module:
    size = (settings.bank.size, settings.output_dim)
    match settings.bank:
        case FIFOBankSettings() if not settings.in_batch_negatives:
            return NTXentLoss(temperature=settings.temperature, memory_bank_size=size)
        case FIFOBankSettings():
            # lightly's loss has no in-batch negatives; our bank that never resamples is its queue.
            bank = SMCMemoryBankModule(size, ess_threshold=0.0, seed=seed)
        case SMCBankSettings(resampling=resampling, ess_threshold=ess_threshold):
            bank = SMCMemoryBankModule(
                size,
                resampling=resampling,
                ess_threshold=ess_threshold,
                count_own_query=settings.bank.count_own_query,
                seed=seed,
            )
        case _:
            raise SettingsError(f"there is no bank for {type(settings.bank).__name__}")
    return SMCNTXentLoss(
        temperature=settings.temperature,
        memory_bank=bank,
        in_batch_negatives=settings.in_batch_negatives,
    )
