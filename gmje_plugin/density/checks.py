"""Checks of what a Gaussian or a mixture is made from and asked about."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gmje_plugin.density.covariance import KINDS, Covariance, Full
from gmje_plugin.validation import check_count


def check_points(name: str, value: Tensor, dim: int) -> Tensor:
    """Returns ``value`` if it is a tensor of shape (..., dim), else raises."""
    if not isinstance(value, Tensor) or value.ndim < 1 or value.shape[-1] != dim:
        got = tuple(value.shape) if isinstance(value, Tensor) else value
        raise ValueError(f"{name} must be a tensor of shape (..., {dim}), got {got}.")
    return value


def check_weights(weights: Tensor, means: Tensor, *, validate_values: bool) -> None:
    """Raises ``ValueError`` unless there is a weight for each of the means."""
    if not isinstance(means, Tensor) or means.ndim != 2:
        got = tuple(means.shape) if isinstance(means, Tensor) else means
        raise ValueError(f"means must be a tensor of shape (K, D), got {got}.")
    if not isinstance(weights, Tensor) or not weights.is_floating_point():
        raise ValueError(f"weights must be a floating tensor, got {weights!r}.")
    if weights.shape != means.shape[:1]:
        raise ValueError(
            f"weights must have shape {tuple(means.shape[:1])}, one for each of the means, "
            f"got {tuple(weights.shape)}."
        )
    if validate_values and not bool((weights >= 0).all() & ((weights.sum() - 1).abs() < 1e-4)):
        raise ValueError(f"weights must be at least 0 and sum to 1, got {weights.tolist()}.")


def check_df(df: Tensor, count: int, coupling: str, *, validate_values: bool) -> None:
    """Raises ``ValueError`` unless each of some Student t has its degrees of freedom."""
    shape = (count,) if coupling == "joint" else (count, 2)
    if not isinstance(df, Tensor) or not df.is_floating_point() or df.shape != shape:
        got = tuple(df.shape) if isinstance(df, Tensor) else df
        raise ValueError(
            f"df must be a floating tensor of shape {shape} with coupling={coupling!r}, got {got}."
        )
    if validate_values and not bool(((df > 0) & df.isfinite()).all()):
        raise ValueError(f"df must be positive and finite, got {df.tolist()}.")


def check_split(split: int | None, mean: Tensor) -> int:
    """Returns ``split`` if it leaves both views a dimension, else raises ``ValueError``."""
    if split is None or check_count("split", split) >= mean.shape[-1]:
        raise ValueError(f"split must be below the {mean.shape[-1]} dimensions, got {split}.")
    return int(split)


def check_parameters(
    mean: Tensor,
    covariance: Tensor | None,
    scale_tril: Tensor | None,
    *,
    validate_values: bool,
    names: tuple[str, str] = ("mean", "covariance"),
) -> tuple[Tensor, type[Covariance]]:
    """Returns what is given of covariance and factor, and its kind, if it fits, else raises."""
    kinds = KINDS
    if covariance is not None and scale_tril is None:
        name, given = names[1], covariance
    elif scale_tril is not None and covariance is None:
        name, given, kinds = "scale_tril", scale_tril, {"full": Full}
    else:
        got = "neither" if covariance is None else "both"
        raise ValueError(f"one of {names[1]} and scale_tril must be given, got {got}.")
    for each, value in ((names[0], mean), (name, given)):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise ValueError(f"{each} must be a floating tensor, got {value!r}.")
        if validate_values and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{each} must be finite, got NaN or infinite entries.")
    if mean.ndim < 1 or mean.shape[-1] < 2:
        raise ValueError(
            f"{names[0]} must have a last dimension of at least 2, got shape {tuple(mean.shape)}."
        )
    kind = _check_shape(name, given, mean, kinds)
    if validate_values and scale_tril is not None:
        _check_factor(scale_tril)
    elif validate_values:
        kind.check(name, given)
    return given, kind


def _check_shape(
    name: str, given: Tensor, mean: Tensor, kinds: Mapping[str, type[Covariance]]
) -> type[Covariance]:
    """The kind whose shape it is, a copy for each of the means or one that all share."""
    batch, dim = tuple(mean.shape[:-1]), mean.shape[-1]
    shapes = {label: kind.event_dims * (dim,) for label, kind in kinds.items()}
    for label, shape in shapes.items():
        if given.shape in ((*batch, *shape), (*[1] * len(batch), *shape)):
            return kinds[label]
    *rest, last = (f"{(*batch, *shape)} ({label})" for label, shape in shapes.items())
    allowed = f"{', '.join(rest)} or {last}" if rest else last
    sharing = ", or with 1 for a batch dimension if all share it" if batch else ""
    raise ValueError(f"{name} must have shape {allowed}{sharing}, got {tuple(given.shape)}.")


def _check_factor(factor: Tensor) -> None:
    if bool(factor.triu(1).any()) or not bool((factor.diagonal(dim1=-2, dim2=-1) > 0).all()):
        raise ValueError("scale_tril must be lower triangular with a positive diagonal.")
