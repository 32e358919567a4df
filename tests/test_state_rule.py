"""When a forward pass may change what a loss or bank remembers: one rule for every class."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gmje_plugin import (
    GJENLLLoss,
    GMJEMDNHead,
    GMJEMDNLoss,
    GMJEPrototypeLoss,
    JointSMCLoss,
    SMCMemoryBankModule,
    SMCNTXentLoss,
)
from tests.losses import ALL, kinds

BATCH, DIM = 16, 4


class Predicted(nn.Module):
    """A head in evaluation mode and its loss, of two views."""

    def __init__(self, guard: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = GMJEMDNHead(DIM, 8, DIM)
        self.criterion = GMJEMDNLoss(DIM, guard=guard)

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        loss: Tensor = self.criterion(self.head.eval()(out0), out1)
        return loss


LOSSES: dict[str, Callable[[], nn.Module]] = {
    "SMCNTXentLoss": lambda: SMCNTXentLoss(0.1, (24, DIM)),
    "JointSMCLoss": lambda: JointSMCLoss(DIM, 24),
    "GMJEPrototypeLoss": lambda: GMJEPrototypeLoss(DIM, 4),
    "GJENLLLoss": lambda: GJENLLLoss(DIM),
    "GMJEMDNLoss, entropy": lambda: Predicted("entropy"),
    "GMJEMDNLoss, marginal": lambda: Predicted("marginal"),
}


STATELESS = {"GJEEntropyLoss", "HSICLoss", "GJEDualLoss"}


def test_every_loss_is_here_or_remembers_nothing() -> None:
    assert kinds(make() for make in LOSSES.values()) == ALL - STATELESS


def views(seed: int) -> tuple[Tensor, Tensor]:
    first, noise = torch.randn(2, BATCH, DIM, generator=Generator().manual_seed(seed))
    return first.requires_grad_(), first.detach() + 0.3 * noise


@pytest.fixture(params=LOSSES)
def criterion(request: pytest.FixtureRequest) -> nn.Module:
    criterion = LOSSES[request.param]()
    for seed in range(3):
        criterion(*views(seed)).backward()
    return criterion


def moved(criterion: nn.Module, act: Callable[[], object]) -> bool:
    before = copy.deepcopy(criterion.state_dict())
    act()
    return any(not torch.equal(value, before[k]) for k, value in criterion.state_dict().items())


def test_training_moves_the_state(criterion: nn.Module) -> None:
    assert moved(criterion, lambda: criterion(*views(9)))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("training", [True, False])
def test_without_gradients_nothing_moves(
    criterion: nn.Module, mode: Callable[[], torch.no_grad], training: bool
) -> None:
    def validate() -> None:
        with mode():
            assert criterion(*views(9)).isfinite()

    criterion.train(training)
    assert not moved(criterion, validate)


def test_in_evaluation_mode_nothing_moves(criterion: nn.Module) -> None:
    criterion.eval()
    assert not moved(criterion, lambda: criterion(*views(9)).backward())


def test_a_validation_pass_is_not_seen_by_the_training(criterion: nn.Module) -> None:
    alone = copy.deepcopy(criterion)
    with torch.no_grad():
        criterion(*views(9))
    for seed in (10, 11):
        assert torch.equal(criterion(*views(seed)), alone(*views(seed)))


def test_a_failed_transform_leaves_the_loss_whole(criterion: nn.Module) -> None:
    """torch.vmap stops at the first branch on data, or gives numbers; tensors must not escape."""
    alone = copy.deepcopy(criterion)
    batches = [torch.stack(pair).detach() for pair in zip(views(20), views(21), strict=True)]
    try:
        torch.vmap(criterion)(*batches)
    except (RuntimeError, NotImplementedError, ValueError):
        assert not moved(criterion, lambda: None)
        for name, value in criterion.state_dict().items():
            assert torch.equal(value, alone.state_dict()[name]), name
    criterion(*views(22)).backward()
    criterion.load_state_dict(criterion.state_dict())


def test_an_error_leaves_the_state(criterion: nn.Module) -> None:
    first, second = views(9)

    def fail() -> None:
        with pytest.raises(ValueError, match=r"must (have|be)"):
            criterion(first, second[:-1])

    assert not moved(criterion, fail)


def test_state_made_under_inference_mode_can_be_loaded_and_trained(criterion: nn.Module) -> None:
    best = copy.deepcopy(criterion.state_dict())
    with torch.inference_mode():
        criterion(*views(9))
    criterion.load_state_dict(best)
    criterion(*views(10)).backward()


def test_averaging_of_weights_and_buffers(criterion: nn.Module) -> None:
    """torch's AveragedModel and Lightning's WeightAveraging: no integer or bool buffer."""
    model = nn.ModuleDict({"network": nn.BatchNorm1d(DIM), "criterion": criterion})
    averaged = AveragedModel(model, use_buffers=True)
    for seed in (9, 10):
        criterion(*views(seed))
        averaged.update_parameters(model)
    assert averaged.module["criterion"](*views(11)).isfinite()


def test_a_swapped_bank_obeys_its_argument_as_lightlys_does() -> None:
    """The bank itself has no rule: a stock loss tells it whether to update."""
    bank = SMCMemoryBankModule((24, DIM)).eval()
    with torch.no_grad():
        bank(views(0)[1], update=True)
    assert bank.count == BATCH
