"""Puts the components where lightly's users look for them."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import lightly.loss
import lightly.models.modules
from lightly.models.modules.memory_bank import MemoryBankModule
from lightly.models.modules.nn_memory_bank import NNMemoryBankModule
from torch import Tensor, nn

import gmje_plugin.loss
import gmje_plugin.modules
from gmje_plugin.modules.smc_memory_bank import SMCMemoryBankModule

_PLACES: tuple[tuple[ModuleType, ModuleType], ...] = (
    (lightly.loss, gmje_plugin.loss),
    (lightly.models.modules, gmje_plugin.modules),
)


def swap_memory_bank(
    module: nn.Module,
    *,
    temperature: float | None = None,
    resampling: str = "without_replacement",
    ess_threshold: float | None = 0.5,
    count_own_query: bool = False,
    seed: int = 0,
) -> int:
    """Replaces every plain ``MemoryBankModule`` below ``module`` by an SMC bank, in place.

    Size, ``gather_distributed``, ``feature_dim_first`` and device are kept, contents are not. A
    bank that two modules share stays shared. Subclasses of ``MemoryBankModule`` (such as
    ``NNMemoryBankModule``, for which there is ``SMCNNMemoryBankModule``) and banks of size 0 are
    left alone. A bank that no module holds (a variable, as in lightly's SMoG example) cannot be
    replaced in place: write ``SMCMemoryBankModule`` for ``MemoryBankModule`` there.

    Args:
        module: A loss, a regulariser, or a model that holds some.
        temperature: Temperature of the weights. Default: None, the ``temperature`` or
            ``t_consistency`` that the module that owns the bank has now, a number or a tensor of
            one; a schedule, or learning it, has to set the bank's too.
        resampling: As of ``SMCMemoryBankModule``, like the arguments that follow.
        ess_threshold: See there.
        count_own_query: See there.
        seed: See there.

    Returns:
        How many banks were replaced.

    Raises:
        ValueError: If there is no bank to replace, an option is out of its range, the owner's
            temperature is no number, or the owners of a shared bank have different ones and none is
            given.

    Examples:
        >>> criterion = NTXentLoss(temperature=0.1, memory_bank_size=(4096, 128))
        >>> swap_memory_bank(criterion)
        1
    """
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"module must be an nn.Module, got {type(module).__name__}: put several banks in an "
            "nn.ModuleList, or write SMCMemoryBankModule for MemoryBankModule where they are made."
        )
    owners: dict[Any, list[tuple[nn.Module, str]]] = {}
    for parent in module.modules():
        for name, child in parent._modules.items():  # named_children() leaves out second names
            if _is_plain_bank(child):
                owners.setdefault(child, []).append((parent, name))
    if not owners:
        raise ValueError(_why_none(module))
    swaps = []
    for bank, places in owners.items():
        shared = _temperature([owner for owner, _ in places]) if temperature is None else None
        lazy = bank.bank.ndim == 1  # lightly 1.5.20, before the first batch
        swapped = SMCMemoryBankModule(
            bank.size if lazy else tuple(bank.bank.shape),
            bank.gather_distributed,
            bank.feature_dim_first,
            temperature=shared if temperature is None else temperature,
            resampling=resampling,
            ess_threshold=ess_threshold,
            count_own_query=count_own_query,
            seed=seed,
        )
        swaps.append((places, swapped.to(bank.bank.device).train(bank.training)))
    for places, swapped in swaps:
        for parent, name in places:
            setattr(parent, name, swapped)
    return len(swaps)


def register() -> None:
    """Makes the components importable from ``lightly.loss`` and ``lightly.models.modules``.

    Idempotent; ``unregister`` undoes it. Importing ``gmje_plugin`` alone patches nothing.

    Raises:
        ValueError: If lightly has something else of the same name.

    Examples:
        >>> gmje_plugin.register()
        >>> from lightly.loss import SMCNTXentLoss
    """
    for place, source in _PLACES:
        for name, component in _components(source).items():
            if getattr(place, name, component) is not component:
                raise ValueError(f"{place.__name__} has another {name} already.")
    for place, source in _PLACES:
        for name, component in _components(source).items():
            setattr(place, name, component)


def unregister() -> None:
    """Takes back what ``register`` did; does nothing otherwise."""
    for place, source in _PLACES:
        for name, component in _components(source).items():
            if getattr(place, name, None) is component:
                delattr(place, name)


def _is_plain_bank(module: Any) -> bool:
    return type(module) is MemoryBankModule and module.size[0] > 0


def _components(source: ModuleType) -> dict[str, type]:
    return {name: value for name, value in vars(source).items() if inspect.isclass(value)}


def _why_none(module: nn.Module) -> str:
    """Why there is no bank to replace."""
    name = type(module).__name__
    banks = [part for part in module.modules() if isinstance(part, MemoryBankModule)]
    if module in banks and _is_plain_bank(module):
        return (
            f"module must hold the bank, got the {name} itself, which cannot be replaced in place: "
            "make an SMCMemoryBankModule of its size instead."
        )
    if any(isinstance(bank, SMCMemoryBankModule) for bank in banks):
        return f"module must hold a MemoryBankModule, {name} holds SMC banks already."
    if any(isinstance(bank, NNMemoryBankModule) for bank in banks):
        return (
            f"module must hold a MemoryBankModule, {name} holds an NNMemoryBankModule, which "
            "returns nearest neighbours: make an SMCNNMemoryBankModule of its size instead."
        )
    if any(_is_plain_bank(bank) for part in module.modules() for bank in _hidden(part)):
        return (
            f"module must hold its banks as modules, {name} has them in a list or dict: make that "
            "an nn.ModuleList or nn.ModuleDict."
        )
    if banks:
        return (
            f"module must hold a MemoryBankModule of positive size, {name} holds one of size 0 or "
            "of another class: set its memory_bank_size, or the attribute that holds the bank."
        )
    return (
        f"module must hold a MemoryBankModule of positive size, {name} holds none: set its "
        "memory_bank_size, or set the attribute that holds the bank."
    )


def _hidden(module: nn.Module) -> list[Any]:
    """What plain lists, tuples and dicts among the attributes hold, which ``modules()`` misses."""
    found: list[Any] = []
    for value in vars(module).values():
        if isinstance(value, (list, tuple)):
            found += value
        elif type(value) is dict:
            found += value.values()
    return found


def _temperature(parents: list[nn.Module]) -> float | None:
    found = {
        _number(f"{type(parent).__name__}.{name}", getattr(parent, name))
        for parent in parents
        for name in ("temperature", "t_consistency")
        if getattr(parent, name, None) is not None
    }
    if len(found) > 1:
        raise ValueError(f"temperature must be given: the owners of one bank have {sorted(found)}.")
    return found.pop() if found else None


def _number(name: str, value: Any) -> float:
    """A number, a numpy number, or a tensor or array of one."""
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"temperature must be given: {name} is a {type(value).__name__}, not one number."
        ) from None
