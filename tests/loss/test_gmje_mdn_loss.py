import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)
from torch.nn.functional import cross_entropy, mse_loss, normalize

from gmje_plugin import GJEEntropyLoss, GMJEMDNHead, GMJEMDNLoss
from gmje_plugin.linalg import second_moment
from gmje_plugin.modules.mdn_head import PredictedMixture

BATCH, DIM, OUTPUT = 20, 4, 3


def rows(dim: int, seed: int = 0, batch: int = BATCH) -> Tensor:
    return torch.randn(batch, dim, generator=Generator().manual_seed(seed)).double()


def head(dim: int = DIM, **options: Any) -> GMJEMDNHead:
    torch.manual_seed(0)
    return GMJEMDNHead(dim, 16, OUTPUT, **options).double()


def with_context(context: Tensor) -> MixtureSameFamily:
    """A standard normal density that does not depend on the context it carries."""
    zeros = torch.zeros(len(context), 1, 1, dtype=context.dtype)
    components = Independent(Normal(zeros, zeros + 1.0), 1)
    mixture = MixtureSameFamily(Categorical(logits=zeros[..., 0]), components)
    mixture.context = context  # type: ignore[attr-defined]
    return mixture


def test_the_likelihood_is_exact() -> None:
    z_t = rows(OUTPUT, seed=1)
    mixture = head()(rows(DIM))
    criterion = GMJEMDNLoss(guard=None)
    expected = -mixture.log_prob(z_t).mean()
    assert OUTPUT * criterion(mixture, z_t).item() == pytest.approx(expected.item(), rel=1e-12)
    assert criterion.terms.keys() == {"nll"}


def test_the_order_is_free_and_names_are_lightlys() -> None:
    """lightly's ImageNet example of BYOL has criterion(target, prediction)."""
    z_t = rows(OUTPUT, seed=1)
    mixture = head()(rows(DIM))
    criterion = GMJEMDNLoss(guard=None)
    expected = criterion(mixture, z_t)
    assert torch.equal(criterion(z_t, mixture), expected)
    assert torch.equal(criterion(x0=mixture, x1=z_t), expected)
    assert torch.equal(criterion(x0=z_t, x1=mixture), expected)


def test_a_criterion_without_its_head_says_which() -> None:
    with pytest.raises(ValueError, match="got Tensor: put GMJEMDNHead in the place"):
        GMJEMDNLoss(OUTPUT)(rows(OUTPUT), rows(OUTPUT, seed=1))


def test_one_component_of_known_scale_is_the_squared_error() -> None:
    # Huang 2026, Eq. 61 with the identity for covariance: JEPA's loss.
    predictor = head(num_components=1)
    nn.init.zeros_(predictor.log_scales.weight)
    nn.init.zeros_(predictor.log_scales.bias)
    mixture, z_t = predictor(rows(DIM)), rows(OUTPUT, seed=1)
    expected = 0.5 * (mse_loss(mixture.mean, z_t) + math.log(2 * math.pi))
    loss = GMJEMDNLoss(guard=None)(mixture, z_t)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("guard", ["entropy", "marginal"])
def test_guards(guard: str) -> None:
    criterion = GMJEMDNLoss(DIM, guard=guard, guard_weight=0.3, momentum=0.8, eps=0.0)
    predictor = head()
    moments = []
    for seed in range(3):
        z_c = rows(DIM, seed)
        loss = criterion(predictor(z_c), rows(OUTPUT, seed=9))
        moments.append(second_moment(normalize(z_c, dim=1) if guard == "entropy" else z_c))
    average = 0.8 * (0.8 * moments[0] + 0.2 * moments[1]) + 0.2 * moments[2]
    gaussian = MultivariateNormal(torch.zeros(DIM).double(), average)
    if guard == "entropy":  # Huang 2026, Eq. 38
        expected = 0.5 * DIM * (1 + math.log(2 * math.pi)) - gaussian.entropy()
    else:  # Eq. 23
        expected = -gaussian.log_prob(z_c).mean()
    assert criterion.terms["guard"].item() == pytest.approx(expected.item(), rel=1e-10)
    total = criterion.terms["nll"] + 0.3 * criterion.terms["guard"]
    assert OUTPUT * loss.item() == pytest.approx(total.item(), rel=1e-12)


def test_contrastive_is_conditional_minus_aggregate() -> None:
    """Pair by pair, through torch's own distributions."""
    z_t, mixture = rows(OUTPUT, seed=1), head()(rows(DIM))
    weights = mixture.mixture_distribution.probs
    components = mixture.component_distribution.base_dist
    densities = torch.zeros(BATCH, BATCH).double()
    for i in range(BATCH):
        for j in range(BATCH):
            gaussians = [
                MultivariateNormal(mean, scale.square() * torch.eye(OUTPUT).double())
                for mean, scale in zip(components.mean[j], components.scale[j, :, 0], strict=True)
            ]
            terms = [g.log_prob(z_t[i]).exp() for g in gaussians]
            densities[i, j] = (weights[j] * torch.stack(terms)).sum()
    nll, guard = -densities.diagonal().log().mean(), densities.mean(dim=1).log().mean()
    criterion = GMJEMDNLoss(guard="contrastive")
    plain = MixtureSameFamily(mixture.mixture_distribution, mixture.component_distribution)
    for distribution in (mixture, plain):
        loss = criterion(distribution, z_t)
        assert loss.item() == pytest.approx((nll + guard).item(), rel=1e-10)
        assert criterion.terms["nll"].item() == pytest.approx(nll.item(), rel=1e-10)
        assert criterion.terms["guard"].item() == pytest.approx(guard.item(), rel=1e-10)
    half = GMJEMDNLoss(guard="contrastive", guard_weight=0.5)(mixture, z_t)
    assert half.item() == pytest.approx((nll + 0.5 * guard).item(), rel=1e-10)


@pytest.mark.parametrize("guard", ["contrastive", "entropy", None])
@pytest.mark.parametrize("wide", ["targets", "head"])
def test_float32_meets_float64(wide: str, guard: str | None) -> None:
    module, z_c, z_t = head(), rows(DIM), rows(OUTPUT, seed=1)
    criterion = GMJEMDNLoss(DIM, guard=guard)
    expected = criterion(module(z_c), z_t)
    criterion = GMJEMDNLoss(DIM, guard=guard)
    if wide == "targets":
        loss = criterion(module.float()(z_c.float()), z_t)
        assert loss.dtype == torch.float64
    else:
        loss = criterion(module(z_c), z_t.float())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_contrastive_of_one_component_of_known_scale_is_infonce(dtype: torch.dtype) -> None:
    """From targets to contexts, of unit norm, with scale^2 for temperature."""
    means = normalize(rows(OUTPUT).to(dtype), dim=1)[:, None]
    zeros = torch.zeros(BATCH, 1, dtype=dtype)
    mixture = PredictedMixture(zeros, means, zeros + math.log(0.3), rows(DIM))
    z_t = normalize(rows(OUTPUT, seed=1).to(dtype), dim=1)
    logits = z_t @ means[:, 0].T / 0.3**2
    expected = cross_entropy(logits, torch.arange(BATCH)) - math.log(BATCH)
    loss = GMJEMDNLoss(guard="contrastive")(mixture, z_t)
    tolerance = 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=tolerance)


def test_contrastive_is_at_least_minus_the_logarithm_of_the_batch() -> None:
    z = 10.0 * rows(OUTPUT)
    zeros = torch.zeros(BATCH, 1).double()
    mixture = PredictedMixture(zeros, z[:, None], zeros - 3.0, z)  # each at its target
    loss = GMJEMDNLoss(guard="contrastive")(mixture, z)
    assert loss.item() == pytest.approx(-math.log(BATCH), rel=1e-12)
    same = PredictedMixture(zeros, zeros[:, None].expand(-1, 1, OUTPUT), zeros, z)
    assert GMJEMDNLoss(guard="contrastive")(same, z).item() == pytest.approx(0.0, abs=1e-12)


def test_contrastive_gradients() -> None:
    z_c, z_t = rows(DIM, batch=5).requires_grad_(), rows(OUTPUT, seed=1, batch=5).requires_grad_()
    predictor = head(num_components=2).eval()
    criterion = GMJEMDNLoss(guard="contrastive")
    assert torch.autograd.gradcheck(lambda c, t: criterion(predictor(c), t), (z_c, z_t))


def test_contrastive_needs_the_heads_distribution_to_gather() -> None:
    criterion = GMJEMDNLoss(guard="contrastive", gather_distributed=True)
    assert criterion(head()(rows(DIM)), rows(OUTPUT)).isfinite()
    with pytest.raises(ValueError, match=r"distribution must be GMJEMDNHead's .* got MixtureSame"):
        criterion(with_context(rows(DIM)), torch.zeros(BATCH, 1))


def train_free_vectors(guard: str) -> tuple[Tensor, Tensor]:
    start = rows(8, batch=256).float() * 0.65  # a mean norm of 1.84 in SPEC.md
    free = nn.Parameter(start.clone())
    criterion = GMJEMDNLoss(8, guard=guard, momentum=0.9)
    optimizer = torch.optim.Adam([free], lr=0.02)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    for _ in range(300):
        optimizer.zero_grad()
        criterion(with_context(free), torch.zeros(256, 1)).backward()
        optimizer.step()
        schedule.step()
    return start, free.detach()


def entropy(context: Tensor) -> float:
    criterion = GJEEntropyLoss()
    criterion(context, context)
    return criterion.terms["entropy"].item() / 2


def test_the_printed_guard_pulls_inward() -> None:
    start, end = train_free_vectors("marginal")
    assert end.norm(dim=1).mean() < 0.1 * start.norm(dim=1).mean()


def test_the_entropy_guard_spreads_and_keeps_the_norm() -> None:
    start, end = train_free_vectors("entropy")
    assert end.norm(dim=1).mean() > 0.9 * start.norm(dim=1).mean()
    largest = 4 * math.log(1 / 8)
    assert entropy(start) < largest - 0.01
    assert entropy(end) > largest - 0.002


def test_identity_collapse_of_a_head_that_sees_the_target() -> None:
    # The target is independent of the context, so no density of it can do better than its entropy
    # of 1.5 (1 + log 2 pi) = 4.26 nats; a head that sees the joint copies it (Huang 2026, App. M).
    reached = {}
    for sees_target in (False, True):
        predictor = head(DIM + OUTPUT * sees_target).float()
        criterion = GMJEMDNLoss(guard=None)
        optimizer = torch.optim.Adam(predictor.parameters(), lr=0.01)
        generator = Generator().manual_seed(0)
        late = []
        for _ in range(400):
            z = torch.randn(256, DIM + OUTPUT, generator=generator)
            optimizer.zero_grad()
            loss = OUTPUT * criterion(predictor(z if sees_target else z[:, :DIM]), z[:, DIM:])
            loss.backward()
            optimizer.step()
            late.append(loss.item())
        reached[sees_target] = late
    assert sum(reached[False][-50:]) / 50 == pytest.approx(4.26, abs=0.15)
    assert sum(reached[True][-50:]) / 50 < 4.26 - 3.0


def test_the_guard_reaches_the_encoder_through_the_context() -> None:
    encoder = nn.Linear(6, DIM).double()
    predictor = head()
    criterion = GMJEMDNLoss(DIM)
    criterion(predictor(encoder(rows(6))), rows(OUTPUT, seed=1))
    z_c = encoder(rows(6))
    mixture = predictor(z_c.detach())
    mixture.context = z_c
    criterion(mixture, rows(OUTPUT, seed=1)).backward()
    assert encoder.weight.grad is not None
    assert encoder.weight.grad.norm() > 0.0


@pytest.mark.parametrize("guard", ["entropy", "marginal"])
def test_a_guard_needs_the_size_of_the_context(guard: str) -> None:
    with pytest.raises(ValueError, match=f"input_dim must be .* for guard='{guard}', got None"):
        GMJEMDNLoss(guard=guard)


def test_a_guard_needs_the_context() -> None:
    mixture = head()(rows(DIM))
    plain = MixtureSameFamily(mixture.mixture_distribution, mixture.component_distribution)
    with pytest.raises(ValueError, match="distribution must carry its context for guard='entropy'"):
        GMJEMDNLoss(DIM)(plain, rows(OUTPUT))
    assert GMJEMDNLoss(guard=None)(plain, rows(OUTPUT)).isfinite()


def test_a_context_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"distribution.context must have 5 features"):
        GMJEMDNLoss(5)(head()(rows(DIM)), rows(OUTPUT))


@pytest.mark.parametrize("shape", [(BATCH, OUTPUT + 1), (BATCH - 1, OUTPUT), (1, OUTPUT)])
def test_targets_of_another_shape(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"z_t must have the distribution's shape \(20, 3\), got"):
        GMJEMDNLoss(DIM)(head()(rows(DIM)), torch.zeros(shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guard": "joint"}, "guard must be one of contrastive, entropy, marginal, got 'joint'"),
        ({"guard_weight": -1.0}, "guard_weight must be a finite number"),
        ({"eps": math.inf}, "eps must be a finite number"),
        ({"input_dim": 0}, "input_dim must be an integer of at least 1, got 0"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GMJEMDNLoss(**{"input_dim": DIM, **options})  # type: ignore[arg-type]
