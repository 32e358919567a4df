"""What the Gaussian and kernel losses share, one row of ``LOSSES`` each option that matters."""

import copy
import doctest
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import NTXentLoss
from torch import Generator, Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from gmje_plugin import (
    GJEDualLoss,
    GJEEntropyLoss,
    GJENLLLoss,
    GMJEMDNHead,
    GMJEMDNLoss,
    GMJEPrototypeLoss,
    HSICLoss,
    JointSMCLoss,
)
from gmje_plugin.loss import (
    gje_dual_loss,
    gje_entropy_loss,
    gje_nll_loss,
    gmje_mdn_loss,
    gmje_prototype_loss,
    hsic_loss,
    joint_smc_loss,
)
from gmje_plugin.modules import mdn_head
from gmje_plugin.validation import wide_dtype
from tests.losses import ALL, kinds

BATCH, DIM = 16, 3


def predict(context: Tensor) -> MixtureSameFamily:
    """A mixture of two components around +context and -context, as a head would give it."""
    wide = context.to(wide_dtype(context))
    means = torch.stack([wide, -wide], dim=1)
    components = Independent(Normal(means, 0.5, validate_args=False), 1, validate_args=False)
    weights = Categorical(logits=wide[:, :2], validate_args=False)
    mixture = MixtureSameFamily(weights, components, validate_args=False)
    mixture.context = context  # type: ignore[attr-defined]
    return mixture


class PredictedLoss(nn.Module):
    """GMJEMDNLoss as a function of two views."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()
        self.criterion = GMJEMDNLoss(*args, **kwargs)  # type: ignore[arg-type]

    @property
    def terms(self) -> dict[str, Tensor]:
        return self.criterion.terms

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        loss: Tensor = self.criterion(predict(out0), out1)
        return loss


def followed_joint_smc() -> JointSMCLoss:
    """A bank of two batches that takes no more: its updates are in test_joint_smc_loss.py."""
    criterion = JointSMCLoss(DIM, BATCH, temperature=0.5)
    for seed in (10, 11):
        criterion(*views(seed, dtype=torch.float32))
    return criterion.eval()


# momentum 0 where the gradient is compared with differences: with a history the losses that push
# scale it up on purpose.
LOSSES: dict[str, Callable[[], nn.Module]] = {
    "entropy": GJEEntropyLoss,
    "entropy joint": lambda: GJEEntropyLoss(covariance="joint"),
    "nll ema": lambda: GJENLLLoss(DIM),
    "nll batch": lambda: GJENLLLoss(DIM, covariance="batch"),
    "nll learned": lambda: GJENLLLoss(DIM, covariance="learned"),
    "prototype": lambda: GMJEPrototypeLoss(DIM, 4, momentum=0.0),
    "prototype full": lambda: GMJEPrototypeLoss(
        DIM, 4, covariance="full", shared=False, learn_weights=True, normalize=False, momentum=0.0
    ),
    "mdn": lambda: PredictedLoss(DIM, momentum=0.0),
    "mdn marginal": lambda: PredictedLoss(DIM, guard="marginal"),
    "mdn contrastive": lambda: PredictedLoss(guard="contrastive"),
    "mdn unguarded": lambda: PredictedLoss(guard=None),
    "dual": GJEDualLoss,
    "dual linear": lambda: GJEDualLoss("linear"),
    "dual learned features": lambda: GJEDualLoss(learn_length_scale=True, num_features=8),
    # The median heuristic has no gradient, on purpose.
    "hsic": lambda: HSICLoss(length_scale=1.0),
    "hsic linear": lambda: HSICLoss("linear"),
    "joint smc": followed_joint_smc,
}
NEED_NO_COVARIANCE = {"nll learned", "mdn unguarded", "joint smc"} | {
    name for name in LOSSES if name.startswith("dual")
}
NEED_TWO_ROWS = sorted(LOSSES.keys() - NEED_NO_COVARIANCE)
WITH_PARAMETERS = [
    "nll learned",
    "prototype",
    "prototype full",
    "dual learned features",
    "joint smc",
]


def test_every_loss_but_the_contrastive_is_here() -> None:
    assert kinds(make() for make in LOSSES.values()) == ALL - {"SMCNTXentLoss"}


@pytest.fixture(params=LOSSES)
def criterion(request: pytest.FixtureRequest) -> nn.Module:
    return LOSSES[request.param]()


def views(seed: int = 0, batch: int = BATCH, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = Generator().manual_seed(seed)
    first = torch.randn(batch, DIM, generator=generator, dtype=torch.float64)
    noise = torch.randn(batch, DIM, generator=generator, dtype=torch.float64)
    return [first.to(dtype), (first + 0.3 * noise).to(dtype)]


def test_terms_are_detached_scalars_of_the_last_batch(criterion: nn.Module) -> None:
    loss = criterion(*[view.requires_grad_() for view in views()])
    assert loss.shape == ()
    assert loss.requires_grad
    first = dict(criterion.terms)
    criterion(*views(seed=1))
    assert first.keys() == criterion.terms.keys()
    for name, term in first.items():
        assert term.shape == ()
        assert not term.requires_grad
        assert term is not criterion.terms[name]


def test_gradcheck(criterion: nn.Module) -> None:
    criterion.double()
    inputs = [view.requires_grad_() for view in views()]
    assert torch.autograd.gradcheck(criterion, inputs)


LOG_2PI = math.log(2.0 * math.pi)
WHOLE_NATS: dict[str, Callable[[dict[str, Tensor]], Tensor]] = {
    "entropy": lambda terms: terms["alignment"] - terms["entropy"],
    "nll": lambda terms: terms["data_fit"] + terms["log_det"] + DIM * LOG_2PI,
    "prototype": lambda terms: terms["nll"] - terms.get("entropy", 0.0),
    "mdn": lambda terms: terms["nll"] + terms.get("guard", 0.0),
    "dual": lambda terms: terms["data_fit"] + terms["log_det"] + 0.5 * DIM * LOG_2PI,
    "joint": lambda terms: terms["nll"],
}


@pytest.mark.parametrize(
    "name", [name for name in LOSSES if not name.startswith(("hsic", "mdn contrastive"))]
)
def test_a_loss_is_its_whole_nats_over_the_dimension(name: str) -> None:
    criterion = LOSSES[name]()
    loss = criterion(*views())
    nats = WHOLE_NATS[name.split()[0]](criterion.terms)
    torch.testing.assert_close(DIM * loss.detach(), nats, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("dim", [32, 128, 512])
@pytest.mark.parametrize(
    "make",
    [
        lambda dim: GJEEntropyLoss(),
        lambda dim: GMJEPrototypeLoss(dim, 64),
        lambda dim: HSICLoss(),
        lambda dim: predicted_by_a_head(dim),
    ],
    ids=["entropy", "prototype", "hsic", "mdn"],
)
def test_gradients_are_of_the_size_of_lightlys(
    make: Callable[[int], Callable[..., Tensor]], dim: int
) -> None:
    """Of embeddings as a projection gives them: what lightly's learning rates are for.

    As sums over dimensions they were 160 times NTXentLoss's at 128 dimensions.
    """
    generator = Generator().manual_seed(0)
    first, noise = 0.4 * torch.randn(2, 64, dim, generator=generator)
    sizes = []
    for criterion in (NTXentLoss(), make(dim)):
        pair = first.clone().requires_grad_(), (first + noise).requires_grad_()
        criterion(*pair).backward()
        sizes.append(pair[0].grad.norm().item())  # type: ignore[union-attr]
    assert 0.1 < sizes[1] / sizes[0] < 10.0


def predicted_by_a_head(dim: int) -> Callable[..., Tensor]:
    torch.manual_seed(0)
    head, criterion = GMJEMDNHead(dim, 64, dim), GMJEMDNLoss(dim)
    return lambda out0, out1: criterion(head(out0), out1.detach())


@pytest.mark.parametrize("names", [("out0", "out1"), ("z_a", "z_b"), ("x0", "x1")])
def test_views_have_the_names_of_lightlys_losses(
    criterion: nn.Module, names: tuple[str, str]
) -> None:
    if isinstance(criterion, PredictedLoss):
        pytest.skip("its first argument is a distribution: tests/loss/test_gmje_mdn_loss.py")
    pair = views()
    expected = copy.deepcopy(criterion)(*pair)
    assert torch.equal(criterion(**dict(zip(names, pair, strict=True))), expected)


def test_a_view_of_two_names() -> None:
    first, second = views()
    with pytest.raises(TypeError, match="a view must have one name, got out0, z_a, out1"):
        GJEEntropyLoss()(out0=first, z_a=first, out1=second)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_embeddings_are_computed_in_float32(
    criterion: nn.Module, dtype: torch.dtype
) -> None:
    narrow = [view.requires_grad_() for view in views(dtype=dtype)]
    expected = copy.deepcopy(criterion)(*[view.detach().float() for view in narrow])
    loss = criterion(*narrow)
    assert loss.dtype == torch.float32
    assert torch.equal(loss.detach(), expected.detach())
    loss.backward()
    assert all(view.grad is not None and view.grad.dtype == dtype for view in narrow)


def test_autocast_changes_nothing(criterion: nn.Module) -> None:
    pair = views(dtype=torch.float32)
    expected = copy.deepcopy(criterion)(*pair)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = criterion(*pair)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


def test_float64_stays_float64(criterion: nn.Module) -> None:
    narrow = copy.deepcopy(criterion)(*views(dtype=torch.float32))
    loss = criterion(*views())
    assert loss.dtype == torch.float64
    torch.testing.assert_close(loss, narrow.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(name for name in LOSSES if not name.startswith("mdn")))
@pytest.mark.parametrize("wide", [0, 1])
def test_one_float64_view_makes_float64(name: str, wide: int) -> None:
    pair = views()
    pair[1 - wide] = pair[1 - wide].float()
    loss = LOSSES[name]()(*pair)
    assert loss.dtype == torch.float64
    assert torch.equal(loss, LOSSES[name]()(*[view.double() for view in pair]))


@pytest.mark.parametrize("name", ["prototype", "prototype full", "joint smc"])
def test_float64_parameters_make_float64(name: str) -> None:
    assert LOSSES[name]().double()(*views(dtype=torch.float32)).dtype == torch.float64


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("bad_views", [(0,), (1,), (0, 1)])
def test_a_bad_row_shows_in_the_loss_and_leaves_no_trace(
    criterion: nn.Module, value: float, bad_views: tuple[int, ...]
) -> None:
    criterion(*views())
    untouched = copy.deepcopy(criterion)
    bad = views(seed=1)
    for view in bad_views:
        bad[view][2, 1] = value
    assert not criterion(*bad).isfinite()
    after = criterion(*views(seed=2))
    assert after.isfinite()
    if len(bad_views) == 2:  # else the other view's moment counts
        assert torch.equal(after, untouched(*views(seed=2)))


@pytest.mark.filterwarnings("ignore:.*not positive definite:RuntimeWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.7, -40.0])
def test_constant_batches_are_finite(
    criterion: nn.Module, dtype: torch.dtype, value: float
) -> None:
    pair = [torch.full((BATCH, DIM), value, dtype=dtype, requires_grad=True) for _ in range(2)]
    loss = criterion(*pair)
    loss.backward()
    assert loss.isfinite()
    assert all(view.grad is not None and view.grad.isfinite().all() for view in pair)


@settings(deadline=None, max_examples=20)
@given(batch=st.integers(4 * DIM, 40), seed=st.integers(0, 1000))
@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_the_images_does_not_matter(name: str, batch: int, seed: int) -> None:
    pair = views(seed, batch)
    order = torch.randperm(batch, generator=Generator().manual_seed(seed))
    loss = LOSSES[name]()(*pair)
    shuffled = LOSSES[name]()(*[view[order] for view in pair])
    torch.testing.assert_close(loss, shuffled, rtol=1e-9, atol=1e-9)


def test_state_dict_round_trip_through_a_parent(criterion: nn.Module) -> None:
    trained = nn.ModuleDict({"criterion": criterion})
    learned = [torch.zeros(1, requires_grad=True), *criterion.parameters()]
    optimizer = torch.optim.SGD(learned, lr=0.01)
    for seed in range(3):
        optimizer.zero_grad()
        (criterion(*views(seed, dtype=torch.float32)) + learned[0].sum()).backward()
        optimizer.step()
    resumed = nn.ModuleDict({"criterion": copy.deepcopy(criterion)})
    for tensor in resumed.state_dict().values():
        tensor.fill_(1)
    resumed.load_state_dict(trained.state_dict())
    pair = views(9, dtype=torch.float32)
    assert torch.equal(resumed["criterion"](*pair), criterion(*pair))


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for make in LOSSES.values():
        make()(*views())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", NEED_TWO_ROWS)
def test_one_row_has_no_covariance(name: str) -> None:
    with pytest.raises(ValueError, match="must have at least 2 rows, got 1"):
        LOSSES[name]()(*views(batch=1))


@pytest.mark.parametrize("name", sorted(NEED_NO_COVARIANCE))
def test_one_row_is_enough_without_a_covariance(name: str) -> None:
    assert LOSSES[name]()(*views(batch=1)).isfinite()


def test_shapes_and_dtypes_that_do_not_fit(criterion: nn.Module) -> None:
    first, second = views()
    bad_targets: list[Tensor] = [second[:-1], second[0], second.long()]
    if not isinstance(criterion, (GJEDualLoss, HSICLoss)):  # whose views may differ in size
        bad_targets.append(second[:, :-1])
    for target in bad_targets:
        with pytest.raises(ValueError, match=r"must (have|be)"):
            criterion(first, target)


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_parameters_on_another_device(name: str) -> None:
    with pytest.raises(ValueError, match=r"out0 is on cpu .* parameters are on meta: move the"):
        LOSSES[name]().to("meta")(*views())


@pytest.mark.parametrize(
    "make",
    [
        lambda **options: GJENLLLoss(DIM, **options),
        lambda **options: GMJEPrototypeLoss(DIM, 4, **options),
        lambda **options: GMJEMDNLoss(DIM, **options),
    ],
)
@pytest.mark.parametrize("momentum", [-0.1, 1.0, float("nan"), "0.9"])
def test_momentum_out_of_range(make: Callable[..., nn.Module], momentum: float) -> None:
    with pytest.raises(ValueError, match=r"momentum must be a finite number in \[0.0, 1.0\)"):
        make(momentum=momentum)


@pytest.mark.parametrize(
    "module",
    [
        gje_dual_loss,
        gje_entropy_loss,
        gje_nll_loss,
        gmje_mdn_loss,
        gmje_prototype_loss,
        hsic_loss,
        joint_smc_loss,
        mdn_head,
    ],
)
def test_docstring_examples(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0
    assert result.failed == 0
