"""What all methods and all memory banks have; each has a file of its own in ``harness/methods``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import MISSING

from harness.settings.fields import choice, ranged
from harness.settings.registry import registered

if TYPE_CHECKING:
    from torch import nn

    from harness.methods.modules.base import Method
    from harness.methods.modules.context import BuildContext


@dataclass
class BankSettings:
    """A memory bank of negatives or neighbours; in rows experiment.rows.moco_smc.bank, ..."""

    is_queue: ClassVar[bool] = False  # whether it is lightly's own: the oldest entries leave
    name: str = MISSING
    size: int = ranged(256, low=1, help="Entries; one batch, as in the paper. [P]")

    def options(self) -> dict[str, Any]:
        """The arguments of ``SMCMemoryBankModule`` that make it."""
        raise NotImplementedError(f"no bank for {type(self).__name__}")

    def problems_inside(self) -> Iterator[str]:
        """Options of the bank that are each valid but not together."""
        yield from ()


@dataclass
class MethodSettings:
    """What every method has: an optimiser with a cosine schedule, and lightly's projection head.

    Defaults are the paper's, or lightly's and the loss's own where it prints none. scale=reduced
    has settings found on CIFAR-10 (JPEG) (configs/recipe/reduced), whatever data they are used
    with; the rows of quickstart those found on scikit-learn's digits. Chosen with
    experiment=benchmark and banks; each row of quickstart and mnist_latents has its own, as
    experiment.rows.simclr.method.temperature.
    """

    family: ClassVar[str] = "SimCLR"  # SimCLR's embeds both views alike, by one encoder
    has_mixture: ClassVar[bool] = False  # whether the criterion is a density, ``.mixture()``
    has_bank: ClassVar[bool] = False  # whether it needs a memory bank
    projection: ClassVar[str] = "SimCLRProjectionHead"  # of lightly.models.modules.heads
    name: str = MISSING
    optimizer: str = choice("sgd", "lars", "adamw", help="torch's optimizer, or lightly's LARS.")
    # Of losses in nats per dimension, where they are likelihoods.
    learning_rate: float = ranged(
        0.06, above=0.0, help="Peak learning rate, after the warm-up; each method has its own. [R]"
    )
    momentum: float = ranged(0.9, low=0.0, below=1.0, help="Momentum of sgd and lars. [R]")
    weight_decay: float = ranged(
        5e-4, low=0.0, help="Weight decay, not of biases, norms and losses. [R]"
    )
    hidden_dim: int = ranged(512, low=1, help="Width of the projection head. [R]")
    output_dim: int = ranged(128, low=1, help="Dimensions of an embedding. [R]")
    num_views: int = ranged(
        2, low=2, help="Views of an image; of more, the criterion's mean over their pairs."
    )

    def build(self, context: BuildContext) -> Method:
        """The untrained method, with weights from torch's global generator.

        Here SimCLR's: what differs in its family is the head, or the criterion alone. What needs
        torch is imported inside these functions, as settings are read without it.
        """
        from harness.methods.modules.contrastive import SimCLR

        head = self.projection_head(context)
        return SimCLR(context, self, self.criterion(gather=context.gather), head)

    def projection_head(self, context: BuildContext) -> nn.Module:
        """Lightly's of the name ``projection``, from features to embeddings."""
        from lightly.models.modules import heads

        kind: type[nn.Module] = getattr(heads, self.projection)
        return kind(context.backbone.feature_dim, self.hidden_dim, self.output_dim)

    def criterion(self, *, gather: bool) -> nn.Module:
        """The loss of SimCLR's family, over the batches of all devices if ``gather``."""
        raise NotImplementedError(f"no method for {type(self).__name__}")

    def problems_with(self, bank: BankSettings | None) -> Iterator[str]:
        """Options that are each valid but not together; most methods have no bank."""
        if self.num_views > 2 and self.family != "SimCLR":
            yield f"method.num_views must be 2 for {self.name}"
        if bank is not None and not self.has_bank:
            with_bank = [name for name, it in registered("method").items() if it.settings.has_bank]
            yield f"bank is for {_listed(with_bank, 'and')}, not for {self.name}"
        elif bank is None and self.has_bank:
            yield f"bank must be chosen for {self.name} (bank={_listed(registered('bank'), 'or')})"
        elif bank is not None:
            yield from bank.problems_inside()

    def suffix(self) -> str:
        """What a title says behind method and bank."""
        return ""


def _listed(names: Iterable[str], word: str) -> str:
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last
