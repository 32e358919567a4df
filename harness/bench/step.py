"""``python -m harness bench step``: images per second of whole training steps, beside lightly's.

A whole step is what training does with a batch: it gathers the images, makes two views of each, and
goes forward, backward and through the optimiser, with the online probe. It is measured in a plain
loop and in Lightning's Trainer, beside the same step on one batch whose views are made already, and
beside lightly's recipe for CIFAR-10: PIL transforms in the workers of a DataLoader, with the same
network and loss (harness/bench/loops.py says how it differs from lightly's script). Images are
random bytes. A second table has the step on the ready batch in each precision and memory format,
and with --compile also with the backbone compiled, so that the presets' choice is a measured one.

All take turns, round by round, in one process. In a round each makes a few steps to warm up, then
those that count; for lightly's recipe their number is rounded up to a whole number of the workers'
turns. Its workers live only in its own turn. Figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from hydra import compose
from rich.console import Console
from rich.table import Table

from harness.bench import OneLineParser, count, in_turn, write
from harness.bench.loops import (
    FOREVER,
    NUM_IMAGES,
    Loop,
    NetworkOptions,
    Stopwatch,
    lightly_step,
    random_images,
    resident_step,
    trainer_step,
    whole_step,
)
from harness.data import ImageData
from harness.settings import Settings, composing, resolve

WHOLE, TRAINER, RESIDENT, LIGHTLY = (
    "whole step",
    "whole step, in the Trainer",
    "step on a ready batch",
    "step on lightly's batches",
)


@dataclass(frozen=True)
class Sizes:
    """How much is measured of one backbone."""

    batch: int
    warmup: int
    steps: int


# A few seconds a round.
_DEFAULTS = {
    ("cifar_cnn", "cpu"): Sizes(batch=256, warmup=2, steps=10),
    ("resnet18", "cpu"): Sizes(batch=32, warmup=1, steps=2),
    ("cifar_cnn", "cuda"): Sizes(batch=256, warmup=20, steps=100),
    ("resnet18", "cuda"): Sizes(batch=256, warmup=10, steps=50),
}
Variant = tuple[str, NetworkOptions]


def main(arguments: Sequence[str]) -> None:
    """Runs ``bench step`` with the command line's arguments."""
    parser = _parser()
    options = parser.checked(arguments)
    if options.batch is not None and not 2 <= options.batch <= NUM_IMAGES:
        parser.error(f"--batch: must be from 2 to {NUM_IMAGES}, got {options.batch}")
    torch.set_num_threads(options.threads)
    data = random_images()
    console = Console()
    rows = []
    for backbone in options.backbones:
        with console.status(backbone):
            found = _measure(backbone, data, options)
        console.print(_loops_table(found, options), _network_table(found))
        rows += found
    write(rows, options)
    console.print(f"written to {options.out}", soft_wrap=True)


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m harness bench step", description=__doc__)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    backbones, formats = ["cifar_cnn", "resnet18"], ["channels_last", "contiguous"]
    parser.add_argument("--backbones", choices=backbones, nargs="+", default=backbones)
    parser.add_argument("--method", choices=["simclr", "moco", "smc_gmje"], default="simclr")
    precisions = ["32-true", "bf16-mixed"]
    parser.add_argument(
        "--precision",
        choices=precisions,
        nargs="+",
        default=precisions,
        help="the first is that of the first table",
    )
    parser.add_argument(
        "--memory-format",
        choices=formats,
        nargs="+",
        default=formats,
        help="the first table has channels_last, as training has",
    )
    parser.add_argument("--compile", action="store_true", help="compiling takes minutes on a CPU")
    parser.add_argument(
        "--batch", type=count, metavar="B", help="256, but 32 for the ResNet-18 on the CPU"
    )
    parser.add_argument("--workers", type=count, default=cores, help="of lightly's loader")
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--warmup", type=count, help="steps in a round before those that count")
    parser.add_argument("--steps", type=count, help="steps in a round that count")
    parser.add_common_options(threads=cores or 1, out=Path("outputs/bench/step.json"))
    return parser


def _measure(backbone: str, data: ImageData, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One line of results a variant."""
    sizes = _sizes(backbone, options)
    settings = _settings(backbone, sizes.batch, options)
    if options.compile:
        torch.compiler.reset()  # code compiled for the backbone before counts towards a limit
    seconds = in_turn(
        {
            variant: partial(_seconds, loop, variant[0], sizes, options)
            for variant, loop in _variants(settings, data, options).items()
        },
        rounds=options.rounds,
    )
    middle = {variant: median(taken) for variant, taken in seconds.items()}
    usual = NetworkOptions(options.precision[0])
    return [
        {
            "backbone": backbone,
            "variant": variant,
            **asdict(network),
            "batch_size": sizes.batch,
            "warmup": sizes.warmup,
            "steps": _steps(variant, sizes, options),
            "images_per_second": sizes.batch / middle[variant, network],
            "median_ms": 1e3 * middle[variant, network],
            "min_ms": 1e3 * min(taken),
            "max_ms": 1e3 * max(taken),
            # Both ratios are of images per second.
            "of_ready_batch": middle[RESIDENT, usual] / middle[variant, network],
            "of_lightly": middle[LIGHTLY, usual] / middle[variant, network],
        }
        for (variant, network), taken in seconds.items()
    ]


def _variants(
    settings: Settings, data: ImageData, options: argparse.Namespace
) -> dict[Variant, Loop]:
    usual = NetworkOptions(options.precision[0])
    compiled = [False, True] if options.compile else [False]
    others = itertools.starmap(
        NetworkOptions, itertools.product(options.precision, options.memory_format, compiled)
    )
    networks = dict.fromkeys([usual, *others])  # each once
    return {
        (WHOLE, usual): whole_step(settings, data, usual),
        (TRAINER, usual): trainer_step(settings, data),
        (LIGHTLY, usual): lightly_step(settings, data, usual, workers=options.workers),
        **{(RESIDENT, network): resident_step(settings, data, network) for network in networks},
    }


def _seconds(loop: Loop, variant: str, sizes: Sizes, options: argparse.Namespace) -> float:
    steps, device = _steps(variant, sizes, options), torch.device(options.device)
    stopwatch = Stopwatch(warmup=sizes.warmup, steps=steps, device=device)
    loop(stopwatch)
    return stopwatch.seconds


def _steps(variant: str, sizes: Sizes, options: argparse.Namespace) -> int:
    """The steps that count; workers hand in their batches at about the same time."""
    if variant != LIGHTLY:
        return sizes.steps
    turns: int = math.ceil(sizes.steps / options.workers) * options.workers
    return turns


def _sizes(backbone: str, options: argparse.Namespace) -> Sizes:
    usual = _DEFAULTS[backbone, options.device]
    return Sizes(
        batch=options.batch or usual.batch,
        warmup=options.warmup or usual.warmup,
        steps=options.steps or usual.steps,
    )


def _settings(backbone: str, batch_size: int, options: argparse.Namespace) -> Settings:
    """The reduced protocol's, but for what never ends or measures."""
    overrides = [
        "experiment=benchmark",
        f"method={options.method}",
        f"backbone={backbone}",
        f"trainer.batch_size={batch_size}",
        f"trainer.accelerator={options.device}",
        f"trainer.precision={options.precision[0]}",
        f"trainer.epochs={FOREVER}",
        f"trainer.probe_every={FOREVER}",
    ]
    with composing():
        return resolve(compose("config", overrides=overrides))


def _loops_table(rows: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> Table:
    """The four loops."""
    whole = rows[0]
    table = Table(
        title=f"{whole['backbone']}, {options.method}, B = {whole['batch_size']}, "
        f"{options.device}, {whole['precision']}, {options.threads} thread(s), "
        f"{options.workers} worker(s)",
        title_justify="left",
    )
    table.add_column("loop")
    for heading in ("images/s (min to max)", "of ready", "of lightly"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        if _network(row) == _network(whole):
            ratios = (f"{row['of_ready_batch']:.2f}", f"{row['of_lightly']:.2f}")
            table.add_row(row["variant"], _speed(row), *ratios)
    return table


def _network_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The step on a ready batch, by how the network runs."""
    table = Table(title=RESIDENT, title_justify="left")
    for heading in ("precision", "memory format", "compiled"):
        table.add_column(heading, no_wrap=True)
    for heading in ("images/s (min to max)", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        if row["variant"] == RESIDENT:
            precision, memory_format, compiled = _network(row)
            words = (precision, memory_format, "yes" if compiled else "no")
            table.add_row(*words, _speed(row), f"{row['of_ready_batch']:.2f}")
    return table


def _network(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["precision"], row["memory_format"], row["compiled"]


def _speed(row: Mapping[str, Any]) -> str:
    speeds = (1e3 * row["batch_size"] / row[name] for name in ("median_ms", "max_ms", "min_ms"))
    middle, low, high = (f"{speed:.{0 if speed >= 100 else 1}f}" for speed in speeds)
    return f"{middle} ({low} to {high})"
