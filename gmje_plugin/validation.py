"""Checks that every loss, head and bank makes on its arguments.

Each raises a ``ValueError`` that names the argument, what it has to be and what was given.
None of them reads the values of a tensor, so none makes a GPU wait.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection
from functools import wraps
from numbers import Integral, Real

import torch
from torch import Tensor, nn

# What NTXentLoss, VICRegLoss and BarlowTwinsLoss, and NegativeCosineSimilarity call two views.
_LIGHTLY_NAMES = (("out0", "z_a", "x0"), ("out1", "z_b", "x1"))


def takes_lightly_names(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Lets the two views of a loss's ``forward`` be named as any of lightly's losses names them."""
    own = list(inspect.signature(forward).parameters)[1:3]
    names = {
        alias: name for name, aliases in zip(own, _LIGHTLY_NAMES, strict=True) for alias in aliases
    }

    @wraps(forward)
    def call(self: object, *args: object, **kwargs: object) -> Tensor:
        renamed = {names.get(key, key): value for key, value in kwargs.items()}
        if len(renamed) < len(kwargs):
            raise TypeError(f"a view must have one name, got {', '.join(kwargs)}.")
        return forward(self, *args, **renamed)

    return call


def check_embeddings(name: str, value: Tensor, *, dim: int | None = None) -> None:
    """Raises ``ValueError`` unless ``value`` is a floating (B, dim) tensor with B >= 1."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(value).__name__}.")
    if value.ndim != 2 or value.shape[0] < 1 or value.shape[1] < 1:
        raise ValueError(
            f"{name} must have shape (batch_size, dim) with at least one row, "
            f"got {tuple(value.shape)}."
        )
    if not value.is_floating_point():
        raise ValueError(f"{name} must be a floating tensor, got dtype {value.dtype}.")
    if dim is not None and value.shape[1] != dim:
        raise ValueError(f"{name} must have {dim} features, got shape {tuple(value.shape)}.")


def check_pair(
    out0: Tensor,
    out1: Tensor,
    *,
    dim: int | None = None,
    min_rows: int = 1,
    same_dim: bool = True,
    names: tuple[str, str] = ("out0", "out1"),
) -> None:
    """Raises ``ValueError`` unless both are (B, dim) views of one batch on one device.

    Without ``same_dim`` each may have a feature size of its own.
    """
    check_embeddings(names[0], out0, dim=dim)
    check_embeddings(names[1], out1, dim=dim)
    if out0.shape != out1.shape and (same_dim or len(out0) != len(out1)):
        raise ValueError(
            f"{names[0]} and {names[1]} must have the same {'shape' if same_dim else 'rows'}, "
            f"got {tuple(out0.shape)} and {tuple(out1.shape)}."
        )
    if out0.device != out1.device:
        raise ValueError(
            f"{names[0]} and {names[1]} must be on one device, got {out0.device} and {out1.device}."
        )
    if out0.shape[0] < min_rows:
        raise ValueError(f"{names[0]} must have at least {min_rows} rows, got {out0.shape[0]}.")


def check_number(
    name: str,
    value: float,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    low_open: bool = False,
    high_open: bool = False,
) -> float:
    """Returns ``value`` as a float if it is finite and within the range, else raises."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    inside = (
        number
        and math.isfinite(value)
        and (value > low if low_open else value >= low)
        and (value < high if high_open else value <= high)
    )
    if not inside:
        left, right = "(" if low_open else "[", ")" if high_open else "]"
        raise ValueError(
            f"{name} must be a finite number in {left}{low}, {high}{right}, got {value!r}."
        )
    return float(value)


def check_positive(name: str, value: float) -> float:
    """Returns ``value`` as a float if it is finite and above 0, else raises."""
    return check_number(name, value, low=0.0, low_open=True)


def check_count(name: str, value: int, *, low: int = 1) -> int:
    """Returns ``value`` if it is an integer of at least ``low``, else raises."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name} must be an integer of at least {low}, got {value!r}.")
    return int(value)


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raises ``ValueError`` unless ``value`` is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(sorted(choices))}, got {value!r}.")


def check_device(name: str, parameter: Tensor, value: Tensor) -> None:
    """Raises ``ValueError`` if a loss with parameters was left on another device."""
    if parameter.device != value.device:
        raise ValueError(
            f"{name} is on {value.device} but the loss's parameters are on {parameter.device}: "
            f"move the loss with .to({str(value.device)!r}) before making the optimizer."
        )


def moves_state(module: nn.Module) -> bool:
    """Whether a forward pass changes what a loss remembers: the one rule for all of them.

    Banks and averages move in training mode with gradients enabled. A validation pass, by
    ``.eval()`` or under ``no_grad`` or ``inference_mode``, leaves them alone.
    """
    return module.training and torch.is_grad_enabled()


def wide_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype to compute in: float32 at least, float64 if any of the tensors is."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
