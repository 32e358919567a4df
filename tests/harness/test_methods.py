"""Every row of the quickstart is the pipeline that its settings say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch
from lightly.loss import NegativeCosineSimilarity, NTXentLoss, SwaVLoss, VICRegLoss
from lightly.models.modules import BYOLPredictionHead, NNMemoryBankModule, SwaVProjectionHead
from lightly.models.modules.heads import VICRegProjectionHead
from lightly.models.modules.memory_bank import MemoryBankModule
from torch import nn

from gmje_plugin import (
    GJEEntropyLoss,
    GMJEMDNHead,
    GMJEMDNLoss,
    GMJEPrototypeLoss,
    SMCMemoryBankModule,
    SMCNTXentLoss,
)
from harness import runs, training
from harness.data import load
from harness.methods.banks import FIFOBankSettings, SMCBankSettings
from harness.methods.modules.base import Method
from harness.methods.nnclr import NNCLRSettings
from harness.methods.parametric_gmje import ParametricGMJESettings
from harness.methods.simclr import SimCLRSettings
from harness.settings import MethodSettings, QuickstartSettings, RowSettings
from tests.harness.commands import settings

SETTINGS = settings()
assert isinstance(SETTINGS.experiment, QuickstartSettings)
ROWS = SETTINGS.experiment.rows
DATA = load(SETTINGS.data)
CRITERIA = {
    "moco_fifo": NTXentLoss,
    "moco_smc": SMCNTXentLoss,
    "moco_smc_paper": SMCNTXentLoss,
    "moco_smc_in_batch": SMCNTXentLoss,
    "simclr": NTXentLoss,
    "simclr_prototype": GMJEPrototypeLoss,
    "simclr_entropy": GJEEntropyLoss,
    "byol": NegativeCosineSimilarity,
    "byol_mdn": GMJEMDNLoss,
}


def build(row: RowSettings, seed: int = 3) -> Method:
    return training.build(replace(SETTINGS, method=row.method, bank=row.bank, seed=seed), DATA)


def loss_of_a_batch(module: Method) -> torch.Tensor:
    indices = torch.arange(32)
    step = module.step(module.views(DATA.train.images[:32], indices, epoch=0))
    assert step.features.shape == (32, module.backbone.feature_dim)
    return step.loss


@pytest.mark.parametrize("name", ROWS)
def test_the_criterion_is_the_one_in_the_row(name: str) -> None:
    assert type(build(ROWS[name]).criterion) is CRITERIA[name]


@pytest.mark.parametrize("name", ROWS)
def test_the_loss_teaches_backbone_heads_and_criterion_but_no_momentum_encoder(name: str) -> None:
    module = build(ROWS[name])
    loss_of_a_batch(module)  # an empty bank holds no negatives, and so teaches nothing
    loss_of_a_batch(module).backward()
    for parameter_name, parameter in module.named_parameters():
        if "momentum" in parameter_name:
            assert not parameter.requires_grad, parameter_name
        elif parameter.requires_grad and "online_probe" not in parameter_name:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name
    assert module.backbone.network[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["moco_smc", "byol"])
def test_the_momentum_encoder_follows_the_encoder(name: str) -> None:
    module = build(ROWS[name])
    with torch.no_grad():
        module.backbone.network[0].weight.add_(1.0)
        module.projection_head.layers[0].weight.add_(1.0)
    followers = [
        module.backbone_momentum.network[0].weight,
        module.projection_head_momentum.layers[0].weight,
    ]
    before = [weight.clone() for weight in followers]
    loss_of_a_batch(module)
    for weight, old in zip(followers, before, strict=True):
        torch.testing.assert_close(
            weight - old, torch.full_like(old, 1.0 - module.encoder_momentum)
        )


def test_banks() -> None:
    banks = {name: build(ROWS[name]).criterion.memory_bank for name in ROWS if "moco" in name}
    assert type(banks["moco_fifo"]) is MemoryBankModule
    assert tuple(banks["moco_fifo"].size) == (64, 32)
    assert {tuple(bank.size) for bank in banks.values()} == {(64, 32)}
    assert banks["moco_smc"].resampling == "without_replacement"
    assert (banks["moco_smc"].temperature, banks["moco_smc"].seed) == (0.1, 3)
    paper = SMCMemoryBankModule.paper((64, 32))
    for option in ("resampling", "ess_threshold", "count_own_query"):
        assert getattr(banks["moco_smc_paper"], option) == getattr(paper, option)


@pytest.mark.parametrize("bank", [FIFOBankSettings(), SMCBankSettings()])
def test_in_batch_negatives_are_the_same_loss_for_every_bank(bank: object) -> None:
    method = replace(ROWS["moco_fifo"].method, in_batch_negatives=True)
    criterion = build(RowSettings("a", method, bank)).criterion
    assert type(criterion) is SMCNTXentLoss
    assert criterion.in_batch_negatives
    assert criterion.memory_bank.ess_threshold == (
        0.0 if isinstance(bank, FIFOBankSettings) else 0.5
    )


def test_heads_of_other_methods() -> None:
    for name, (head, criterion) in {
        "vicreg": (VICRegProjectionHead, VICRegLoss),
        "swav": (SwaVProjectionHead, SwaVLoss),
    }.items():
        module = training.build(settings("experiment=benchmark", f"method={name}"), DATA)
        assert type(module.projection_head) is head
        assert type(module.criterion) is criterion
        loss_of_a_batch(module).backward()
        assert module.backbone.network[0].weight.grad.abs().sum() > 0


def test_swav_keeps_its_prototypes_on_the_sphere() -> None:
    module = training.build(settings("experiment=benchmark", "method=swav"), DATA)
    with torch.no_grad():
        module.prototypes.heads[0].weight.mul_(3.0)
    loss_of_a_batch(module).backward()
    weight = module.prototypes.heads[0].weight
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(len(weight)))
    assert weight.grad.abs().sum() > 0


def test_heads() -> None:
    assert type(build(ROWS["byol"]).prediction_head) is BYOLPredictionHead
    head = build(ROWS["byol_mdn"]).prediction_head
    assert type(head) is GMJEMDNHead
    assert (head.num_components, head.scale) == (5, "softplus")


def test_gmje_mdn_without_a_momentum_encoder_learns_its_targets() -> None:
    options = ("method=gmje_mdn", "method.momentum_encoder=false", "method.residual=true")
    module = training.build(settings("experiment=benchmark", *options), DATA)
    assert module.prediction_head.residual
    assert not any("momentum" in name for name, _ in module.named_parameters())
    targets = []
    module.criterion.register_forward_pre_hook(lambda _, given: targets.append(given[1]))
    loss_of_a_batch(module).backward()
    assert len(targets) == 2
    for target in targets:
        assert target.requires_grad
        torch.testing.assert_close(target.norm(dim=1), torch.ones(len(target)))
    assert module.backbone.network[0].weight.grad.abs().sum() > 0


def test_gmje_mdn_as_a_contrastive_bound() -> None:
    options = ("method=gmje_mdn", "method.guard=contrastive", "method.init_scale=0.4")
    module = training.build(settings("experiment=benchmark", *options), DATA)
    assert (module.criterion.guard, module.prediction_head.init_scale) == ("contrastive", 0.4)
    loss_of_a_batch(module).backward()
    assert module.terms().keys() == {"train/nll", "train/guard"}
    assert module.backbone.network[0].weight.grad.abs().sum() > 0


def test_parametric_gmje_takes_its_options() -> None:
    options = {"temperature": 0.05, "correlation": 0.96, "tied": True, "eps": 0.1}
    words = [f"method.{name}={value}" for name, value in options.items()]
    module = training.build(
        settings("experiment=benchmark", "method=parametric_gmje", *words), DATA
    )
    assert {name: getattr(module.criterion, name) for name in options} == options
    loss_of_a_batch(module).backward()
    assert module.criterion.prototypes.grad.abs().sum() > 0


def test_parametric_gmje_has_the_losss_own_correlation_unless_told() -> None:
    for dim in (16, 64):
        found = ParametricGMJESettings(output_dim=dim).criterion(gather=False)
        assert found.correlation == GMJEPrototypeLoss(dim, 2).correlation > 0.0
    paper = settings("experiment=benchmark", "method=parametric_gmje", "scale=paper").method
    assert isinstance(paper, ParametricGMJESettings)
    assert paper.correlation == 0.0


@pytest.mark.parametrize(
    ("options", "title"),
    [
        ("method=gmje_mdn", "GMJE-MDN, contrastive guard"),
        ("method=gmje_mdn method.guard=entropy", "GMJE-MDN"),
        ("method=gmje_mdn method.guard=none", "GMJE-MDN, no guard"),
        ("method=parametric_gmje", "Parametric GMJE, tied prototypes"),
        ("method=parametric_gmje method.tied=false", "Parametric GMJE"),
    ],
)
def test_titles_name_the_variant_of_a_loss(options: str, title: str) -> None:
    assert runs.title(settings("experiment=benchmark", *options.split())) == title


def test_all_methods_of_a_seed_start_from_one_backbone() -> None:
    weights = [build(row).backbone.state_dict() for row in ROWS.values()]
    for other in weights[1:]:
        assert all(torch.equal(weights[0][name], other[name]) for name in other)
    different = build(ROWS["simclr"], seed=4).backbone.state_dict()
    assert not torch.equal(weights[0]["network.0.weight"], different["network.0.weight"])


def test_the_optimizer_has_every_parameter_once_and_decays_weights_only() -> None:
    module = build(ROWS["simclr_prototype"])
    module.trainer = pl.Trainer(max_steps=100, logger=False, enable_checkpointing=False)
    module.trainer.fit_loop.setup_data = lambda: None  # the number of steps is known
    (optimizer,), (scheduler,) = module.configure_optimizers()
    decayed, plain, probe = (group["params"] for group in optimizer.param_groups)
    assert {id(p) for p in probe} == {id(p) for p in module.online_probe.parameters()}
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert {id(p) for p in (*decayed, *plain, *probe)} == {id(p) for p in trained}
    assert len(decayed) + len(plain) + len(probe) == len(trained)
    assert optimizer.param_groups[1]["weight_decay"] == 0.0
    parts = [module.backbone, module.projection_head]
    layers = [
        layer
        for part in parts
        for layer in part.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    assert {id(p) for p in decayed} == {id(layer.weight) for layer in layers}
    assert scheduler["interval"] == "step"


def test_unknown_settings_are_not_taken_for_something_else() -> None:
    with pytest.raises(NotImplementedError, match="MethodSettings"):
        build(RowSettings("a", MethodSettings()))


def test_nnclr_contrasts_the_nearest_entries_of_its_queue() -> None:
    method = NNCLRSettings(name="nnclr", hidden_dim=64, output_dim=16, predictor_dim=32)
    module = build(RowSettings("a", method, FIFOBankSettings("fifo", size=64)))
    for _ in range(2):
        loss_of_a_batch(module)
    module.eval()  # so that batch norm gives the same twice
    views = module.views(DATA.train.images[:32], torch.arange(32), epoch=0)
    z = [module.projection_head(module.backbone(view)).detach() for view in views]
    held = lightly_bank(module.memory_bank.bank)
    neighbours = [held(each, update=False) for each in z]
    expected = [
        NTXentLoss(method.temperature)(neighbours[i], module.prediction_head(z[1 - i]))
        for i in (0, 1)
    ]
    found = module.step(views).loss
    assert torch.allclose(found, 0.5 * (expected[0] + expected[1]), atol=1e-6)


def test_simclr_with_the_entropy_is_the_sum_of_both_losses() -> None:
    method = SimCLRSettings(name="simclr", temperature=0.2, entropy_weight=0.02, output_dim=16)
    row = RowSettings("a", method)
    criterion, out0, out1 = build(row).criterion, *torch.randn(2, 32, 16)
    z0, z1 = (torch.nn.functional.normalize(out, dim=1).double() for out in (out0, out1))
    expected = float(NTXentLoss(0.2)(out0, out1))
    for z in (z0, z1):
        moment = z.T @ z / 32
        expected -= 0.01 * float(
            torch.logdet(moment + 0.1 * moment.diagonal().mean() * torch.eye(16))
        )
    assert float(criterion(out0, out1)) == pytest.approx(expected, rel=1e-5)
    assert set(criterion.terms) == {"alignment", "entropy"}
    assert method.suffix() == "Gaussian entropy"


@pytest.mark.parametrize("num_views", [2, 4])
def test_of_more_than_two_views_the_loss_is_the_mean_over_pairs(num_views: int) -> None:
    method = SimCLRSettings(name="simclr", num_views=num_views, hidden_dim=64, output_dim=16)
    module = build(RowSettings("a", method))
    module.eval()  # so that batch norm gives the same twice
    views = module.views(DATA.train.images[:32], torch.arange(32), epoch=0, count=num_views)
    z = [module(view) for view in views]
    pairs = [(i, j) for i in range(num_views) for j in range(i)]
    expected = [NTXentLoss(method.temperature)(z[i], z[j]) for i, j in pairs]
    assert len(expected) == num_views * (num_views - 1) / 2
    found = module.step(views).loss
    assert torch.allclose(found, torch.stack(expected).mean(), atol=1e-6)


def lightly_bank(rows: torch.Tensor) -> NNMemoryBankModule:
    """lightly's, holding the same."""
    bank = NNMemoryBankModule(size=tuple(rows.shape))
    bank.bank = rows.clone()
    return bank
