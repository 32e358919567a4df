"""``python -m harness bench bank_error``: how well a bank stands in for all training images.

With the encoders of a finished MoCo run held still, keys and queries of all training images pass
through banks of one size, in shuffled batches. For queries q of test images, what a bank says of

    log Z(q) = log mean_j exp(q . z_j / temperature)

and of its gradient (up to a factor), the mean of z_j under the softmax of q . z_j / temperature, is
compared with the same over the keys of all training images: the mean difference (the bias), its
root mean square (the error), and the root mean square error of the gradient over its size. A figure
of both errors over the sizes is written beside the results.

NAME=VALUE are the options of the run, as in ``python -m harness experiment=banks NAME=VALUE``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from hydra import compose
from torch import Tensor
from torch.nn.functional import normalize

from gmje_plugin import SMCMemoryBankModule
from harness import training
from harness.bench import OneLineParser, count, finish, table
from harness.data import AnyImageSet, load
from harness.figures.bank_error import bank_errors
from harness.files import write_figures
from harness.methods.moco import MoCoSettings
from harness.settings import SettingsError, composing, deciding, resolve
from harness.tracking import RunFolder

_BATCH = 256
_ENCODED = 2000  # images at a time
# A bank's name, how it is made, and whether its weights count.
BANKS: dict[str, tuple[Callable[..., SMCMemoryBankModule], bool]] = {
    "FIFO": (lambda size, **rest: SMCMemoryBankModule(size, ess_threshold=0.0, **rest), False),
    "default": (SMCMemoryBankModule, False),
    "default, weighted": (SMCMemoryBankModule, True),
    "Algorithm 2": (SMCMemoryBankModule.paper, False),
}


def main(arguments: Sequence[str]) -> None:
    """Runs ``bench bank_error`` with the command line's arguments."""
    parser = OneLineParser("bench bank_error", __doc__)
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE")
    parser.add_argument("--sizes", type=count, nargs="+", default=[256, 1024, 4096], metavar="M")
    parser.add_argument("--epochs", type=count, default=2, help="of updates; the last is measured")
    options = parser.measurement(arguments)
    *embeddings, temperature = _embeddings(options.overrides, options.device)
    keys, largest = options.epochs * len(embeddings[1]), max(options.sizes)
    if largest > keys:
        parser.error(f"--sizes: {largest} entries are not full after --epochs of {keys} keys")
    rows = [
        {
            "bank": name,
            "size": size,
            **measure(name, size, *embeddings, temperature=temperature, epochs=options.epochs),
        }
        for size in options.sizes
        for name in BANKS
    ]
    headings = ("bias of\nlog Z", "error of\nlog Z", "error of its\ngradient", "distinct")
    made = table(None, "bank", "M", *headings)
    for bank, size, *errors in (row.values() for row in rows):
        made.add_row(bank, str(size), *(f"{error:.3f}" for error in errors))
    write_figures(options.out.parent, {options.out.stem: bank_errors(rows)}, dpi=110)
    finish(rows, options, made)


def measure(
    name: str,
    size: int,
    queries: Tensor,  # shape: (N, dim)
    keys: Tensor,  # shape: (N, dim)
    held_out: Tensor,  # shape: (Q, dim)
    *,
    temperature: float,
    epochs: int,
) -> dict[str, float]:
    """The errors of a bank, over the steps of the last of ``epochs`` in which it is full."""
    make, weighted = BANKS[name]
    bank = make((size, keys.shape[1]), temperature=temperature)
    exact, gradient = log_partition(held_out, keys, temperature=temperature)
    generator = torch.Generator().manual_seed(0)
    differences, misses = [], []
    for epoch in range(epochs):
        for batch in torch.split(torch.randperm(len(keys), generator=generator), _BATCH):
            bank.update(keys[batch], queries[batch])
            if epoch == epochs - 1 and bank.count == size:
                log_weights = bank.log_weights if weighted else None
                log_z, mean = log_partition(
                    held_out, bank.bank, log_weights, temperature=temperature
                )
                differences.append(log_z - exact)
                misses.append((mean - gradient).square().sum(dim=1))
    difference, miss = torch.stack(differences), torch.stack(misses)
    return {
        "bias": float(difference.mean()),
        "error": float(difference.square().mean().sqrt()),
        "gradient_error": float((miss.mean() / gradient.square().sum(dim=1).mean()).sqrt()),
        "distinct": float(bank.diagnostics()["unique_fraction"]),
    }


def log_partition(
    queries: Tensor,  # shape: (Q, dim)
    points: Tensor,  # shape: (N, dim)
    log_weights: Tensor | None = None,  # shape: (N,)
    *,
    temperature: float,
) -> tuple[Tensor, Tensor]:  # shapes: (Q,), (Q, dim)
    """Log of the weighted mean of exp(q . z / temperature), and its gradient times temperature."""
    logits = queries @ points.mT / temperature
    if log_weights is None:
        log_weights = logits.new_zeros(len(points))
    logits = logits + log_weights.log_softmax(dim=0)
    return logits.logsumexp(dim=1), logits.softmax(dim=1) @ points


@torch.no_grad()
def _embeddings(
    overrides: Sequence[str], device: str
) -> tuple[Tensor, Tensor, Tensor, float]:  # shapes: (N, dim), (N, dim), (Q, dim), ()
    """Queries and keys of all training images and queries of test images, of a finished run."""
    words = ["experiment=banks", *overrides]
    with composing():
        config = compose("config", overrides=words)
        settings = resolve(config, words)
        folder = RunFolder.of_command(settings, deciding(words, config))
    if folder.finished_results() is None:
        command = " ".join(["python -m harness", *words])
        raise SettingsError(f"there is no finished run in {folder.path}: run {command} first")
    data = load(settings.data, seed=settings.seed)
    module: Any = training.load(data, folder).to(device).eval()
    if not isinstance(settings.method, MoCoSettings):
        raise SettingsError(f"bench bank_error is for MoCo, not {type(module).__name__}")

    def encoded(images: AnyImageSet) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in torch.split(torch.arange(len(images)), _ENCODED):
            pixels, _, indices = images[chosen]
            first, second = module.views(pixels.to(device), indices, epoch=0)
            query = module.projection_head(module.backbone(first))
            yield normalize(query, dim=1), normalize(module.targets(second), dim=1)

    some = data.test.select(torch.arange(min(len(data.test), 1000)))
    queries, keys = map(torch.cat, zip(*encoded(data.train), strict=True))
    held_out = torch.cat([query for query, _ in encoded(some)])
    return queries.float(), keys.float(), held_out.float(), settings.method.temperature
