"""A memory bank that weighs its entries by the queries they attract, instead of a FIFO queue."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from lightly.models.modules.memory_bank import MemoryBankModule
from torch import Generator, Tensor
from torch.nn.functional import normalize

from gmje_plugin.distributed import gather_rows, require_distributed
from gmje_plugin.log_sum_exp import column_log_sum_exp, finite_rows
from gmje_plugin.modules.local_state import LocalState
from gmje_plugin.modules.pool_weights import over_ranks, pool_log_weights
from gmje_plugin.options import ShowsOptions
from gmje_plugin.resampling import (
    SCHEMES,
    count_distinct,
    effective_sample_size,
    select,
    uniform,
)
from gmje_plugin.validation import (
    check_choice,
    check_count,
    check_embeddings,
    check_number,
    check_pair,
    check_positive,
)

DEFAULT_TEMPERATURE = 0.1
_NEVER = 2**40  # an age that no entry reaches
Score = Callable[..., Tensor]  # (queries, points, *, skip_diagonal=False) -> (N,)


class SMCMemoryBankModule(ShowsOptions, LocalState, MemoryBankModule):  # type: ignore[misc]
    """Sequential Monte Carlo memory bank, in the place of lightly's ``MemoryBankModule``.

    Each update forms a pool of the M particles and the B new keys. A pool member's weight is its
    weight before (1/M for a key) times mean_i exp(q_i . z_j / temperature) over the batch's
    queries (Huang 2026, Eq. 34). The default then *adapts*: while the effective sample size (ESS)
    is at least half of the pool, the oldest entries leave, as in a FIFO queue, and the weights are
    carried on; below, M members are drawn by weight without replacement and the weights start
    again at 1/M. That borrows SMC's ESS trigger, but it is a pruning rule and not an unbiased
    resampling of the weights; ``paper`` gives Algorithm 2 exactly.

    Until M keys have come the bank only fills, in order, with uniform weights. A stock lightly
    loss sees the random initial entries in the places not yet filled, as it does with lightly's
    bank; ``SMCNTXentLoss`` leaves them out. Where no queries are given (a stock loss passes only
    the keys), the keys stand in for them. A key with a NaN or infinite entry never enters, and a
    query with one does not count; without any that does, weights stay as they are.

    The state (``bank`` (M, dim), ``log_weights`` (M,), ``ages`` (M,) in steps, ``step``, ``count``
    of filled entries) is in ``state_dict``, so a resumed run goes on exactly, but is no buffer: DDP
    would overwrite every rank's bank with rank 0's at each forward pass. A DDP checkpoint holds
    rank 0's bank, from which without ``gather_distributed`` all ranks resume. Random numbers are a
    function of (``seed``, ``step``), alike on devices and ranks. The bank is float32, or float64
    once float64 keys have come, and follows the device of its input.

    A symmetrised MoCo that calls one criterion twice a step meets the first call's keys as
    particles in the second, weighted by their own images: give each direction its own criterion.

    Attributes:
        size: Size of the bank as (num_features, dim); 0 disables it. A bare positive integer
            behaves as in the installed lightly (an error from 1.6 on).
        gather_distributed: Whether keys and queries of all ranks are used, so that every rank
            holds the same bank. Default: False, each rank keeps its own.
        feature_dim_first: Whether the bank is returned as (dim, M) instead of (M, dim).
        temperature: Temperature of the weights. Default: None, that of the loss that updates the
            bank (``SMCNTXentLoss``) or owned it (``swap_memory_bank``), else 0.1.
        resampling: Name of a scheme of ``gmje_plugin.resampling``.
        ess_threshold: Share of the pool in [0, 1] below which ESS triggers resampling; None
            resamples at every step, 0 never does (a FIFO queue). Default: 0.5.
        count_own_query: Whether a key is also weighted by the query of its own image.
        seed: Seed of the random numbers, a non-negative integer.

    Raises:
        ValueError: If an argument is out of its range, or ``gather_distributed`` is True and torch
            has no distributed support.

    Examples:
        >>> loss_fn = NTXentLoss(temperature=0.1, memory_bank_size=(4096, 128))
        >>> loss_fn.memory_bank = SMCMemoryBankModule((4096, 128), temperature=0.1)
    """

    state_tensors = ("bank", "log_weights", "ages")
    state_counters = ("step", "count")
    unsaved_tensors = ("_ess", "_pool_size", "_rejected")

    size: tuple[int, ...]
    bank: Tensor
    log_weights: Tensor
    ages: Tensor
    _rejected: Tensor

    def __init__(
        self,
        size: int | Sequence[int],
        gather_distributed: bool = False,
        feature_dim_first: bool = True,
        *,
        temperature: float | None = None,
        resampling: str = "without_replacement",
        ess_threshold: float | None = 0.5,
        count_own_query: bool = False,
        seed: int = 0,
    ) -> None:
        require_distributed(gather_distributed)
        check_choice("resampling", resampling, SCHEMES)
        numbers = size if isinstance(size, Sequence) else (size,)
        whole = len(numbers) in (1, 2) and all(isinstance(n, Integral) for n in numbers)
        if not whole or (numbers[0] > 0 and numbers[-1] == 0):
            raise ValueError(f"size must be (num_features, dim), or 0 for no bank, got {size!r}.")
        super().__init__(size, gather_distributed, feature_dim_first)
        if temperature is not None:
            check_positive("temperature", temperature)
        if ess_threshold is not None:
            check_number("ess_threshold", ess_threshold, low=0.0, high=1.0)
        self.temperature = temperature
        self.resampling = resampling
        self.ess_threshold = ess_threshold
        self.count_own_query = count_own_query
        self.seed = check_count("seed", seed, low=0)
        del self.bank, self.bank_ptr  # lightly's buffers; see the class docstring
        self._reset(dim=self.size[1] if len(self.size) == 2 else 0)

    @classmethod
    def paper(
        cls,
        size: int | Sequence[int],
        gather_distributed: bool = False,
        feature_dim_first: bool = True,
        *,
        temperature: float | None = None,
        seed: int = 0,
    ) -> SMCMemoryBankModule:
        """Algorithm 2 of the paper exactly (Huang 2026, Sec. 4.7).

        Multinomial resampling from the pool at every step, with a key's own query counted. The
        arguments are those of the class.
        """
        return cls(
            size,
            gather_distributed,
            feature_dim_first,
            temperature=temperature,
            resampling="multinomial",
            ess_threshold=None,
            count_own_query=True,
            seed=seed,
        )

    @property
    def effective_sample_size(self) -> Tensor:
        """ESS of the pool at the last update, before any resampling: 0-d, from 1 to M + B.

        While the bank fills and after loading a state, that of the entries it holds.
        """
        return self._ess.to(self.bank.dtype)

    def diagnostics(self) -> dict[str, Tensor]:
        """What the bank looks like, as 0-d tensors on its device; no host sync.

        Returns:
            ``ess`` and ``ess_ratio``, ``effective_sample_size`` and its share of the pool;
            ``unique_fraction``, the share of distinct rows among the filled entries; ``age_mean``
            and ``age_max``, in steps since an entry came; ``rejected``, the non-finite rows turned
            away since this object was made. All 0 for an empty bank.
        """
        ages = self.ages[: self.count].to(self.log_weights.dtype)
        return {
            "ess": self.effective_sample_size,
            "ess_ratio": self.effective_sample_size / self._pool_size.clamp_min(1),
            "unique_fraction": count_distinct(self.bank[: self.count]) / max(self.count, 1),
            "age_mean": ages.sum() / max(self.count, 1),
            "age_max": torch.cat([ages.new_zeros(1), ages]).amax(),
            "rejected": self._rejected,
        }

    def forward(
        self,
        output: Tensor,  # shape: (B, dim)
        labels: Tensor | None = None,  # noqa: ARG002
        update: bool = False,
        *,
        queries: Tensor | None = None,  # shape: (B, dim)
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the bank as it is and then, if asked, updates it.

        Args:
            output: Keys of the batch, shape (B, dim), unit norm where the loss is InfoNCE.
            labels: Ignored, as in lightly.
            update: Whether the keys enter the bank.
            queries: Online embeddings of the same images, shape (B, dim). Default: None, the keys
                stand in.

        Returns:
            ``output`` and the bank before the update in the dtype of ``output``, shape (dim, M),
            or (M, dim) with ``feature_dim_first=False``; a copy without gradient, valid for the
            backward pass. ``(output, None)`` if the bank has size 0.

        Raises:
            ValueError: If a shape, dtype or feature size does not fit.
        """
        if self.size[0] == 0:
            return output, None
        self.follow(output)
        bank = self.bank.to(output.dtype, copy=True)
        if update:
            self.update(output, queries)
        return output, bank.transpose(0, -1) if self.feature_dim_first else bank

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.inference_mode(False)
    @torch.no_grad()
    def update(
        self,
        keys: Tensor,  # shape: (B, dim)
        queries: Tensor | None = None,  # shape: (B, dim)
        *,
        particle_scores: Tensor | None = None,  # shape: (count,)
        key_scores: Tensor | None = None,  # shape: (world_size * B,)
        score: Score | None = None,
    ) -> None:
        """Weighs the pool of particles and keys and keeps M of it (Eq. 34, Alg. 2).

        Args:
            keys: Keys of the batch, shape (B, dim).
            queries: Queries of the batch, shape (B, dim). Default: the keys.
            particle_scores: The score of each filled entry for this rank's queries, shape
                (count,), where a loss has it already. Default: computed here.
            key_scores: The same of the keys, of all ranks' under ``gather_distributed``; without
                that of a key's own query unless ``count_own_query``. Default: computed here.
            score: From queries and points to each point's log-likelihood, summed over the finite
                queries; with ``skip_diagonal=True`` without query i at point i. Default:
                log sum_i exp(q_i . z_j / temperature).

        Raises:
            ValueError: If a shape, dtype or feature size does not fit.
        """
        self.follow(keys, name="keys")
        if queries is not None:
            check_pair(keys, queries, names=("keys", "queries"))
        with torch.autocast(device_type=self.bank.device.type, enabled=False):
            keys = keys.detach().to(self.bank)
            queries = keys if queries is None else queries.detach().to(self.bank)
            if self.count == self.size[0]:
                score = score or self._score
                if particle_scores is None:
                    particle_scores = score(queries, self.bank)
                if self.gather_distributed:
                    queries, keys = gather_rows(queries), gather_rows(keys)
                    particle_scores = over_ranks(particle_scores)
                    key_scores = None if key_scores is None else over_ranks(key_scores)
                if key_scores is None:
                    key_scores = score(queries, keys, skip_diagonal=not self.count_own_query)
                self._reweigh(keys, queries, particle_scores, key_scores)
            else:
                self._fill(gather_rows(keys) if self.gather_distributed else keys)
        self.step += 1

    @torch.inference_mode(False)
    def follow(self, output: Tensor, *, name: str = "output") -> None:
        """Checks a batch's embeddings and moves the bank to their device, widening it for float64.

        Stock code never calls ``.to`` on a criterion. A lazily sized bank (lightly 1.5.20) gets its
        feature size here.

        Args:
            output: Embeddings of a batch, shape (B, dim).
            name: What to call them in an error.

        Raises:
            ValueError: If they are not a floating (B, dim) tensor of the bank's feature size, or
                are on the meta device while the bank has entries.
        """
        check_embeddings(name, output, dim=self.bank.shape[1] or None)
        if self.bank.shape[1] == 0:
            self._reset(dim=output.shape[1])
        if output.is_meta and self.count > 0 and not self.bank.is_meta:
            raise ValueError(
                f"{name} must hold values, got a tensor on the meta device, to which the bank's "
                f"{self.count} entries cannot follow."
            )
        dtype = torch.promote_types(self.bank.dtype, output.dtype)
        if self.bank.device != output.device or self.bank.dtype != dtype:
            self._move_state(output.device)
            self.log_weights = self.log_weights.to(dtype)
            self.bank = self.bank.to(dtype)

    @torch.inference_mode(False)
    def _reset(self, dim: int) -> None:
        size = self.size[0]
        self.step, self.count = -1, 0
        # On the CPU whatever the default device is, as the generator is there.
        initial = torch.empty(size, dim, device="cpu", dtype=torch.float32)
        initial.normal_(generator=self._generator())
        self.step = 0
        self.bank = normalize(initial, dim=-1)
        self.log_weights = self.bank.new_full((size,), -math.inf)
        self.ages = self.bank.new_zeros(size, dtype=torch.int64)
        self._ess = self._pool_size = self.bank.new_zeros(())
        self._rejected = self.bank.new_zeros((), dtype=torch.int64)

    def _start_anew(self) -> None:
        self._reset(dim=self.bank.shape[1])

    def _init_memory_bank(self, size: tuple[int, ...]) -> None:
        """Does nothing: lightly fills its buffer here; see ``_reset``."""

    def _generator(self) -> Generator:
        # The multiplier keeps the streams of neighbouring seeds apart.
        return Generator("cpu").manual_seed((self.seed * 0x9E3779B97F4A7C15 + self.step) % 2**63)

    def _score(self, queries: Tensor, points: Tensor, *, skip_diagonal: bool = False) -> Tensor:
        temperature = self.temperature or DEFAULT_TEMPERATURE
        return column_log_sum_exp(
            queries, points, temperature=temperature, skip_diagonal=skip_diagonal
        )

    def _fill(self, keys: Tensor) -> None:
        """Appends keys; when they overflow, the oldest leave at random among equals."""
        accepted = finite_rows(keys)
        self._rejected = self._rejected + (~accepted).sum()
        keys = keys[accepted]  # the only place that makes a GPU wait
        size, pool = self.size[0], self.count + keys.shape[0]
        self.ages += 1
        if pool <= size:
            self.bank[self.count : pool] = keys
            self.ages[self.count : pool] = 0
        else:
            ages = torch.cat([self.ages[: self.count], self.ages.new_zeros(keys.shape[0])])
            noise = uniform(pool, keys.device, self._generator())
            stay = torch.topk(noise - ages, size).indices.sort().values
            self.bank = torch.cat([self.bank[: self.count], keys])[stay]
            self.ages = ages[stay]
        self.count = min(pool, size)
        self.log_weights[: self.count] = -math.log(max(self.count, 1))
        self._ess = self._pool_size = torch.full_like(self._ess, self.count)

    def _reweigh(
        self, keys: Tensor, queries: Tensor, particle_scores: Tensor, key_scores: Tensor
    ) -> None:
        """Keeps M of the pool. Small tensors: what counts is how many operations there are."""
        size, batch = self.size[0], len(keys)
        rejected = ~finite_rows(keys)
        num_rejected = rejected.sum()
        self._rejected = self._rejected + num_rejected
        self._pool_size = size + batch - num_rejected
        log_weights = pool_log_weights(
            self.log_weights,
            particle_scores,
            key_scores,
            counted=finite_rows(queries),
            rejected=rejected,
            count_own_query=self.count_own_query,
        )
        self._ess = effective_sample_size(log_weights)
        threshold = math.inf if self.ess_threshold is None else self.ess_threshold
        drawn = None
        if self.resampling != "without_replacement":
            drawn = SCHEMES[self.resampling](
                log_weights, size, generator=self._generator(), validate_args=False
            )
        kept = select(
            log_weights,
            torch.cat([self.ages + 1, rejected * _NEVER]),
            size,
            resample=self._ess < threshold * self._pool_size,
            noise=uniform(size + batch, keys.device, self._generator()),
            drawn=drawn,
        )
        self.log_weights, self.ages = kept.log_weights.to(keys.dtype), kept.ages
        if kept.slots is None:
            self.bank = torch.cat([self.bank, keys])[kept.members]
        else:
            new = (kept.members >= size)[:, None]
            old_rows = self.bank[kept.members.clamp_max(size - 1)]
            new_rows = keys[(kept.members - size).clamp_min(0)]
            self.bank.index_copy_(0, kept.slots, torch.where(new, new_rows, old_rows))

    def _state_error(self, state: dict[str, Tensor]) -> str | None:
        (size, dim), bank, count = self.bank.shape, state["bank"], int(state["count"])
        if bank.shape != (size, dim or bank.shape[-1]):
            return f"size mismatch for the bank: {tuple(bank.shape)}, here it is {(size, dim)}."
        if {state["log_weights"].shape, state["ages"].shape} != {(size,)} or not 0 <= count <= size:
            return "the bank is damaged: log_weights, ages or count do not fit it."
        filled = state["log_weights"][:count]
        if not (bool(bank.isfinite().all()) and bool(filled.isfinite().all())):
            return "the bank is damaged: it holds NaN or infinite entries."
        return None

    def _after_load(self) -> None:
        self._ess = effective_sample_size(self.log_weights)
        self._pool_size = torch.full_like(self._ess, self.count)
