import inspect
import math

import pytest
import torch
from lightly.models.modules import BYOLPredictionHead
from torch import Generator, Tensor
from torch.distributions import MixtureSameFamily
from torch.nn.functional import softplus

from gmje_plugin import GMJEMDNHead

INPUT, HIDDEN, OUTPUT, NUM = 4, 16, 3, 5


def context(batch: int = 8, dim: int = INPUT, seed: int = 0) -> Tensor:
    return torch.randn(batch, dim, generator=Generator().manual_seed(seed))


def make(scale: str = "exp") -> GMJEMDNHead:
    torch.manual_seed(0)
    return GMJEMDNHead(INPUT, HIDDEN, OUTPUT, scale=scale)


def test_shapes_and_context() -> None:
    z_c = context()
    mixture = make()(z_c)
    assert isinstance(mixture, MixtureSameFamily)
    assert mixture.context is z_c
    assert mixture.batch_shape == (8,)
    assert mixture.event_shape == (OUTPUT,)
    assert mixture.mixture_distribution.probs.shape == (8, NUM)
    assert mixture.log_prob(torch.zeros(8, OUTPUT)).shape == (8,)


@pytest.mark.parametrize("scale", ["bounded", "exp", "softplus"])
def test_density_by_its_formula(scale: str) -> None:
    # Huang 2026, Eq. 18-22, component by component.
    head = make(scale).double().eval()
    z_c, z_t = context().double(), context(dim=OUTPUT, seed=1).double()
    hidden = head.trunk(z_c)
    weights = torch.softmax(head.logits(hidden), dim=1)
    means = head.means(hidden).reshape(8, NUM, OUTPUT)
    raw = head.log_scales(hidden)
    sigma = {
        "exp": raw.exp(),
        "softplus": softplus(raw) + 1e-3,
        "bounded": 10.0 ** torch.tanh(raw / math.log(10.0)),  # between 0.1 and 10
    }[scale]
    density = torch.zeros(8).double()
    for k in range(NUM):
        distance = (z_t - means[:, k]).square().sum(dim=1)
        volume = (2 * math.pi * sigma[:, k].square()) ** (OUTPUT / 2)
        density += weights[:, k] * torch.exp(-distance / (2 * sigma[:, k].square())) / volume
    torch.testing.assert_close(head(z_c).log_prob(z_t), density.log(), rtol=1e-12, atol=1e-12)


def test_softplus_has_a_floor_and_exp_has_not() -> None:
    for scale, floor in (("exp", None), ("softplus", None), ("softplus", 0.2)):
        options = {} if floor is None else {"min_scale": floor}
        head = GMJEMDNHead(INPUT, HIDDEN, OUTPUT, scale=scale, **options)
        smallest = math.exp(-60.0) if scale == "exp" else floor or 1e-3
        head.log_scales.weight.data.zero_()
        head.log_scales.bias.data.fill_(-60.0)
        deviations = head(context()).component_distribution.base_dist.scale
        torch.testing.assert_close(deviations, torch.full_like(deviations, smallest))


@pytest.mark.parametrize("scale", ["bounded", "exp", "softplus"])
@pytest.mark.parametrize("start", [0.16, 0.316, 3.0])
def test_scales_start_where_they_are_told(scale: str, start: float) -> None:
    torch.manual_seed(0)
    head = GMJEMDNHead(INPUT, HIDDEN, OUTPUT, scale=scale, min_scale=0.15, init_scale=start)
    deviations = head(context()).component_distribution.base_dist.scale
    torch.testing.assert_close(deviations, torch.full_like(deviations, start))


@pytest.mark.parametrize(
    ("scale", "start"),
    [("bounded", 0.15), ("bounded", 10.0), ("softplus", 0.15), ("exp", 0.0), ("exp", math.inf)],
)
def test_a_start_of_the_scales_out_of_range(scale: str, start: float) -> None:
    with pytest.raises(ValueError, match="init_scale must be a finite number"):
        GMJEMDNHead(INPUT, HIDDEN, OUTPUT, scale=scale, min_scale=0.15, init_scale=start)


@pytest.mark.parametrize("far", [0.0, 30.0])
def test_densities_of_all_pairs(far: float) -> None:
    """Also far from the origin, where products of float32 cancel."""
    torch.manual_seed(0)
    head = GMJEMDNHead(INPUT, HIDDEN, INPUT, residual=True).eval()
    z_c, z_t = context() + far, context(12, seed=1) + far
    exact = head.double()(z_c.double())
    expected = exact.log_prob(z_t.double()[:, None])
    torch.testing.assert_close(exact.pairwise_log_prob(z_t.double()), expected, rtol=1e-11, atol=0)
    found = head.float()(z_c).pairwise_log_prob(z_t).double()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-3)


def test_it_has_lightlys_defaults() -> None:
    stock = inspect.signature(BYOLPredictionHead).parameters
    ours = inspect.signature(GMJEMDNHead).parameters
    for name, parameter in stock.items():
        assert ours[name].default == parameter.default, name


@pytest.mark.parametrize("outputs", [-1e4, -60.0, 60.0, 1e4])
def test_bounded_scales_cannot_run_away(outputs: float) -> None:
    head = GMJEMDNHead(INPUT, HIDDEN, OUTPUT, min_scale=0.2, max_scale=5.0)
    head.log_scales.weight.data.zero_()
    head.log_scales.bias.data.fill_(outputs)
    z_c, z_t = context().requires_grad_(), context(dim=OUTPUT, seed=1)
    density = head(z_c)
    deviations = density.component_distribution.base_dist.scale
    torch.testing.assert_close(deviations, torch.full_like(deviations, 0.2 if outputs < 0 else 5.0))
    density.log_prob(z_t).sum().backward()
    assert z_c.grad is not None
    assert z_c.grad.isfinite().all()
    with pytest.raises(ValueError, match=r"max_scale must be a finite number in \(0.2"):
        GMJEMDNHead(INPUT, HIDDEN, OUTPUT, min_scale=0.2, max_scale=0.2)


def test_a_narrow_density_at_its_mean_does_not_underflow() -> None:
    """exp(-60)^2 is 0 in float32: torch's own Normal has 0 / 0 there."""
    head = make("exp")
    head.log_scales.weight.data.zero_()
    head.log_scales.bias.data.fill_(-60.0)
    head.means.weight.data.zero_()
    head.means.bias.data.zero_()
    z_t = torch.zeros(8, OUTPUT)
    expected = OUTPUT * (60.0 - 0.5 * math.log(2.0 * math.pi))
    torch.testing.assert_close(head(context()).log_prob(z_t), torch.full((8,), expected))


def test_it_is_a_distribution_of_torch() -> None:
    head, z_c = make("bounded").eval(), context()
    density = head(z_c)
    plain = MixtureSameFamily(density.mixture_distribution, density.component_distribution)
    wide = density.expand((3, 8))
    values = torch.randn(3, 8, OUTPUT, generator=Generator().manual_seed(2))
    torch.testing.assert_close(wide.log_prob(values), plain.log_prob(values))
    torch.testing.assert_close(density.mean, plain.mean)
    torch.testing.assert_close(density.variance, plain.variance)
    assert density.sample((5,)).shape == (5, 8, OUTPUT)
    assert wide.batch_shape == (3, 8)
    assert hash(density) != hash(wide)


def test_an_expanded_density_has_its_context() -> None:
    density = make()(context())
    expanded = density.expand((3, 8))
    assert torch.equal(expanded.context, density.context.expand(3, 8, INPUT))


def test_residual_means_are_relative_to_the_context_and_start_near_it() -> None:
    torch.manual_seed(0)
    head = GMJEMDNHead(INPUT, HIDDEN, INPUT, residual=True).eval()
    z_c = context()
    means = head(z_c).component_distribution.base_dist.mean
    shift = 0.1 * head.means(head.trunk(z_c)).reshape(8, NUM, INPUT)
    torch.testing.assert_close(means, z_c[:, None] + shift)
    assert shift.abs().max() < 0.2 * z_c.abs().mean()
    started = GMJEMDNHead(INPUT, HIDDEN, INPUT, residual=True, init_scale=0.3)
    assert torch.equal(started(z_c).means, z_c[:, None].expand(-1, NUM, -1))
    with pytest.raises(ValueError, match="residual must be False unless input_dim is output_dim"):
        GMJEMDNHead(INPUT, HIDDEN, OUTPUT, residual=True)


def test_residual_means_pass_the_gradient_to_the_context() -> None:
    head = GMJEMDNHead(INPUT, HIDDEN, INPUT, init_scale=0.5, residual=True)
    z_c = context().requires_grad_()
    head(z_c).means.sum().backward()
    torch.testing.assert_close(z_c.grad, torch.full_like(z_c, head.num_components))


def test_it_finds_both_branches_of_an_ambiguous_target() -> None:
    # z_t = +-1 with a deviation of 0.1, whatever the context: the density's entropy is
    # log 2 + log(0.1) + (1 + log 2 pi) / 2 = -0.19, the best single Gaussian's 1.42.
    torch.manual_seed(0)
    generator = Generator().manual_seed(0)
    entropies = {}
    for num in (1, 3):
        head = GMJEMDNHead(1, 16, 1, num_components=num, min_scale=0.01)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
        for _ in range(200):
            z_c = torch.rand(256, 1, generator=generator)
            branch = torch.randint(2, (256, 1), generator=generator) * 2.0 - 1.0
            z_t = branch + 0.1 * torch.randn(256, 1, generator=generator)
            optimizer.zero_grad()
            nll = -head(z_c).log_prob(z_t).mean()
            nll.backward()
            optimizer.step()
        entropies[num] = nll.item()
    assert entropies[3] == pytest.approx(-0.19, abs=0.15)
    assert entropies[1] == pytest.approx(1.42, abs=0.15)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_density_is_wide_under_autocast(dtype: torch.dtype) -> None:
    head, z_c = make(), context()
    with torch.autocast("cpu", dtype=dtype):
        mixture = head(z_c)
        log_prob = mixture.log_prob(torch.zeros(8, OUTPUT))
    assert log_prob.dtype == torch.float32
    assert mixture.component_distribution.base_dist.scale.dtype == torch.float32
    torch.testing.assert_close(
        log_prob, make()(z_c).log_prob(torch.zeros(8, OUTPUT)), rtol=0.05, atol=0.05
    )


def test_a_nan_comes_out_as_a_nan() -> None:
    z_c = context()
    z_c[2, 1] = torch.nan
    log_prob = make().eval()(z_c).log_prob(torch.zeros(8, OUTPUT))
    assert log_prob.isnan().tolist() == [row == 2 for row in range(8)]


def test_state_dict_round_trip() -> None:
    trained = make()
    trained(context())
    torch.manual_seed(1)
    resumed = GMJEMDNHead(INPUT, HIDDEN, OUTPUT, scale="exp")
    resumed.load_state_dict(trained.state_dict())
    target = torch.zeros(8, OUTPUT)
    expected = trained.eval()(context(seed=1)).log_prob(target)
    assert torch.equal(resumed.eval()(context(seed=1)).log_prob(target), expected)


def test_one_row_in_training_and_in_evaluation() -> None:
    head = make()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        head(context(1))
    assert head.eval()(context(1)).log_prob(torch.zeros(1, OUTPUT)).isfinite()


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="z_c must have 4 features"):
        make()(context(dim=5))
    with pytest.raises(ValueError, match="z_c must be a floating tensor"):
        make()(context().long())


@pytest.mark.parametrize("name", ["input_dim", "hidden_dim", "output_dim", "num_components"])
def test_sizes_out_of_range(name: str) -> None:
    sizes = {"input_dim": 2, "hidden_dim": 2, "output_dim": 2, name: 0}
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, got 0"):
        GMJEMDNHead(**sizes)


def test_unknown_scale() -> None:
    with pytest.raises(ValueError, match="scale must be one of bounded, exp, softplus, got 'relu'"):
        GMJEMDNHead(2, 2, 2, scale="relu")
