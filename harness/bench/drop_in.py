"""``python -m harness bench drop_in``: do the changed lines train at lightly's own settings?

Each of README's diffs is applied to the example of lightly's that it names and trained beside the
stock example, with lightly's transforms, from one seed's weights, on one seed's views: by the
examples' SGD (learning rate 0.06, no momentum), and by LARS and AdamW at the settings of lightly's
benchmarks. What is measured is the kNN accuracy of frozen features, beside that of the network at
its start and with batch-norm statistics of the training views alone (learning rate 0).

Rows are added to the file one by one, each with its commit and hardware; the same command goes on
where it was interrupted. Data, steps, batch and device that differ have tables of their own.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
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
from harness.bench import OneLineParser, count, show, table, write
from harness.drop_in import Diff, data
from harness.files import read_json
from harness.settings import SettingsError

_TABLE = ("data", "steps", "batch", "device")  # what rows of a table share
_STOCK, _STATISTICS, _UNTRAINED = "stock", "stock, learning rate 0", "untrained"


def _criterion(pipeline: str, stock: str, ours: str) -> Diff:
    imported = f"+from gmje_plugin import {ours.partition('(')[0]}"
    return Diff(pipeline, (imported, f"-criterion = {stock}", f"+criterion = {ours}"))


# Losses that README prints no diff for, and why they are measured: see RESULTS.md.
_EXTRA = [
    _criterion("simclr", "NTXentLoss()", "GJENLLLoss(128)"),
    _criterion("simclr", "NTXentLoss()", "JointSMCLoss(128, 256)"),
    _criterion("byol", "NegativeCosineSimilarity()", "GJEDualLoss()"),
]


def main(arguments: Sequence[str]) -> None:
    """Runs ``bench drop_in`` with the command line's arguments."""
    parser = OneLineParser("bench drop_in", __doc__)
    parser.add_argument("--data", choices=["digits", "cifar10"], default="digits")
    parser.add_argument("--root", default="data", help="the folder that holds CIFAR-10")
    parser.add_choices("--pipelines", list(dict.fromkeys(d.pipeline for d in drop_in.diffs())))
    parser.add_choices("--networks", list(data.NETWORKS))
    parser.add_choices("--optimizers", ["sgd", "lars", "adamw"])
    parser.add_argument("--seeds", type=count, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=count, default=147)
    parser.add_argument("--batch", type=count, default=64)
    options = parser.measurement(arguments)
    rows = _earlier(options.out)
    for row in _measure(options, done=rows):
        rows.append(row)
        write(rows, options)
        Console().print(*row.values(), soft_wrap=True)
    show(options, *_tables(rows))


def _earlier(path: Path) -> list[dict[str, Any]]:
    """The rows that the file has already."""
    if not path.exists():
        return []
    found, needed = read_json(path), {*_TABLE, "pipeline", "knn", "hardware"}
    rows: list[dict[str, Any]] | None = found.get("rows") if isinstance(found, dict) else None
    if rows is None or not all(row.keys() >= needed for row in rows):
        raise SettingsError(f"--out: {path} is not of this bench: move it or name another")
    return rows


def _measure(options: Namespace, done: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows that are not there yet."""
    from harness.tracking import provenance  # Lightning and W&B take seconds to import

    images, found = data.images(options.data, options.root), provenance()
    device = found["hardware"]["gpu" if options.device == "cuda" else "cpu"]
    made_by = {"hardware": device, "commit": found["commit"]}
    for pipeline, seed in product(options.pipelines, options.seeds):
        stock = drop_in.source(pipeline)
        texts = {_STOCK: stock} | {
            diff.title: drop_in.patch(stock, diff)
            for diff in [*drop_in.diffs(), *_EXTRA]
            if diff.pipeline == pipeline
        }
        trained = [("none", _UNTRAINED), ("none", _STATISTICS), *product(options.optimizers, texts)]
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
                "device": options.device,
            }
            for network, (optimizer, variant) in product(options.networks, trained)
        ]
        asked = [row for row in asked if not any(row.items() <= made.items() for made in done)]
        if not asked:
            continue
        sizes = {"steps": options.steps, "batch": options.batch, "device": options.device}
        views = data.views(images.train, drop_in.transform(pipeline), seed=seed, **sizes)
        optimizers = _optimizers(pipeline, options)
        for row in asked:
            torch.manual_seed(seed)
            backbone = data.NETWORKS[row["network"]]()
            losses = [0.0]
            if row["variant"] != _UNTRAINED:
                text, make = texts.get(row["variant"], stock), optimizers[row["optimizer"]]
                losses = drop_in.run(
                    text, backbone, views, device=options.device, make_optimizer=make
                )
            finite = all(math.isfinite(loss) for loss in losses)
            accuracy = data.knn(backbone, images, options.device) if finite else math.nan
            yield row | {"finite": finite, "knn": round(100.0 * accuracy, 2)} | made_by


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


def _tables(rows: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """Mean kNN accuracy over the seeds, a table for what is compared with each other."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in _TABLE), []).append(row)
    for words, found in groups.items():
        told = ", ".join(f"{name} {word}" for name, word in zip(_TABLE, words, strict=True))
        yield _table(found, f"kNN accuracy of frozen features, %; {told}")


def _table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """A line a variant; a training that was not finite is named."""
    lines: dict[tuple[str, str], dict[tuple[str, str], list[float]]] = {}
    for row in rows:
        line = lines.setdefault((row["pipeline"], row["variant"]), {})
        line.setdefault((row["network"], row["optimizer"]), []).append(row["knn"])
    columns = list(dict.fromkeys((row["network"], row["optimizer"]) for row in rows))
    headings = ("pipeline", "variant", *map("\n".join, columns))
    made = table(title, *headings, words=2)
    for words, found in lines.items():
        cells = (f"{mean(found[column]):.1f}" if column in found else "" for column in columns)
        made.add_row(*words, *cells)
    return made
