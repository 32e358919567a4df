"""One LightningModule a family of methods, and how settings become one.

The lines that a user of lightly would change stand side by side in the functions below.
"""

from __future__ import annotations

from lightly.loss import NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules import BYOLPredictionHead
from torch import nn

from gmje_plugin import (
    GJEEntropyLoss,
    GMJEMDNHead,
    GMJEMDNLoss,
    GMJEPrototypeLoss,
    SMCMemoryBankModule,
    SMCNTXentLoss,
)
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
    if isinstance(settings, MoCoSettings):
        criterion = _moco_criterion(settings, seed)
        return MoCo(backbone, criterion, views=views, settings=settings, trainer=trainer)
    if isinstance(settings, BYOLSettings):
        head, criterion = _byol_head_and_criterion(settings)
        return BYOL(backbone, head, criterion, views=views, settings=settings, trainer=trainer)
    criterion = _simclr_criterion(settings)
    return SimCLR(backbone, criterion, views=views, settings=settings, trainer=trainer)


def _simclr_criterion(settings: MethodSettings) -> nn.Module:
    match settings:
        case SimCLRSettings(temperature=temperature):
            criterion: nn.Module = NTXentLoss(temperature)
        case SimCLRPrototypeSettings(num_prototypes=number, temperature=temperature):
            criterion = GMJEPrototypeLoss(settings.output_dim, number, temperature=temperature)
        case SimCLREntropySettings(weight=weight):
            criterion = GJEEntropyLoss(weight)
        case _:
            raise NotImplementedError(f"no method for {type(settings).__name__}")
    return criterion


def _moco_criterion(settings: MoCoSettings, seed: int) -> nn.Module:
    size = (settings.bank.size, settings.output_dim)
    match settings.bank:
        case FIFOBankSettings() if not settings.in_batch_negatives:
            stock: nn.Module = NTXentLoss(settings.temperature, memory_bank_size=size)
            return stock
        case FIFOBankSettings():
            # lightly's loss has no in-batch negatives; our bank that never resamples is its queue.
            bank = SMCMemoryBankModule(size, ess_threshold=0.0, seed=seed)
        case SMCBankSettings(resampling=resampling, ess_threshold=threshold, count_own_query=own):
            bank = SMCMemoryBankModule(
                size, resampling=resampling, ess_threshold=threshold, count_own_query=own, seed=seed
            )
        case _:
            raise NotImplementedError(f"no bank for {type(settings.bank).__name__}")
    return SMCNTXentLoss(
        settings.temperature, memory_bank=bank, in_batch_negatives=settings.in_batch_negatives
    )


def _byol_head_and_criterion(settings: BYOLSettings) -> tuple[nn.Module, nn.Module]:
    dim, hidden = settings.output_dim, settings.predictor_dim
    if isinstance(settings, BYOLMDNSettings):
        number, scale = settings.num_components, settings.scale
        head = GMJEMDNHead(dim, hidden, dim, num_components=number, scale=scale)
        return head, GMJEMDNLoss(dim)
    return BYOLPredictionHead(dim, hidden, dim), NegativeCosineSimilarity()
