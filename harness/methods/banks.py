"""The memory banks of MoCo, SMC-GMJE and NNCLR."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.settings import BankSettings, choice, config, option, ranged
from harness.settings.registry import registered


@config("bank", "fifo", "FIFO")
@dataclass
class FIFOBankSettings(BankSettings):
    """lightly's queue: the oldest entries leave."""

    is_queue: ClassVar[bool] = True
    name: str = choice("fifo")

    def options(self) -> dict[str, Any]:
        """Lightly's loss has no in-batch negatives: a bank that never resamples is its queue."""
        return {"ess_threshold": 0.0}


@config(
    "bank",
    "smc_paper",
    "SMC (Algorithm 2)",
    help="The paper's Algorithm 2. [P]",
    resampling="multinomial",
    ess_threshold=None,  # every step
    count_own_query=True,
)
@config("bank", "smc", "SMC")
@dataclass
class SMCBankSettings(BankSettings):
    """``SMCMemoryBankModule`` with its defaults."""

    name: str = choice("smc", "smc_paper")
    resampling: str = choice(
        "without_replacement",
        "multinomial",
        "stratified",
        "systematic",
        "residual",
        help="Scheme by which entries are drawn.",
    )
    ess_threshold: float | None = ranged(
        0.5,
        low=0.0,
        high=1.0,
        help="Share of the pool below which the effective sample size triggers resampling; null "
        "resamples at every step, 0 never.",
    )
    count_own_query: bool = option(
        False, help="Whether a key is also weighted by the query of its own image."
    )

    def options(self) -> dict[str, Any]:
        """Those of ``SMCMemoryBankModule``."""
        return {
            "resampling": self.resampling,
            "ess_threshold": self.ess_threshold,
            "count_own_query": self.count_own_query,
        }

    def problems_inside(self) -> Iterator[str]:
        """Algorithm 2 has no options."""
        if self.name == "smc_paper" and self.options() != registered("bank")[self.name].values:
            yield "bank=smc_paper is Algorithm 2: change options of bank=smc"
