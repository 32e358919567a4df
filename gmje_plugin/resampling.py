"""Resampling schemes, effective sample size and tempering: pure functions of log-weights.

Log-weights need not be normalised; -inf is a weight of zero, and such a particle is never drawn.
The schemes (Douc, Cappe and Moulines 2005, "Comparison of resampling schemes for particle
filtering") work on the cumulative weights in float64 and never make a GPU wait, except for the
checks that ``validate_args`` switches off. Cumulative sums have no deterministic implementation
on a GPU: ``torch.use_deterministic_algorithms`` admits ``without_replacement`` only there. Uniform
numbers are drawn on the generator's device (the CPU's default generator without one), so that CPU
and GPU draw alike from one seed.

Every scheme has the signature ``scheme(log_weights, n, *, generator=None, validate_args=True)``:

Args:
    log_weights: Unnormalised log-weights, shape (N,), floating.
    n: Number of draws; may exceed N, except without replacement.
    generator: Source of the uniform numbers. Default: torch's default CPU generator.
    validate_args: Whether to check the values of ``log_weights``, which makes a GPU wait.

Returns:
    Indices of the drawn particles, shape (n,), int64, on the device of ``log_weights``.

Raises:
    ValueError: If ``log_weights`` is not a floating vector, ``n`` is not a positive integer, or
        (with ``validate_args``) a log-weight is NaN or +inf or none is finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from gmje_plugin.validation import check_count, check_number, wide_dtype

__all__ = [
    "effective_sample_size",
    "multinomial",
    "residual",
    "stratified",
    "systematic",
    "temper",
    "without_replacement",
]


def multinomial(
    log_weights: Tensor,  # shape: (N,)
    n: int,
    *,
    generator: Generator | None = None,
    validate_args: bool = True,
) -> Tensor:  # shape: (n,)
    """Independent draws in proportion to the weights, with replacement (Huang 2026, Alg. 2).

    Unbiased: particle j is drawn n * w_j times on average. Arguments, result and errors are the
    module's.

    Examples:
        >>> multinomial(torch.tensor([0.0, -torch.inf]), 3)
        tensor([0, 0, 0])
    """
    _check(log_weights, n, validate_args)
    return _invert(_weights(log_weights), uniform(n, log_weights.device, generator))


def stratified(
    log_weights: Tensor,  # shape: (N,)
    n: int,
    *,
    generator: Generator | None = None,
    validate_args: bool = True,
) -> Tensor:  # shape: (n,)
    """One draw from each of n equal slices of the cumulative weights.

    Unbiased, with at most multinomial's variance. Arguments, result and errors are the module's.
    """
    _check(log_weights, n, validate_args)
    offset = uniform(n, log_weights.device, generator)
    return _invert(_weights(log_weights), _comb(n, offset))


def systematic(
    log_weights: Tensor,  # shape: (N,)
    n: int,
    *,
    generator: Generator | None = None,
    validate_args: bool = True,
) -> Tensor:  # shape: (n,)
    """A comb of n teeth, 1/n apart, moved by one uniform number.

    Unbiased; particle j is drawn floor(n * w_j) or ceil(n * w_j) times. Arguments, result and
    errors are the module's.
    """
    _check(log_weights, n, validate_args)
    offset = uniform(1, log_weights.device, generator)
    return _invert(_weights(log_weights), _comb(n, offset))


def residual(
    log_weights: Tensor,  # shape: (N,)
    n: int,
    *,
    generator: Generator | None = None,
    validate_args: bool = True,
) -> Tensor:  # shape: (n,)
    """floor(n * w_j) copies of each particle, the rest multinomial from what is left over.

    Unbiased; particle j is drawn at least floor(n * w_j) times, to the rounding of the log-weights.
    Arguments, result and errors are the module's.
    """
    _check(log_weights, n, validate_args)
    weights = _weights(log_weights)
    expected = n * weights / weights.sum()
    copies = expected.floor()
    ends = copies.cumsum(dim=0)
    slot = torch.arange(n, dtype=ends.dtype, device=ends.device)
    sure = torch.searchsorted(ends, slot, right=True)
    drawn = _invert(expected - copies, uniform(n, log_weights.device, generator))
    return torch.where(slot < ends[-1], sure, drawn)


def without_replacement(
    log_weights: Tensor,  # shape: (N,)
    n: int,
    *,
    generator: Generator | None = None,
    validate_args: bool = True,
) -> Tensor:  # shape: (n,)
    """Different particles, drawn one after another in proportion to the weights left.

    The n largest of log-weight + Gumbel noise are such a sequence of draws, in order (Efraimidis
    and Spirakis 2006; Kool et al. 2019). *Not* unbiased as a resampling of weights: particle j is
    drawn once at most, with a probability that tends to 1 as n grows. Arguments, result and errors
    are the module's; besides:

    Raises:
        ValueError: If n is larger than the number of finite log-weights (with ``validate_args``).
    """
    _check(log_weights, n, validate_args)
    if validate_args:
        finite = int(torch.isfinite(log_weights).sum())
        if n > finite:
            raise ValueError(
                f"n must be at most the number of finite log_weights without replacement, "
                f"got n={n} and {finite} finite."
            )
    noise = uniform(log_weights.shape[0], log_weights.device, generator)
    return torch.topk(perturbed(log_weights.detach().double(), noise), n).indices


SCHEMES: dict[str, Callable[..., Tensor]] = {
    scheme.__name__: scheme
    for scheme in (multinomial, stratified, systematic, residual, without_replacement)
}


def effective_sample_size(
    log_weights: Tensor,  # shape: (N,)
) -> Tensor:  # shape: ()
    """1 / sum of squared normalised weights (Kong 1992; Huang 2026, Alg. 2).

    Args:
        log_weights: Unnormalised log-weights, shape (N,), floating.

    Returns:
        A 0-d tensor, float32 or wider, from 1 (all weight on one particle) to N (all equal), on
        the device of ``log_weights``; 0 if no weight is positive.

    Raises:
        ValueError: If ``log_weights`` is not a floating vector.
    """
    _check_vector(log_weights)
    values = log_weights.double()  # whose rounding does not show in float32
    weights = values.softmax(dim=0)
    ess = weights.dot(weights).reciprocal().masked_fill(values.amax() == -torch.inf, 0.0)
    return ess.to(wide_dtype(log_weights))


class Selection(NamedTuple):
    """What :func:`select` keeps of a pool.

    Attributes:
        slots: The entries that change, shape (B,); None if all are written anew.
        members: The members of the pool that they become, shape (B,), or (n,) for all.
        log_weights: Of the n entries afterwards, summing to one, shape (n,).
        ages: Of the n entries afterwards, shape (n,).
    """

    slots: Tensor | None
    members: Tensor
    log_weights: Tensor
    ages: Tensor


def select(
    log_weights: Tensor,  # shape: (n + B,)
    ages: Tensor,  # shape: (n + B,)
    n: int,
    *,
    resample: Tensor,  # shape: ()
    noise: Tensor,  # shape: (n + B,)
    drawn: Tensor | None = None,  # shape: (n,)
) -> Selection:
    """Which n of a pool of n entries and B newcomers make the bank of the next step.

    Where ``resample`` is true, n are drawn by weight and their weights start again at 1 / n; else
    the n youngest stay, at random among equals, and their weights are normalised. Both are worked
    out, so that no GPU has to wait, and ``torch.compile`` makes one graph of it.

    Args:
        log_weights: Of the pool, shape (n + B,), float64, the newcomers' last.
        ages: Whole numbers, shape (n + B,).
        n: Size of the bank.
        resample: Whether weights decide, shape (), boolean.
        noise: Uniform numbers in [0, 1), shape (n + B,).
        drawn: The members to keep where ``resample`` is true, shape (n,). Default: drawn without
            replacement, as by :func:`without_replacement`, from ``noise``.

    Returns:
        What stays where. Without ``drawn``, a bank of more than 2B entries is changed in B places
        at most; to write a smaller one anew takes fewer operations.
    """
    newest = noise - ages  # noise below 1 orders equal ages at random
    slots = None
    if drawn is not None:
        members = torch.where(resample, drawn, torch.topk(newest, n).indices)
    else:
        order = torch.where(resample, perturbed(log_weights, noise), newest)
        num_new = len(order) - n
        if n <= 2 * num_new:
            members = torch.topk(order, n).indices
        else:  # who leaves is among the newcomers and as many last entries
            slots = torch.topk(order[:n], num_new, largest=False).indices
            candidates = torch.cat([slots, torch.arange(n, len(order), device=slots.device)])
            members = candidates[torch.topk(order[candidates], num_new).indices]

    def kept(values: Tensor) -> Tensor:
        return (
            values[members] if slots is None else values[:n].index_copy(0, slots, values[members])
        )

    stayed = torch.where(resample, -math.log(n), kept(log_weights).log_softmax(dim=0))
    return Selection(slots, members, stayed, kept(ages))


def temper(
    log_weights: Tensor,  # shape: (N,)
    target_ess: float,
) -> Tensor:  # shape: ()
    """The largest exponent in [0, 1] under which the weights keep a target ESS.

    Bisection on beta for ESS(w^beta) = target (Jasra et al. 2011), as tensor operations: no host
    sync. ESS falls from the number of positive weights at beta = 0 to ESS(w) at beta = 1.

    Args:
        log_weights: Unnormalised log-weights, shape (N,), floating.
        target_ess: The effective sample size to keep, from 1 to N.

    Returns:
        The exponent, a 0-d float64 tensor. 1 if ESS(w) reaches the target, 0 if even equal
        weights on the positive particles do not; NaN if a log-weight is NaN or +inf.

    Raises:
        ValueError: If ``log_weights`` is not a floating vector or ``target_ess`` is out of range.
    """
    _check_vector(log_weights)
    target = check_number("target_ess", target_ess, low=1.0, high=float(log_weights.shape[0]))
    values = log_weights.detach().double()
    zero_weight = torch.isneginf(values)
    shifted = (values - values.amax()).masked_fill(zero_weight, 0.0)

    def reaches_target(exponent: Tensor) -> Tensor:
        tempered = (exponent * shifted).masked_fill(zero_weight, -torch.inf)
        # Rounding in the sums must not turn down N equal weights for a target of N.
        return effective_sample_size(tempered) >= target * (1.0 - 1e-12)

    low = torch.zeros((), dtype=torch.float64, device=values.device)
    high = torch.ones_like(low)
    whole = reaches_target(high)
    for _ in range(60):  # 2^-60 is below the spacing of float64 at 1
        middle = 0.5 * (low + high)
        enough = reaches_target(middle)
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    damaged = (values.isnan() | values.isposinf()).any()
    return torch.where(whole, torch.ones_like(low), low).masked_fill(damaged, torch.nan)


def count_distinct(
    rows: Tensor,  # shape: (N, D)
) -> Tensor:  # shape: ()
    """Number of distinct rows, a 0-d tensor, by :func:`hash_rows`; no host sync."""
    if rows.shape[0] == 0:
        return torch.zeros((), device=rows.device)
    hashes = hash_rows(rows).sort().values
    return 1.0 + (hashes[1:] != hashes[:-1]).sum()


def hash_rows(
    rows: Tensor,  # shape: (N, D)
) -> Tensor:  # shape: (N,)
    """A 64-bit hash of each row's numbers, int64: equal for equal rows.

    Each number is mixed with its place by the finaliser of SplitMix64 (Steele et al. 2014), so that
    rows of a pattern (signs, one-hot codes) collide no more than random ones.
    """
    rows = rows.to(wide_dtype(rows)) + 0.0  # -0.0 is 0.0
    words = rows.contiguous().view(torch.int32).to(torch.int64)
    places = torch.arange(1, words.shape[1] + 1, device=words.device)
    mixed = words + places * -0x61C8864680B583EB  # the golden ratio in 64 bits
    mixed = (mixed ^ (mixed >> 30)) * -0x40A7B892E31B1A47
    mixed = (mixed ^ (mixed >> 27)) * -0x6B2FB644ECCEEE15
    return (mixed ^ (mixed >> 31)).sum(dim=1)


def uniform(count: int, device: torch.device, generator: Generator | None) -> Tensor:
    """``count`` float64 numbers in [0, 1), moved to ``device`` without making a GPU wait."""
    source = generator.device if generator is not None else torch.device("cpu")
    drawn = torch.rand(count, dtype=torch.float64, device=source, generator=generator)
    if device.type == "cuda" and source.type == "cpu":
        drawn = drawn.pin_memory()
    return drawn.to(device, non_blocking=True)


def perturbed(log_weights: Tensor, uniforms: Tensor) -> Tensor:
    """Log-weights with Gumbel noise, -log(-log u) of numbers u in [0, 1)."""
    return log_weights - uniforms.log().neg_().log_()


def _check_vector(log_weights: Tensor) -> None:
    if not isinstance(log_weights, Tensor) or log_weights.ndim != 1 or log_weights.numel() == 0:
        got = tuple(log_weights.shape) if isinstance(log_weights, Tensor) else log_weights
        raise ValueError(f"log_weights must be a tensor of shape (N,), N >= 1, got {got}.")
    if not log_weights.is_floating_point():
        raise ValueError(f"log_weights must be floating, got dtype {log_weights.dtype}.")


def _check(log_weights: Tensor, n: int, validate_args: bool) -> None:
    _check_vector(log_weights)
    check_count("n", n)
    if not validate_args:
        return
    if bool((log_weights.isnan() | log_weights.isposinf()).any()):
        raise ValueError("log_weights must not hold NaN or +inf.")
    if not bool(log_weights.isfinite().any()):
        raise ValueError("log_weights must hold at least one finite value, got -inf only.")


def _weights(log_weights: Tensor) -> Tensor:
    """Weights up to a factor, float64, the largest being 1."""
    values = log_weights.detach().double()
    return (values - values.amax()).exp()


def _comb(n: int, offset: Tensor) -> Tensor:
    return (torch.arange(n, dtype=torch.float64, device=offset.device) + offset) / n


def _invert(weights: Tensor, points: Tensor) -> Tensor:
    """Index j with cdf[j-1] <= point < cdf[j]: half-open, so that zero weights are never met."""
    cdf = weights.cumsum(dim=0)
    below_one = 1.0 - torch.finfo(torch.float64).eps / 2  # (n - 1 + u) / n can round to 1
    index = torch.searchsorted(cdf, points.clamp_max(below_one) * cdf[-1], right=True)
    # point * cdf[-1] can round up to cdf[-1], and trailing zero weights have that value too.
    return torch.minimum(index, torch.searchsorted(cdf, cdf[-1]))
