"""Likelihood of joint embeddings under a mixture whose means are a bank of particles."""

from __future__ import annotations

import math
from functools import partial
from operator import attrgetter

import torch
from torch import Tensor, nn

from gmje_plugin.density.mixture import JointGaussianMixture
from gmje_plugin.distributed import ParameterCheck
from gmje_plugin.kernels import squared_distances
from gmje_plugin.linalg import LOG_2PI, learned_factor, log_det, whiten
from gmje_plugin.log_sum_exp import column_log_sum_exp, finite_rows
from gmje_plugin.modules.smc_memory_bank import SMCMemoryBankModule
from gmje_plugin.options import ShowsOptions
from gmje_plugin.validation import (
    check_count,
    check_device,
    check_pair,
    check_positive,
    moves_state,
    takes_lightly_names,
    wide_dtype,
)


def _of_bank(name: str) -> property:
    return property(attrgetter(f"memory_bank.{name}"))


class JointSMCLoss(ShowsOptions):
    """Joint embeddings under a mixture of particles (Huang 2026, App. N, Algorithm 6).

    The M particles are joint embeddings z = [out0 | out1] of earlier batches. They are the means
    of a mixture, their weights w its weights, and all have one learned covariance S of full rank:

        -mean_i log sum_j w_j N(z_i; particle_j, S) / input_dim   (Eq. 14),

    in nats per dimension of a view.

    After the loss, in training mode with gradients enabled, the batch enters as in
    ``SMCMemoryBankModule``, whose rules of filling, adapting, resampling, saving and moving are
    this loss's too, with the weight of a pool member multiplied by
    mean_i exp(-1/2 (z_i - z_j)^T S^-1 (z_i - z_j)) (Eq. 118). Until the first batch has entered,
    the mixture is one Gaussian at the origin.

    Gradients go to S and to the embeddings, not to the particles. It is a density of embeddings
    that hold still: nothing in it keeps encoders from shrinking them (the log-det cheat,
    App. O.4). S is a parameter: move the loss with ``.to`` and give ``criterion.parameters()`` to
    the optimizer; in plain PyTorch DDP wrap the loss, too. The loss is computed in float32 under
    autocast, in float64 for float64 embeddings.

    Attributes:
        input_dim: Features of one view.
        num_particles: M.
        temperature: S starts at the temperature times the identity. Default: 0.1.
        resampling: As in ``SMCMemoryBankModule``. Default: "without_replacement".
        ess_threshold: As in ``SMCMemoryBankModule``. Default: 0.5.
        count_own_query: Whether a new pair also weighs itself, by exp(0) = 1. Where S is narrow
            that outweighs all else, and the bank keeps the fresh batch only. With True,
            ``resampling="multinomial"`` and ``ess_threshold=None`` this is Algorithm 6 to the
            letter. Default: False.
        gather_distributed: Whether the pairs of all ranks enter, so that every rank holds the same
            particles.
        seed: As in ``SMCMemoryBankModule``.
        terms: After a forward pass, the detached likelihood ``nll`` and its part ``log_det``
            (1/2 log|S|), in nats.

    Raises:
        ValueError: If an argument is out of its range, or the shapes, dtypes or devices of a batch
            do not fit.

    Examples:
        >>> from gmje_plugin import JointSMCLoss
        >>> criterion = JointSMCLoss(8, 512)
        >>> optimizer = torch.optim.Adam(criterion.parameters())
        >>> loss = criterion(torch.randn(256, 8), torch.randn(256, 8))
        >>> criterion.particles.shape
        torch.Size([512, 16])
    """

    resampling = _of_bank("resampling")
    ess_threshold = _of_bank("ess_threshold")
    count_own_query = _of_bank("count_own_query")
    gather_distributed = _of_bank("gather_distributed")
    seed = _of_bank("seed")

    def __init__(
        self,
        input_dim: int,
        num_particles: int,
        *,
        temperature: float = 0.1,
        resampling: str = "without_replacement",
        ess_threshold: float | None = 0.5,
        count_own_query: bool = False,
        gather_distributed: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.input_dim = check_count("input_dim", input_dim)
        self.num_particles = check_count("num_particles", num_particles)
        self.temperature = check_positive("temperature", temperature)
        # What is learned is the covariance over the temperature, so that zeros are the start.
        self.raw_factor = nn.Parameter(torch.zeros(2 * input_dim, 2 * input_dim))
        self.memory_bank = SMCMemoryBankModule(
            (num_particles, 2 * input_dim),
            gather_distributed,
            resampling=resampling,
            ess_threshold=ess_threshold,
            count_own_query=count_own_query,
            seed=seed,
        )
        self._check_ranks = ParameterCheck()
        self.terms: dict[str, Tensor] = {}

    @property
    def particles(self) -> Tensor:  # shape: (M, 2 * input_dim)
        """The particles, of which the first ``memory_bank.count`` have been filled."""
        return self.memory_bank.bank

    @property
    def effective_sample_size(self) -> Tensor:
        """As in ``SMCMemoryBankModule``."""
        return self.memory_bank.effective_sample_size

    def diagnostics(self) -> dict[str, Tensor]:
        """As in ``SMCMemoryBankModule``."""
        return self.memory_bank.diagnostics()

    @takes_lightly_names
    def forward(
        self,
        out0: Tensor,  # shape: (B, input_dim)
        out1: Tensor,  # shape: (B, input_dim)
    ) -> Tensor:  # shape: ()
        """The loss over the particles as they are, and then, in training mode, their update.

        Args:
            out0: Context embeddings, shape (B, input_dim), as given.
            out1: Target embeddings, shape (B, input_dim), as given.

        Returns:
            The loss, 0-d.

        Raises:
            ValueError: If shapes, dtypes or devices do not fit.
        """
        check_pair(out0, out1, dim=self.input_dim)
        check_device("out0", self.raw_factor, out0)
        dtype = wide_dtype(out0, out1, self.raw_factor)
        if self.memory_bank.gather_distributed:
            self._check_ranks(self)
        with torch.autocast(device_type=out0.device.type, enabled=False):
            z = torch.cat([out0.to(dtype), out1.to(dtype)], dim=1)
            self.memory_bank.follow(z)
            factor = self._factor(dtype)
            log_weights, means = self._components(z)
            distances = squared_distances(whiten(factor, z), whiten(factor, means.to(dtype)))
            half_log_det = 0.5 * log_det(factor)
            log_sums = torch.logsumexp(log_weights - 0.5 * distances, dim=1)
            nll = half_log_det + self.input_dim * LOG_2PI - log_sums.mean()
            if moves_state(self):  # last, so that an error leaves the particles as they were
                self._update(z, factor, distances)
        self.terms = {"nll": nll.detach(), "log_det": half_log_det.detach()}
        return nll / self.input_dim

    def mixture(self) -> JointGaussianMixture:
        """The density of the filled particles, differentiable in S."""
        log_weights, means = self._components(self.memory_bank.bank)
        with torch.autocast(device_type=means.device.type, enabled=False):
            factor = self._factor(wide_dtype(means, self.raw_factor))
            return JointGaussianMixture(
                log_weights.exp(), means, split=self.input_dim, scale_tril=factor[None]
            )

    def _factor(self, dtype: torch.dtype) -> Tensor:  # shape: (D, D)
        return math.sqrt(self.temperature) * learned_factor(self.raw_factor.to(dtype))

    @torch.compiler.disable  # type: ignore[untyped-decorator] # it would copy in the backward pass
    def _components(self, z: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (N,), (N, D)
        """Log-weights and means of the filled particles; copies, as the update is in place."""
        bank = self.memory_bank
        if bank.count == 0:
            return z.new_zeros(1), z.new_zeros(1, 2 * self.input_dim)
        return bank.log_weights[: bank.count].clone(), bank.bank[: bank.count].clone()

    @torch.no_grad()
    def _update(self, z: Tensor, factor: Tensor, distances: Tensor) -> None:
        bank = self.memory_bank
        counted = finite_rows(z)[:, None]
        scores = (-0.5 * distances).masked_fill(~counted, -math.inf).logsumexp(dim=0)
        bank.update(
            z,
            particle_scores=scores if bank.count > 0 else None,
            score=partial(_gaussian_score, factor=factor, origin=bank.bank.mean(dim=0)),
        )


def _gaussian_score(
    queries: Tensor,  # shape: (B, D)
    points: Tensor,  # shape: (N, D)
    *,
    factor: Tensor,  # shape: (D, D)
    origin: Tensor,  # shape: (D,)
    skip_diagonal: bool = False,
) -> Tensor:  # shape: (N,)
    """Log sum_i exp(-1/2 ||S^-1/2 (q_i - p)||^2) of each point p (Eq. 118), near the origin."""
    # -1/2 ||q - p||^2 = [q, -1/2 ||q||^2] . [p, 1] - 1/2 ||p||^2, so a column's sum is one of dot
    # products. Squares cancel badly far from the origin, so bring the origin to the particles.
    factor = factor.to(queries)
    queries, points = whiten(factor, queries - origin), whiten(factor, points - origin)
    queries = torch.cat([queries, -0.5 * queries.square().sum(dim=1, keepdim=True)], dim=1)
    points = torch.cat([points, torch.ones_like(points[:, :1])], dim=1)
    columns = column_log_sum_exp(queries, points, temperature=1.0, skip_diagonal=skip_diagonal)
    return columns - 0.5 * points[:, :-1].square().sum(dim=1)
