"""How a module shows the options that it was made with."""

from __future__ import annotations

import inspect

from torch import Tensor, nn


class ShowsOptions(nn.Module):
    """Mixin: ``repr`` names the constructor's arguments, which are attributes of the same name."""

    def extra_repr(self) -> str:
        """The arguments as they are now, without modules, which are shown below."""
        names = inspect.signature(type(self)).parameters
        values = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return ", ".join(
            f"{name}={value.item() if isinstance(value, Tensor) else value!r}"
            for name, value in values.items()
            if not isinstance(value, nn.Module)
        )
