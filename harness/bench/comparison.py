"""Steps side by side: their times in turn, the ratio to one of them, and their memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from rich.table import Table

from harness.bench import in_turn, interval, seconds_of, table, timing
from harness.bench.memory import Step, extra_memory


@dataclass(frozen=True)
class Comparison:
    """What is compared with what, and how it is told.

    Attributes:
        baseline: The step whose time the others are divided by.
        ratio: What rows call that ratio.
        unit: Of times: "ms" or "s".
        form: Of times in the table.
    """

    baseline: str
    ratio: str
    unit: str = "ms"
    form: str = ".2f"

    def rows(
        self,
        make_steps: Callable[[], Mapping[str, Step]],
        *,
        rounds: int,
        warmup: int,
        device: torch.device,
    ) -> list[dict[str, Any]]:
        """One line of results a step; ``make_steps`` is as of :func:`extra_memory`."""
        timings = {name: partial(seconds_of, step) for name, step in make_steps().items()}
        seconds = in_turn(timings, rounds=rounds, warmup=warmup)
        extra = extra_memory(make_steps, device=device)
        return [
            {
                "variant": name,
                **timing(taken, unit=self.unit),
                self.ratio: median(taken) / median(seconds[self.baseline]),
                "extra_memory_mib": extra.get(name),
            }
            for name, taken in seconds.items()
        ]

    def table(self, title: str, heading: str, rows: Sequence[Mapping[str, Any]]) -> Table:
        """The lines under the title, the steps under the heading."""
        made = table(title, heading, f"{self.unit} (min to max)", "ratio", "extra MiB")
        for row in rows:
            extra = row["extra_memory_mib"]
            made.add_row(
                row["variant"],
                interval(row, unit=self.unit, form=self.form),
                f"{row[self.ratio]:.2f}",
                "?" if extra is None else f"{extra:.1f}",
            )
        return made
