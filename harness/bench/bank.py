"""``python -m harness bench bank``: time and memory of a loss and bank step, beside lightly's.

A step is the forward pass of the loss, its backward pass to the queries and the update of the
bank. All variants take turns, step by step, in one process, so that whatever else the machine does
meets all of them. The banks are filled before. "Bank only" is without in-batch negatives, as
lightly's loss is, and so is ".paper bank"; "ratio" is to lightly's time.

What memory is: harness/bench/memory.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lightly.loss import NTXentLoss
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import normalize

from gmje_plugin import SMCMemoryBankModule, SMCNTXentLoss, swap_memory_bank
from harness.bench import OneLineParser, count, in_turn, seconds_of, write
from harness.bench.memory import Step, cpu_extra_memory, cuda_extra_memory, peak_extra_memory

TEMPERATURE = 0.1
Size = tuple[int, int]


def _stock(size: Size) -> nn.Module:
    criterion: nn.Module = NTXentLoss(TEMPERATURE, memory_bank_size=size)
    return criterion


def _swapped(size: Size) -> nn.Module:
    criterion = _stock(size)
    swap_memory_bank(criterion)
    return criterion


def _paper(size: Size) -> nn.Module:
    bank = SMCMemoryBankModule.paper(size)
    return SMCNTXentLoss(TEMPERATURE, memory_bank=bank, in_batch_negatives=False)


LIGHTLY, PRODUCTS = "NTXentLoss, FIFO (lightly)", "two matrix products alone"
CRITERIA: dict[str, Callable[[Size], nn.Module]] = {
    LIGHTLY: _stock,
    "NTXentLoss, SMC swapped in": _swapped,
    "SMCNTXentLoss, bank only": lambda size: SMCNTXentLoss(
        TEMPERATURE, size, in_batch_negatives=False
    ),
    "SMCNTXentLoss, default": lambda size: SMCNTXentLoss(TEMPERATURE, size),
    "SMCNTXentLoss, .paper bank": _paper,
}
VARIANTS = (*CRITERIA, PRODUCTS)


def main(arguments: Sequence[str]) -> None:
    """Runs ``bench bank`` with the command line's arguments."""
    options = _parser().checked(arguments)
    torch.set_num_threads(options.threads)
    rows = []
    console = Console()
    for size in options.sizes:
        for batch_size in options.batch_sizes:
            with console.status(f"bank of {size}, batch of {batch_size}"):
                rows += _measure(size, batch_size, options)
            console.print(_table(rows[-len(VARIANTS) :], size, batch_size, options))
    write(rows, options)
    console.print(f"written to {options.out}", soft_wrap=True)


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m harness bench bank", description=__doc__)
    parser.add_argument("--sizes", type=count, nargs="+", default=[4096, 65536], metavar="M")
    parser.add_argument("--batch-sizes", type=count, nargs="+", default=[256], metavar="B")
    parser.add_argument("--dim", type=count, default=128, help="of the embeddings")
    parser.add_argument("--repeats", type=count, default=20, help="steps timed of each variant")
    parser.add_common_options(threads=1, out=Path("outputs/bench/bank.json"))
    return parser


def _measure(size: int, batch_size: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One line of results a variant."""
    device = torch.device(options.device)
    steps = {
        name: make_step(name, (size, options.dim), batch_size=batch_size, device=device)
        for name in VARIANTS
    }
    seconds = in_turn(
        {name: partial(seconds_of, step, device) for name, step in steps.items()},
        rounds=options.repeats,
        warmup=2,
    )
    if device.type == "cuda":
        extra = {name: cuda_extra_memory(step) for name, step in steps.items()}
    else:
        extra = cpu_extra_memory("bank", [(size, options.dim), batch_size, options.threads])
    return [
        {
            "variant": name,
            "size": size,
            "batch_size": batch_size,
            "median_ms": 1e3 * median(seconds[name]),
            "min_ms": 1e3 * min(seconds[name]),
            "max_ms": 1e3 * max(seconds[name]),
            "of_lightly": median(seconds[name]) / median(seconds[LIGHTLY]),
            "extra_memory_mib": extra[name] / 2**20 if name in extra else None,
        }
        for name in VARIANTS
    ]


def make_step(name: str, size: Size, *, batch_size: int, device: torch.device) -> Step:
    """A function that makes one step of a variant on random embeddings, its bank filled."""
    generator = torch.Generator().manual_seed(0)

    def draw(rows: int) -> Tensor:
        return normalize(torch.randn(rows, size[1], generator=generator), dim=1).to(device)

    queries, keys, entries = draw(batch_size), draw(batch_size), draw(size[0])
    if name == PRODUCTS:

        def products() -> None:
            (queries @ entries.T) @ entries

        return products
    criterion = CRITERIA[name](size).to(device)
    criterion.get_submodule("memory_bank")(entries, update=True)
    queries.requires_grad_()

    def step() -> None:
        queries.grad = None
        criterion(queries, keys).backward()

    return step


def _memory_process(task: str) -> None:
    size, batch_size, threads = json.loads(task)
    torch.set_num_threads(threads)
    found = {}
    for name in VARIANTS:
        step = make_step(name, tuple(size), batch_size=batch_size, device=torch.device("cpu"))
        found[name] = peak_extra_memory(step)
    print(json.dumps(found))


def _table(
    rows: Sequence[dict[str, Any]], size: int, batch_size: int, options: argparse.Namespace
) -> Table:
    table = Table(
        title=f"M = {size}, B = {batch_size}, d = {options.dim}, {options.device}, "
        f"{options.threads} thread(s), {options.repeats} steps each",
        title_justify="left",
    )
    table.add_column("loss and bank", no_wrap=True)
    for heading in ("ms (min to max)", "ratio", "extra MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        extra = row["extra_memory_mib"]
        table.add_row(
            row["variant"],
            f"{row['median_ms']:.2f} ({row['min_ms']:.2f} to {row['max_ms']:.2f})",
            f"{row['of_lightly']:.2f}",
            "?" if extra is None else f"{extra:.1f}",
        )
    return table


if __name__ == "__main__":
    _memory_process(sys.argv[1])
