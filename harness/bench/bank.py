"""``python -m harness bench bank``: time and memory of a loss and bank step, beside lightly's.

A step is the forward pass of the loss, its backward pass to the queries and the update of the
bank. All variants take turns, step by step, in one process, so that whatever else the machine does
meets all of them. The banks are filled before. "Bank only" is without in-batch negatives, as
lightly's loss is, and so is ".paper bank"; "ratio" is to lightly's time.

What memory is: harness/bench/memory.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import torch
from lightly.loss import NTXentLoss
from rich.console import Console
from torch import nn
from torch.nn.functional import normalize

from gmje_plugin import SMCMemoryBankModule, SMCNTXentLoss, swap_memory_bank
from harness.bench import OneLineParser, count, finish
from harness.bench.comparison import Comparison
from harness.bench.memory import Step

TEMPERATURE = 0.1
Size = tuple[int, int]


def _swapped(size: Size) -> nn.Module:
    criterion: nn.Module = NTXentLoss(TEMPERATURE, size)
    swap_memory_bank(criterion)
    return criterion


LIGHTLY, PRODUCTS = "NTXentLoss, FIFO (lightly)", "two matrix products alone"
CRITERIA: dict[str, Callable[[Size], nn.Module]] = {
    LIGHTLY: partial(NTXentLoss, TEMPERATURE),
    "NTXentLoss, SMC swapped in": _swapped,
    "SMCNTXentLoss, bank only": partial(SMCNTXentLoss, TEMPERATURE, in_batch_negatives=False),
    "SMCNTXentLoss, default": partial(SMCNTXentLoss, TEMPERATURE),
    "SMCNTXentLoss, .paper bank": lambda size: SMCNTXentLoss(
        TEMPERATURE, memory_bank=SMCMemoryBankModule.paper(size), in_batch_negatives=False
    ),
}
VARIANTS = (*CRITERIA, PRODUCTS)


def main(arguments: Sequence[str]) -> None:
    """Runs ``bench bank`` with the command line's arguments."""
    parser = OneLineParser("bench bank", __doc__)
    parser.add_argument("--sizes", type=count, nargs="+", default=[4096, 65536], metavar="M")
    parser.add_argument("--batch-sizes", type=count, nargs="+", default=[256], metavar="B")
    parser.add_argument("--dim", type=count, default=128, help="of the embeddings")
    parser.add_argument("--repeats", type=count, default=20, help="steps timed of each variant")
    options = parser.measurement(arguments)
    comparison = Comparison(LIGHTLY, "of_lightly")
    rows = []
    console = Console()
    for size, batch_size in product(options.sizes, options.batch_sizes):
        shape, device = (size, options.dim), torch.device(options.device)
        make = partial(make_steps, shape, batch_size=batch_size, device=device)
        with console.status(f"bank of {size}, batch of {batch_size}"):
            found = comparison.rows(make, rounds=options.repeats, warmup=2, device=device)
        title = f"M = {size}, B = {batch_size}, d = {options.dim}, "
        title += f"{device}, {options.threads} thread(s), {options.repeats} steps each"
        console.print(comparison.table(title, "loss and bank", found))
        rows += [{"size": size, "batch_size": batch_size, **row} for row in found]
    finish(rows, options)


def make_steps(size: Size, *, batch_size: int, device: torch.device) -> dict[str, Step]:
    """A step of each variant on the same random embeddings, its bank filled."""
    generator = torch.Generator().manual_seed(0)
    queries, keys, entries = (
        normalize(torch.randn(rows, size[1], generator=generator), dim=1).to(device)
        for rows in (batch_size, batch_size, size[0])
    )

    def make_step(criterion: nn.Module) -> Step:
        criterion.to(device).get_submodule("memory_bank")(entries, update=True)
        trained = queries.clone().requires_grad_()

        def step() -> None:
            trained.grad = None
            criterion(trained, keys).backward()

        return step

    steps = {name: make_step(make(size)) for name, make in CRITERIA.items()}
    return {**steps, PRODUCTS: lambda: (queries @ entries.T) @ entries}
