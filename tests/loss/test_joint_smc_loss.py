import copy
import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.distributions import MultivariateNormal
from torch.nn.functional import softplus

from gmje_plugin import JointSMCLoss, resampling
from gmje_plugin.resampling import effective_sample_size
from tests.references.joint_smc import nll, pool_log_weights

DIM, SIZE, BATCH = 2, 12, 5
PAPER: dict[str, Any] = {
    "resampling": "multinomial",
    "ess_threshold": None,
    "count_own_query": True,
}


def batch(seed: int = 0, rows: int = BATCH, *, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = Generator().manual_seed(seed)
    return torch.randn(rows, 2 * DIM, generator=generator, dtype=torch.float64).to(dtype)


def follow(criterion: JointSMCLoss, z: Tensor) -> Tensor:
    """The loss in whole nats."""
    loss: Tensor = DIM * criterion(z[:, :DIM], z[:, DIM:])
    return loss


def full(**options: Any) -> JointSMCLoss:
    """A loss in float64 with full particles and a covariance that is not diagonal."""
    criterion = JointSMCLoss(DIM, SIZE, **{"temperature": 0.7, **options}).double()
    follow(criterion, batch(seed=100, rows=SIZE))
    generator = Generator().manual_seed(7)
    with torch.no_grad():
        criterion.raw_factor.copy_(
            0.4 * torch.randn(criterion.raw_factor.shape, generator=generator)
        )
    return criterion


def covariance_of(criterion: JointSMCLoss) -> Tensor:
    """S by the parametrisation's formula."""
    raw = criterion.raw_factor.detach()
    factor = raw.tril(-1) + softplus(raw.diagonal() + math.log(math.e - 1.0)).diag()
    return criterion.temperature * factor @ factor.mT


def state_of(criterion: JointSMCLoss) -> tuple[Tensor, Tensor]:
    return criterion.particles.clone(), criterion.memory_bank.log_weights.clone()


def test_loss_against_torch_distributions() -> None:
    criterion = full(ess_threshold=0.0)
    for seed in range(3):  # leaves unequal weights behind
        z = batch(seed).requires_grad_()
        before = state_of(criterion)
        loss = follow(criterion, z)
        expected = nll(z, *before, covariance_of(criterion))
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(
            torch.autograd.grad(loss, z)[0], torch.autograd.grad(expected, z)[0]
        )
        half_log_det = 0.5 * torch.logdet(covariance_of(criterion))
        torch.testing.assert_close(criterion.terms["log_det"], half_log_det)
        torch.testing.assert_close(criterion.terms["nll"], loss.detach())
    assert before[1].std() > 0.1


def test_algorithm_6_to_the_letter() -> None:
    """Weights, effective size, and the very draw of each step."""
    criterion = full(**PAPER, seed=3)
    for seed in range(4):
        z = batch(seed)
        before = state_of(criterion)
        generator = criterion.memory_bank._generator()
        follow(criterion, z)
        weights = pool_log_weights(z, *before, covariance_of(criterion), count_own_query=True)
        torch.testing.assert_close(
            criterion.effective_sample_size, effective_sample_size(weights), rtol=1e-9, atol=0
        )
        # The bank draws one number a pool member for ties of age from a generator of its own.
        drawn = resampling.multinomial(weights, SIZE, generator=generator)
        assert torch.equal(criterion.particles, torch.cat([before[0], z])[drawn])
        uniform = torch.full((SIZE,), -math.log(SIZE), dtype=torch.float64)
        torch.testing.assert_close(criterion.memory_bank.log_weights, uniform)


@pytest.mark.parametrize("scheme", ["without_replacement", "multinomial"])
@pytest.mark.parametrize("count_own_query", [False, True])
def test_weights_while_the_bank_adapts(scheme: str, count_own_query: bool) -> None:
    """Never resampled, the oldest leave and the others keep the weights of Eq. 118."""
    criterion = full(ess_threshold=0.0, resampling=scheme, count_own_query=count_own_query)
    for seed in range(4):
        z = batch(seed)
        before = state_of(criterion)
        follow(criterion, z)
        weights = pool_log_weights(
            z, *before, covariance_of(criterion), count_own_query=count_own_query
        )
        torch.testing.assert_close(
            criterion.effective_sample_size, effective_sample_size(weights), rtol=1e-9, atol=0
        )
        pool = torch.cat([before[0], z])
        stayed = (criterion.particles[:, None] == pool).all(dim=2).to(torch.int64).argmax(dim=1)
        assert len(set(stayed.tolist())) == SIZE
        assert set(range(SIZE, SIZE + BATCH)) <= set(stayed.tolist())
        torch.testing.assert_close(
            criterion.memory_bank.log_weights, weights[stayed].log_softmax(dim=0)
        )


def test_own_query_outweighs_all_else_where_the_covariance_is_narrow() -> None:
    z = batch()
    shares = {}
    for counted in (True, False):
        criterion = full(**{**PAPER, "count_own_query": counted}, temperature=1e-3)
        follow(criterion, z)
        fresh = (criterion.particles[:, None] == z).all(dim=2).any(dim=1)
        shares[counted] = float(fresh.double().mean())
    assert shares[True] == 1.0
    assert shares[False] < 1.0


def test_one_particle_is_a_gaussian() -> None:
    """The limit case."""
    criterion = JointSMCLoss(DIM, 1, temperature=0.3).double()
    particle = batch(seed=1, rows=1)
    follow(criterion, particle)
    criterion.eval()
    z = batch()
    density = MultivariateNormal(particle[0], 0.3 * torch.eye(2 * DIM).double())
    torch.testing.assert_close(follow(criterion, z), -density.log_prob(z).mean())


def test_before_the_first_batch_it_is_one_gaussian_at_the_origin() -> None:
    criterion, z = JointSMCLoss(DIM, SIZE).double(), batch()
    density = MultivariateNormal(torch.zeros(4).double(), 0.1 * torch.eye(4).double())
    assert criterion.mixture().weights.tolist() == [1.0]
    torch.testing.assert_close(criterion.mixture().log_prob(z).double(), density.log_prob(z))
    torch.testing.assert_close(follow(criterion, z), -density.log_prob(z).mean())


def test_filling_uses_the_filled_particles_only() -> None:
    criterion = JointSMCLoss(DIM, SIZE).double()
    first, second = batch(0), batch(1)
    follow(criterion, first)
    assert torch.equal(criterion.particles[:BATCH], first)
    loss = follow(criterion, second)
    expected = nll(second, first, torch.zeros(BATCH).double(), covariance_of(criterion))
    torch.testing.assert_close(loss, expected)
    assert torch.equal(criterion.particles[: 2 * BATCH], torch.cat([first, second]))
    assert len(criterion.mixture().weights) == 2 * BATCH


def test_the_mixture_is_the_density_of_the_loss() -> None:
    criterion = full(ess_threshold=0.0)
    follow(criterion, batch())
    criterion.eval()
    z = batch(1)
    density = criterion.mixture()
    assert density.split == DIM
    torch.testing.assert_close(-density.log_prob(z).mean(), follow(criterion, z))
    (gradient,) = torch.autograd.grad(-density.log_prob(z).mean(), criterion.raw_factor)
    (expected,) = torch.autograd.grad(follow(criterion, z), criterion.raw_factor)
    torch.testing.assert_close(gradient, expected)


def test_the_mixture_shares_its_covariance() -> None:
    """2,048 copies of a 128 x 128 factor would be 134 MB."""
    criterion = JointSMCLoss(64, 2048)
    criterion(*torch.randn(2, 2048, 64, generator=Generator().manual_seed(0)))
    density = criterion.mixture()
    held = {tensor.untyped_storage().data_ptr(): tensor for tensor in density.buffers()}
    assert sum(each.untyped_storage().nbytes() for each in held.values()) < 8e6


def test_gradcheck_of_the_covariance() -> None:
    criterion, z = full().eval(), batch()

    def loss(raw_factor: Tensor) -> Tensor:
        value: Tensor = torch.func.functional_call(
            criterion, {"raw_factor": raw_factor}, (z[:, :DIM], z[:, DIM:])
        )
        return value

    assert torch.autograd.gradcheck(loss, criterion.raw_factor.detach().requires_grad_())


@pytest.mark.parametrize("count_own_query", [False, True])
def test_weights_do_not_depend_on_the_origin(count_own_query: bool) -> None:
    """In float32 the squares of far embeddings cancel (this failed at 1,000)."""
    effective = []
    for offset in (0.0, 1024.0):
        criterion = JointSMCLoss(DIM, SIZE, temperature=1.0, count_own_query=count_own_query)
        for seed in range(5):
            # Multiples of 2^-10, which float32 holds exactly at both places.
            z = (batch(seed) * 1024).round() / 1024 + offset
            follow(criterion, z.float())
        effective.append(criterion.effective_sample_size)
    torch.testing.assert_close(*effective, rtol=1e-3, atol=1e-3)


def test_bad_rows_are_rejected_and_the_others_enter() -> None:
    criterion, clean = full(ess_threshold=0.0), full(ess_threshold=0.0)
    z = batch()
    z[1, 0], z[3, 2] = torch.nan, torch.inf
    assert not follow(criterion, z).isfinite()
    follow(clean, z[[0, 2, 4]])
    assert criterion.diagnostics()["rejected"] == 2
    assert criterion.particles.isfinite().all()
    fresh = (criterion.particles[:, None] == z[[0, 2, 4]]).all(dim=2)
    assert fresh.any(dim=0).all()
    torch.testing.assert_close(criterion.effective_sample_size, clean.effective_sample_size)
    assert follow(criterion, batch(1)).isfinite()


def test_evaluation_mode_leaves_the_particles_alone() -> None:
    criterion = full().eval()
    before = copy.deepcopy(criterion.state_dict())
    with torch.no_grad():
        follow(criterion, batch())
    for name, value in criterion.state_dict().items():
        assert torch.equal(value, before[name])
    criterion.train()
    follow(criterion, batch())
    assert not torch.equal(criterion.particles, before["memory_bank.bank"])


def test_gradients_do_not_reach_the_particles() -> None:
    criterion = full()
    z = batch().requires_grad_()
    loss = follow(criterion, z)
    follow(criterion, batch(1))  # an update between forward and backward pass
    loss.backward()
    assert z.grad is not None
    assert not criterion.particles.requires_grad
    assert [name for name, _ in criterion.named_parameters()] == ["raw_factor"]


@pytest.mark.parametrize("options", [{}, PAPER])
@pytest.mark.parametrize("batches", [1, 6])  # while filling, and full
def test_a_resumed_run_goes_on_exactly(options: dict[str, Any], batches: int) -> None:
    def steps(parent: nn.Module, seeds: range) -> list[Tensor]:
        losses = []
        for seed in seeds:
            optimizer = torch.optim.SGD(parent.parameters(), lr=0.01)
            optimizer.zero_grad()
            losses.append(follow(parent[0], batch(seed, dtype=torch.float32)))
            losses[-1].backward()
            optimizer.step()
        return losses

    run = nn.ModuleList([JointSMCLoss(DIM, SIZE, **options)])
    steps(run, range(batches))
    resumed = nn.ModuleList([JointSMCLoss(DIM, SIZE, **options)])
    resumed.load_state_dict(run.state_dict())
    seeds = range(batches, batches + 4)
    assert all(map(torch.equal, steps(run, seeds), steps(resumed, seeds)))
    for name, value in run.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_diagnostics() -> None:
    criterion = full()
    follow(criterion, batch())
    figures = criterion.diagnostics()
    assert set(figures) == {
        "ess",
        "ess_ratio",
        "unique_fraction",
        "age_mean",
        "age_max",
        "rejected",
    }
    assert figures["ess"] == criterion.effective_sample_size
    assert 1.0 <= figures["ess"] <= SIZE + BATCH


def test_the_covariance_learns_that_of_the_noise() -> None:
    """Particles at the two places of the data, pairs scattered around them."""
    criterion = JointSMCLoss(1, 2, temperature=1.0).double()
    places = torch.tensor([[-5.0, 5.0], [5.0, -5.0]], dtype=torch.float64)
    criterion(places[:, :1], places[:, 1:])
    criterion.eval()
    generator = Generator().manual_seed(0)
    mixing = torch.tensor([[0.5, 0.0], [0.3, 0.2]], dtype=torch.float64)
    noise = torch.randn(400, 2, generator=generator, dtype=torch.float64) @ mixing.mT
    z = places.repeat(200, 1) + noise
    optimizer = torch.optim.Adam(criterion.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        criterion(z[:, :1], z[:, 1:]).backward()
        optimizer.step()
    found = criterion.mixture().covariances[0].detach()
    torch.testing.assert_close(found, noise.mT @ noise / 400, rtol=0.0, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_dim": 0}, "input_dim must be an integer of at least 1"),
        ({"num_particles": 0}, "num_particles must be an integer of at least 1"),
        ({"temperature": 0.0}, r"temperature must be a finite number in \(0.0, inf\]"),
        ({"resampling": "roulette"}, "resampling must be one of"),
        ({"ess_threshold": 1.5}, r"ess_threshold must be a finite number in \[0.0, 1.0\]"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JointSMCLoss(**{"input_dim": DIM, "num_particles": SIZE, **options})


def test_views_of_another_size() -> None:
    with pytest.raises(ValueError, match="out0 must have 2 features"):
        JointSMCLoss(DIM, SIZE)(torch.randn(4, 3), torch.randn(4, 3))


def test_a_mixture_stays_as_it_was_when_the_bank_moves_on() -> None:
    criterion = JointSMCLoss(2, 16)
    views = torch.randn(2, 3, 8, 2, generator=Generator().manual_seed(0))
    for step in range(2):
        criterion(views[0, step], views[1, step])
    mixture = criterion.mixture()
    means, weights = mixture.means.clone(), mixture.weights.clone()
    criterion(views[0, 2], views[1, 2])
    assert torch.equal(mixture.means, means)
    assert torch.equal(mixture.weights, weights)
