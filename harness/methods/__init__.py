"""One LightningModule a family of methods, and how settings become one.

The lines that a user of lightly would change stand side by side in the functions below.
"""

from __future__ import annotations

from typing import Any

from lightly.loss import NegativeCosineSimilarity, NTXentLoss, SwaVLoss, VICRegLoss
from lightly.models.modules import BYOLPredictionHead, SimCLRProjectionHead
from lightly.models.modules.heads import VICRegProjectionHead
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
from harness.methods.mdn import GMJEMDN
from harness.methods.swav import SwAV
from harness.settings import (
    BankSettings,
    BYOLSettings,
    FIFOBankSettings,
    GJEEntropySettings,
    GMJEMDNSettings,
    MethodSettings,
    MoCoSettings,
    ParametricGMJESettings,
    SimCLRSettings,
    SMCBankSettings,
    SwAVSettings,
    TrainerSettings,
    VICRegSettings,
)
from harness.views import Views

__all__ = ["Method", "build"]


def build(
    settings: MethodSettings,
    bank: BankSettings | None,
    backbone: Backbone,
    *,
    views: Views,
    trainer: TrainerSettings,
    num_classes: int,
    seed: int,
) -> Method:
    """Builds the method that the settings are of, with weights from torch's global generator.

    On several devices every loss and bank takes in the batches of all, so that they give what one
    device gives.
    """
    gather = trainer.devices * trainer.num_nodes > 1
    method: Method
    match settings:
        case MoCoSettings():
            criterion = _moco_criterion(settings, bank, gather, seed)
            method = MoCo(backbone, criterion, views=views, settings=settings, trainer=trainer)
        case GMJEMDNSettings(momentum_encoder=False):
            parts = _byol_head_and_criterion(settings, gather)
            method = GMJEMDN(backbone, *parts, views=views, settings=settings, trainer=trainer)
        case BYOLSettings():
            parts = _byol_head_and_criterion(settings, gather)
            method = BYOL(backbone, *parts, views=views, settings=settings, trainer=trainer)
        case SwAVSettings():
            criterion = SwaVLoss(
                settings.temperature,
                settings.sinkhorn_iterations,
                settings.sinkhorn_epsilon,
                sinkhorn_gather_distributed=gather,
            )
            method = SwAV(backbone, criterion, views=views, settings=settings, trainer=trainer)
        case _:
            parts = _simclr_head_and_criterion(settings, backbone.feature_dim, gather)
            method = SimCLR(backbone, *parts, views=views, settings=settings, trainer=trainer)
    method.add_online_probe(num_classes)
    return method


def _simclr_head_and_criterion(
    settings: MethodSettings, feature_dim: int, gather: bool
) -> tuple[nn.Module, nn.Module]:
    hidden, dim = settings.hidden_dim, settings.output_dim
    head: nn.Module = SimCLRProjectionHead(feature_dim, hidden, dim)
    criterion: nn.Module
    match settings:
        case SimCLRSettings():
            criterion = NTXentLoss(settings.temperature, gather_distributed=gather)
        case VICRegSettings():
            head = VICRegProjectionHead(feature_dim, hidden, dim)
            criterion = VICRegLoss(
                lambda_param=settings.invariance,
                mu_param=settings.variance,
                nu_param=settings.covariance,
                gather_distributed=gather,
            )
        case GJEEntropySettings():
            criterion = GJEEntropyLoss(settings.weight, gather_distributed=gather)
        case ParametricGMJESettings():
            criterion = GMJEPrototypeLoss(
                settings.output_dim,
                settings.num_prototypes,
                covariance=settings.covariance,
                temperature=settings.temperature,
                correlation=settings.correlation,
                entropy_weight=settings.entropy_weight,
                momentum=settings.ema,
                gather_distributed=gather,
            )
        case _:
            raise NotImplementedError(f"no method for {type(settings).__name__}")
    return head, criterion


def _moco_criterion(
    settings: MoCoSettings, bank: BankSettings | None, gather: bool, seed: int
) -> nn.Module:
    temperature, in_batch = settings.temperature, settings.in_batch_negatives
    match bank:
        case FIFOBankSettings(size=size) if not in_batch:
            stock: nn.Module = NTXentLoss(
                temperature,
                memory_bank_size=(size, settings.output_dim),
                gather_distributed=gather,
            )
            return stock
        case FIFOBankSettings():
            # lightly's loss has no in-batch negatives; our bank that never resamples is its queue.
            options: dict[str, Any] = {"ess_threshold": 0.0}
        case SMCBankSettings():
            options = {
                "resampling": bank.resampling,
                "ess_threshold": bank.ess_threshold,
                "count_own_query": bank.count_own_query,
            }
        case _:
            raise NotImplementedError(f"no bank for {type(bank).__name__}")
    particles = SMCMemoryBankModule(
        (bank.size, settings.output_dim),
        gather_distributed=gather,
        temperature=temperature,
        seed=seed,
        **options,
    )
    return SMCNTXentLoss(
        temperature,
        gather_distributed=gather,
        memory_bank=particles,
        in_batch_negatives=in_batch,
    )


def _byol_head_and_criterion(settings: BYOLSettings, gather: bool) -> tuple[nn.Module, nn.Module]:
    dim, hidden = settings.output_dim, settings.predictor_dim
    if isinstance(settings, GMJEMDNSettings):
        head = GMJEMDNHead(
            dim,
            hidden,
            dim,
            num_components=settings.num_components,
            scale=settings.scale,
            min_scale=settings.min_scale,
            init_scale=settings.init_scale,
            residual=settings.residual,
        )
        criterion = GMJEMDNLoss(
            dim,
            guard=None if settings.guard == "none" else settings.guard,
            guard_weight=settings.guard_weight,
            gather_distributed=gather,
        )
        return head, criterion
    return BYOLPredictionHead(dim, hidden, dim), NegativeCosineSimilarity()
