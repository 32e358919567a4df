"""State of a module that is saved and moved with it, but that DDP does not touch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gmje_plugin.validation import wide_dtype


class LocalState(nn.Module):
    """Mixin for plain tensors that belong to ``state_dict`` and not to ``buffers()``.

    DDP overwrites every rank's buffers with rank 0's at each forward pass, and ``.bfloat16()``
    narrows them. These tensors follow the module's device only, and each rank keeps its own.

    Attributes:
        state_tensors: Names of the tensor attributes in ``state_dict``; the first one's length 0
            means that there is no state.
        state_counters: Names of the int attributes in ``state_dict``.
        unsaved_tensors: Names of tensor attributes that move along but are not saved.
    """

    state_tensors: tuple[str, ...]
    state_counters: tuple[str, ...]
    unsaved_tensors: tuple[str, ...]

    def _state_error(self, state: dict[str, Tensor]) -> str | None:
        """What is wrong with a checkpoint's state, if anything."""
        raise NotImplementedError

    def _start_anew(self) -> None:
        """Makes the state of a new object."""
        raise NotImplementedError

    def _after_load(self) -> None:
        """Brings what is not saved in line with a state just loaded."""
        raise NotImplementedError

    def _move_state(self, device: torch.device) -> None:
        if getattr(self, self.state_tensors[0]).is_meta and device.type != "meta":
            self._start_anew()  # there are no values to move
        for name in (*self.state_tensors, *self.unsaved_tensors):
            setattr(self, name, getattr(self, name).to(device))

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Any:
        super()._apply(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        self._move_state(fn(getattr(self, self.state_tensors[0]).new_empty(0)).device)
        return self

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in self._state_names():
            value = getattr(self, name)
            # A copy: the bank is updated in place, and a state kept aside must stay of one step.
            destination[prefix + name] = (
                value.clone() if name in self.state_tensors else torch.tensor(value)
            )

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        names = self._state_names()
        state = {name: state_dict[prefix + name] for name in names if prefix + name in state_dict}
        own = {prefix + name for name in state}
        others = {key: value for key, value in state_dict.items() if key not in own}
        super()._load_from_state_dict(
            others, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if names and not state:
            warnings.warn(
                f"The checkpoint has no state of {prefix!r} ({type(self).__name__}), "
                "which keeps the one it has.",
                stacklevel=2,
            )
        elif len(state) < len(names):
            missing_keys.extend(prefix + name for name in names if name not in state)
        elif names and (error := self._state_error(state)):
            error_msgs.append(f"{prefix}{self.state_tensors[0]}: {error}")
        elif names:
            self._load_state(state)

    @torch.inference_mode(False)  # what is made under it cannot be updated in place later
    def _load_state(self, state: dict[str, Tensor]) -> None:
        device = getattr(self, self.state_tensors[0]).device
        if device.type == "meta":
            self._start_anew()
        for name in self.state_tensors:
            value = state[name].detach()
            dtype = wide_dtype(value) if value.is_floating_point() else value.dtype
            target = value.device if device.type == "meta" else device
            setattr(self, name, value.to(target, dtype, copy=True))
        for name in self.state_counters:
            setattr(self, name, int(state[name]))
        self._after_load()
        self._move_state(getattr(self, self.state_tensors[0]).device)

    def _state_names(self) -> tuple[str, ...]:
        empty = len(getattr(self, self.state_tensors[0])) == 0
        return () if empty else (*self.state_tensors, *self.state_counters)
