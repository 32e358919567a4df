"""Log-sum-exps of query-particle products, in chunks: the (B, M) matrix is never held whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# Products held at a time: what fits the second-level cache of a core, or of a GPU.
_CHUNK_ELEMENTS = {"cpu": 2**19, "cuda": 2**22}


class NegativesLogSumExp(torch.autograd.Function):
    """Row and column log-sum-exps of unit-norm queries against negatives, one exponential a pair.

    Negatives are a bank's particles and, if given, the other keys and the other queries of the
    batch. With e_ij = exp(q_i . z_j / temperature) and multiplicities m_j of the particles:

    - ``rows`` (B,): log sum_j m_j e_ij a_ij, a_ij = stop_gradient(e_ij ** hardness);
    - ``importance`` (B,): log sum_j m_j a_ij, without gradient; empty at hardness 0;
    - ``columns`` (M,), or (M + N,) with the batch's N keys: log sum_i e_ij over the finite queries
      (query i left out at key i), without gradient.

    The gradient of ``rows`` with respect to the queries is formed in the forward pass, so nothing
    of the size of the bank is kept, and the bank may be overwritten before the backward pass. It
    can be differentiated once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,  # shape: (B, dim)
        particles: Tensor,  # shape: (M, dim)
        log_multiplicities: Tensor | None,  # shape: (M,)
        temperature: float,
        hardness: float,
        batch_keys: Tensor | None = None,  # shape: (N, dim)
        batch_queries: Tensor | None = None,  # shape: (N, dim)
        first: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor]:  # shapes: (B,), (B,), (M,) or (M + N,)
        """Computes the three sums; see the class. ``queries`` are N's rows from ``first`` on."""
        counted = finite_rows(queries)
        scaled = queries.nan_to_num(0.0, 0.0, 0.0).div_(temperature)
        # exp(1 / temperature) and its sums must stay within the dtype, else shift by the maxima.
        # Multiplicities may put all the mass on a distant particle, whose exponential underflows.
        largest = math.log(torch.finfo(scaled.dtype).max)
        in_range = log_multiplicities is None and (1.0 + hardness) / temperature < 0.6 * largest
        kind = _Sums if in_range else _ShiftedSums
        sums = kind(scaled, counted, hardness=hardness, with_gradient=ctx.needs_input_grad[0])
        for part, chunk, pairs in _chunks(scaled, particles):
            torch.mm(scaled, chunk.mT, out=pairs)
            sums.add(pairs, chunk, None if log_multiplicities is None else log_multiplicities[part])
        for_backward: list[Tensor] = []
        num_columns = len(particles)
        if batch_keys is not None and batch_queries is not None:
            num_columns += len(batch_keys)
            points = torch.cat([batch_keys, batch_queries])
            pairs = scaled @ points.mT
            for own in (first, first + len(batch_keys)):
                pairs.diagonal(own).fill_(-math.inf)
            sums.add(pairs, points, None)
            for_backward = [pairs, scaled, sums.rows]
        rows, importance, columns, direction = sums.finish(temperature)
        columns = columns[:num_columns]
        ctx.mark_non_differentiable(importance, columns)
        ctx.save_for_backward(direction, *for_backward)
        return rows, importance, columns

    @staticmethod
    def backward(ctx: Any, grad_rows: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Scales the direction formed in the forward pass; to the batch's points as well."""
        if torch.is_grad_enabled():  # which create_graph=True does
            raise RuntimeError(
                "SMCNTXentLoss over a bank can be differentiated once, not with create_graph=True: "
                "its gradient is formed without a graph. NTXentLoss with swap_memory_bank can."
            )
        direction, *in_batch = ctx.saved_tensors
        of_batch: list[Tensor | None] = [None, None]
        if in_batch:
            pairs, scaled, totals = in_batch
            share = scaled * (grad_rows / totals)[:, None]
            of_batch = [
                part.mT @ share if needed else None
                for part, needed in zip(
                    pairs.chunk(2, dim=1), ctx.needs_input_grad[5:7], strict=True
                )
            ]
        return grad_rows[:, None] * direction, *[None] * 4, *of_batch, None


class _Sums:
    """Running sums of :class:`NegativesLogSumExp` over chunks, multiplicities all 1."""

    def __init__(
        self, scaled: Tensor, counted: Tensor, *, hardness: float, with_gradient: bool
    ) -> None:
        self.counted = counted.to(scaled)
        self.hardness = hardness
        self.rows = scaled.new_zeros(len(scaled))
        self.importance = scaled.new_zeros(len(scaled) if hardness > 0.0 else 0)
        self.direction = torch.zeros_like(scaled) if with_gradient else scaled[:, :0]
        self.columns: list[Tensor] = []

    def add(self, logits: Tensor, chunk: Tensor, _: Tensor | None) -> None:
        """Adds a chunk's negatives; ``logits`` becomes their terms of the rows' sums."""
        pairs, ones = logits.exp_(), chunk.new_ones(len(chunk))
        # Products with a vector are faster than sums over a dimension.
        self.columns.append(torch.mv(pairs.mT, self.counted).log_())
        if self.hardness > 0.0:
            importance = pairs.sqrt() if self.hardness == 0.5 else pairs.pow(self.hardness)
            self.importance.addmv_(importance, ones)
            pairs.mul_(importance)
        self.rows.addmv_(pairs, ones)
        if self.direction.shape[1] > 0:
            self.direction.addmm_(pairs, chunk)

    def finish(self, temperature: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows, importance, columns and the rows' gradients."""
        columns = self.columns[0] if len(self.columns) == 1 else torch.cat(self.columns)
        direction = self.direction.div_((temperature * self.rows)[:, None])
        return self.rows.log(), self.importance.log(), columns, direction


class _ShiftedSums(_Sums):
    """The same relative to the rows' running maxima (an online softmax), at any temperature.

    The columns, which know no multiplicities, take a second exponential.
    """

    def __init__(
        self, scaled: Tensor, counted: Tensor, *, hardness: float, with_gradient: bool
    ) -> None:
        super().__init__(scaled, counted, hardness=hardness, with_gradient=with_gradient)
        self.bias = torch.zeros_like(self.rows).masked_fill_(~counted, -math.inf)[:, None]
        self.peak = torch.full_like(self.rows, torch.finfo(scaled.dtype).min)
        self.importance = torch.full_like(self.importance, -math.inf)

    def add(self, logits: Tensor, chunk: Tensor, log_multiplicities: Tensor | None) -> None:
        self.columns.append(torch.logsumexp(logits + self.bias, dim=0))
        log_m = 0.0 if log_multiplicities is None else log_multiplicities.to(chunk)
        if self.hardness > 0.0:
            part = torch.logsumexp(self.hardness * logits + log_m, dim=1)
            self.importance = torch.logaddexp(self.importance, part)
        logits.mul_(1.0 + self.hardness).add_(log_m)
        higher = torch.maximum(self.peak, logits.amax(dim=1))
        decay = (self.peak - higher).exp()
        self.peak = higher
        pairs = logits.sub_(higher[:, None]).exp_()
        self.rows.mul_(decay).addmv_(pairs, chunk.new_ones(len(chunk)))
        if self.direction.shape[1] > 0:
            self.direction.mul_(decay[:, None]).addmm_(pairs, chunk)

    def finish(self, temperature: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows, _, columns, direction = super().finish(temperature)
        return rows + self.peak, self.importance, columns, direction


def column_log_sum_exp(
    queries: Tensor,  # shape: (B, dim)
    points: Tensor,  # shape: (N, dim)
    *,
    temperature: float,
    skip_diagonal: bool = False,
) -> Tensor:  # shape: (N,)
    """Sums log sum_i exp(q_i . z_j / temperature) over the finite queries, in chunks.

    Args:
        queries: Queries, shape (B, dim). Rows with a non-finite entry are left out.
        points: Points, shape (N, dim), of any norm.
        temperature: Positive temperature.
        skip_diagonal: Whether query i is left out at point i.

    Returns:
        The sums, shape (N,); -inf where no query is counted.
    """
    counted = finite_rows(queries)
    scaled = queries.nan_to_num(0.0, 0.0, 0.0).div_(temperature)
    bias = scaled.new_zeros(len(scaled), 1).masked_fill(~counted[:, None], -math.inf)
    lowest = torch.finfo(scaled.dtype).min
    ones = scaled.new_ones(len(scaled))
    columns = scaled.new_empty(len(points))
    for part, chunk, pairs in _chunks(scaled, points):
        torch.addmm(bias, scaled, chunk.mT, out=pairs)
        if skip_diagonal and part.start < len(scaled):
            pairs.diagonal(offset=-part.start).fill_(-math.inf)
        peak = pairs.amax(dim=0).clamp_min_(lowest)
        columns[part] = torch.mv(pairs.sub_(peak).exp_().mT, ones).log_().add_(peak)
    return columns


def _chunks(scaled: Tensor, points: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Slices of the points, the points there, and one reused buffer for their products."""
    elements = _CHUNK_ELEMENTS.get(points.device.type, _CHUNK_ELEMENTS["cuda"])
    length = max(min(elements // len(scaled), len(points)), 1)
    buffer = scaled.new_empty(len(scaled), length)
    for start in range(0, len(points), length):
        chunk = points[start : start + length].to(scaled.dtype)
        yield slice(start, start + len(chunk)), chunk, buffer[:, : len(chunk)]


def finite_rows(embeddings: Tensor) -> Tensor:
    """Which rows of a (B, dim) tensor are finite throughout, shape (B,)."""
    # 0 * x is 0 for finite x and NaN otherwise: several times faster on a CPU than isfinite.
    return (0.0 * embeddings).sum(dim=-1) == 0.0
