"""``python -m harness bench step``: images per second of whole training steps, beside lightly's.

A whole step is what training does with a batch: it gathers the images, makes two views of each, and
goes forward, backward and through the optimiser, with the online probe. It is measured in a plain
loop and in Lightning's Trainer, beside the same step on one batch whose views are made already, and
beside lightly's recipe for CIFAR-10: PIL transforms in the workers of a DataLoader, with the same
network and loss (harness/bench/loops.py says how it differs from lightly's script). Images are
random bytes. A second table has the step on the ready batch in each precision, and with --compile
also with the backbone compiled, so that the presets' choice is a measured one.

All take turns, round by round, in one process. In a round each makes a few steps to warm up, then
those that count; for lightly's recipe their number is rounded up to a whole number of the workers'
turns. Its workers live only in its own turn. Numbers are medians over the rounds.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from statistics import median
from typing import Any

import torch
from hydra import compose
from rich.console import Console
from rich.table import Table

from harness.bench import OneLineParser, count, finish, in_turn, loops, table, timing
from harness.bench.loops import FOREVER, NUM_IMAGES
from harness.data import ImageData
from harness.settings import Settings, composing, resolve
from harness.tracking import cores

WHOLE, TRAINER = "whole step", "whole step, in the Trainer"
RESIDENT, LIGHTLY = "step on a ready batch", "step on lightly's batches"
# Images of a batch, and steps of a round that warm up and that count: a few seconds a round.
_DEFAULTS = {
    ("cifar_cnn", "cpu"): (256, 2, 10),
    ("resnet18", "cpu"): (32, 1, 2),
    ("cifar_cnn", "cuda"): (256, 20, 100),
    ("resnet18", "cuda"): (256, 10, 50),
}
Variant = tuple[str, str, bool]  # the loop, its precision, whether the backbone is compiled


def main(arguments: Sequence[str]) -> None:
    """Runs ``bench step`` with the command line's arguments."""
    parser = OneLineParser("bench step", __doc__)
    parser.add_choices("--backbones", ["cifar_cnn", "resnet18"])
    parser.add_argument("--method", choices=["simclr", "moco", "smc_gmje"], default="simclr")
    of_first = "the first is that of the first table"
    parser.add_choices("--precision", ["32-true", "bf16-mixed"], help=of_first)
    parser.add_argument("--compile", action="store_true", help="compiling takes minutes on a CPU")
    usual = "256, but 32 for the ResNet-18 on the CPU"
    parser.add_argument("--batch", type=count, metavar="B", help=usual)
    parser.add_argument("--workers", type=count, default=cores(), help="of lightly's loader")
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--warmup", type=count, help="steps in a round before those that count")
    parser.add_argument("--steps", type=count, help="steps in a round that count")
    options = parser.measurement(arguments, threads=cores() or 1)
    if options.batch is not None and not 2 <= options.batch <= NUM_IMAGES:
        parser.error(f"--batch: must be from 2 to {NUM_IMAGES}, got {options.batch}")
    data = loops.random_images()
    console = Console()
    rows = []
    for backbone in options.backbones:
        with console.status(backbone):
            found = _measure(backbone, data, options)
        console.print(_loops_table(found, options), _network_table(found))
        rows += found
    finish(rows, options)


def _measure(backbone: str, data: ImageData, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One line of results a variant."""
    asked = (options.batch, options.warmup, options.steps)
    usual = _DEFAULTS[backbone, options.device]
    batch, warmup, steps = (one or other for one, other in zip(asked, usual, strict=True))
    settings = _settings(backbone, batch, options)
    if options.compile:
        torch.compiler.reset()  # code compiled for the backbone before counts towards a limit
    compared = _loops(settings, data, options)
    # Workers hand in their batches at about the same time.
    of_workers = math.ceil(steps / options.workers) * options.workers
    counted = {variant: of_workers if variant[0] == LIGHTLY else steps for variant in compared}
    measurements = {
        variant: partial(loops.seconds_a_step, loop, warmup=warmup, steps=counted[variant])
        for variant, loop in compared.items()
    }
    seconds = in_turn(measurements, rounds=options.rounds)
    middle = {variant: median(taken) for variant, taken in seconds.items()}
    return [
        {
            "backbone": backbone,
            **dict(zip(("variant", "precision", "compiled"), variant, strict=True)),
            "batch_size": batch,
            "warmup": warmup,
            "steps": counted[variant],
            "images_per_second": batch / middle[variant],
            **timing(taken),
            # Both ratios are of images per second.
            "of_ready_batch": middle[RESIDENT, options.precision[0], False] / middle[variant],
            "of_lightly": middle[LIGHTLY, options.precision[0], False] / middle[variant],
        }
        for variant, taken in seconds.items()
    ]


def _loops(
    settings: Settings, data: ImageData, options: argparse.Namespace
) -> dict[Variant, loops.Loop]:
    usual = (options.precision[0], False)
    compared: dict[Variant, loops.Loop] = {
        (WHOLE, *usual): loops.whole_step(settings, data),
        (TRAINER, *usual): loops.trainer_step(settings, data),
        (LIGHTLY, *usual): loops.lightly_step(settings, data, workers=options.workers),
    }
    for network in product(options.precision, [False, True] if options.compile else [False]):
        trainer = replace(settings.trainer, precision=network[0], compile=network[1])
        asked = replace(settings, trainer=trainer)
        compared[RESIDENT, *network] = loops.resident_step(asked, data)
    return compared


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
    title = f"{rows[0]['backbone']}, {options.method}, B = {rows[0]['batch_size']}, "
    title += f"{options.device}, {rows[0]['precision']}, {options.threads} thread(s), "
    title += f"{options.workers} worker(s)"
    made = table(title, "loop", "images/s (min to max)", "of ready", "of lightly")
    for row in rows:
        if (row["precision"], row["compiled"]) == (rows[0]["precision"], rows[0]["compiled"]):
            ratios = (f"{row['of_ready_batch']:.2f}", f"{row['of_lightly']:.2f}")
            made.add_row(row["variant"], _speed(row), *ratios)
    return made


def _network_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """The step on a ready batch, by how the network runs."""
    made = table(RESIDENT, "precision", "compiled", "images/s (min to max)", "ratio", words=2)
    for row in rows:
        if row["variant"] == RESIDENT:
            words = (row["precision"], "yes" if row["compiled"] else "no")
            made.add_row(*words, _speed(row), f"{row['of_ready_batch']:.2f}")
    return made


def _speed(row: Mapping[str, Any]) -> str:
    speeds = (1e3 * row["batch_size"] / row[name] for name in ("median_ms", "max_ms", "min_ms"))
    middle, low, high = (f"{speed:.{0 if speed >= 100 else 1}f}" for speed in speeds)
    return f"{middle} ({low} to {high})"
