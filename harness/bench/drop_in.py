"""``python -m harness bench drop_in``: do the changed lines train at lightly's own settings?

Each of README's diffs is applied to the example of lightly's that it names and trained beside the
stock example, with lightly's transforms, from one seed's weights, on one seed's views: by the
examples' SGD (learning rate 0.06, no momentum), and by LARS and AdamW at the settings of lightly's
benchmarks. What is measured is the kNN accuracy of frozen features, beside that of the network at
its start and with batch-norm statistics of the training views alone (learning rate 0).

Rows are added to the file one by one; the same command goes on where it was interrupted.
"""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from lightly.utils.lars import LARS
from lightly.utils.scheduler import CosineWarmupScheduler
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from harness import drop_in
from harness.bench import OneLineParser, count, write
from harness.drop_in import Diff, data

_STOCK, _STATISTICS, _UNTRAINED = "stock", "stock, learning rate 0", "untrained"
# Losses that README prints no diff for, and why they are measured: see RESULTS.md.
_EXTRA = [
    Diff(
        "simclr",
        (
            "+from gmje_plugin import GJENLLLoss",
            "-criterion = NTXentLoss()",
            "+criterion = GJENLLLoss(128)",
        ),
    ),
    Diff(
        "simclr",
        (
            "+from gmje_plugin import JointSMCLoss",
            "-criterion = NTXentLoss()",
            "+criterion = JointSMCLoss(128, 256)",
        ),
    ),
    Diff(
        "byol",
        (
            "+from gmje_plugin import GJEDualLoss",
            "-criterion = NegativeCosineSimilarity()",
            "+criterion = GJEDualLoss()",
        ),
    ),
]


def main(arguments: Sequence[str]) -> None:
    """Runs ``bench drop_in`` with the command line's arguments."""
    parser = OneLineParser(prog="python -m harness bench drop_in", description=__doc__)
    pipelines = list(dict.fromkeys(diff.pipeline for diff in drop_in.diffs()))
    parser.add_argument("--data", choices=["digits", "cifar10"], default="digits")
    parser.add_argument("--root", default="data", help="the folder that holds CIFAR-10")
    parser.add_argument("--pipelines", choices=pipelines, nargs="+", default=pipelines)
    parser.add_argument(
        "--networks", choices=list(data.NETWORKS), nargs="+", default=list(data.NETWORKS)
    )
    optimizers = ["sgd", "lars", "adamw"]
    parser.add_argument("--optimizers", choices=optimizers, nargs="+", default=optimizers)
    parser.add_argument("--seeds", type=count, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=count, default=147)
    parser.add_argument("--batch", type=count, default=64)
    parser.add_common_options(threads=1, out=Path("outputs/bench/drop_in.json"))
    options = parser.checked(arguments)
    torch.set_num_threads(options.threads)
    console = Console()
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    for row in _measure(options, done=[_key(row) for row in rows]):
        rows.append(row)
        write(rows, options)
        console.print(" ".join(str(value) for value in row.values()), soft_wrap=True)
    console.print(_table(rows))
    console.print(f"written to {options.out}", soft_wrap=True)


def _measure(options: Namespace, done: Sequence[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """The rows that are not there yet."""
    images = data.images(options.data, options.root)
    for pipeline in options.pipelines:
        stock = drop_in.source(pipeline)
        variants = {_STOCK: stock} | {
            diff.title: drop_in.patch(stock, diff)
            for diff in [*drop_in.diffs(), *_EXTRA]
            if diff.pipeline == pipeline
        }
        for seed in options.seeds:
            asked = [
                {
                    "data": options.data,
                    "pipeline": pipeline,
                    "network": network,
                    "optimizer": optimizer,
                    "variant": variant,
                    "seed": seed,
                    "steps": options.steps,
                    "batch": options.batch,
                }
                for network in options.networks
                for optimizer, variant in [
                    ("none", _UNTRAINED),
                    ("none", _STATISTICS),
                    *((optimizer, name) for optimizer in options.optimizers for name in variants),
                ]
            ]
            asked = [row for row in asked if _key(row) not in done]
            views = (
                data.views(
                    images.pil,
                    drop_in.transform(pipeline),
                    seed=seed,
                    steps=options.steps,
                    batch=options.batch,
                    device=options.device,
                )
                if asked
                else []
            )
            for row in asked:
                torch.manual_seed(seed)
                backbone = data.NETWORKS[row["network"]]()
                losses = [0.0]
                if row["variant"] != _UNTRAINED:
                    text = variants.get(row["variant"], stock)
                    make = _optimizers(pipeline, options)[row["optimizer"]]
                    losses = drop_in.run(
                        text, backbone, views, device=options.device, make_optimizer=make
                    )
                finite = all(math.isfinite(loss) for loss in losses)
                accuracy = data.knn(backbone, images, options.device) if finite else math.nan
                yield row | {"finite": finite, "knn": round(100.0 * accuracy, 2)}


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(value for name, value in row.items() if name not in ("finite", "knn"))


def _optimizers(
    pipeline: str, options: Namespace
) -> dict[str, Callable[[Iterable[nn.Parameter]], Optimizer] | None]:
    """Optimizers by name; None is the example's own."""
    rate = 0.45 * options.batch / 256 if pipeline == "byol" else 0.075 * math.sqrt(options.batch)

    def scheduled(optimizer: Optimizer) -> Optimizer:
        """With the benchmarks' schedule: 10 of 100 epochs of warm-up, then a cosine."""
        steps = options.steps
        schedule = CosineWarmupScheduler(optimizer, warmup_epochs=steps // 10, max_epochs=steps)
        optimizer.register_step_post_hook(lambda *_: schedule.step())
        return optimizer

    return {
        "none": lambda parameters: SGD(parameters, lr=0.0),
        "sgd": None,
        # benchmarks/imagenet/resnet50/{simclr,byol}.py; vitb16/lejepa.py
        "lars": lambda parameters: scheduled(
            LARS(parameters, lr=rate, momentum=0.9, weight_decay=1e-6)
        ),
        "adamw": lambda parameters: scheduled(AdamW(parameters, lr=5e-4, weight_decay=5e-2)),
    }


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    """Mean kNN accuracy over the seeds; a training that was not finite is named."""
    table = Table(title="kNN accuracy of frozen features, %", title_justify="left")
    columns = list(dict.fromkeys((row["network"], row["optimizer"]) for row in rows))
    table.add_column("pipeline")
    table.add_column("variant")
    for network, optimizer in columns:
        table.add_column(f"{network}\n{optimizer}", justify="right")
    for pipeline, variant in dict.fromkeys((row["pipeline"], row["variant"]) for row in rows):
        cells = []
        for network, optimizer in columns:
            found = [
                row["knn"] if row["finite"] else math.nan
                for row in rows
                if (row["pipeline"], row["variant"]) == (pipeline, variant)
                and (row["network"], row["optimizer"]) == (network, optimizer)
            ]
            cells.append("" if not found else f"{mean(found):.1f}")
        table.add_row(pipeline, variant, *cells)
    return table
