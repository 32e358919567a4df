"""README's diffs, as printed, applied to lightly's example pipelines at their own settings."""

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from harness import drop_in
from harness.data import ImageData
from harness.drop_in import Diff, data

DIFFS = drop_in.diffs()
STEPS, BATCH, SEED = 40, 64, 1
SAME_VIEWS = {"nnclr": "simclr", "barlowtwins": "byol"}  # whose examples have the same transform


@cache
def images() -> ImageData:
    return data.images("digits")


@cache
def views(transform_of: str) -> list[tuple[Tensor, Tensor]]:
    transform = drop_in.transform(transform_of)
    return data.views(images().train, transform, seed=SEED, steps=STEPS, batch=BATCH)


def train(text: str, pipeline: str) -> tuple[list[float], float]:
    """Losses, and the kNN accuracy of frozen features in percent."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        backbone = data.NETWORKS["small"]()
        losses = drop_in.run(text, backbone, views(SAME_VIEWS.get(pipeline, pipeline)))
    return losses, 100.0 * data.knn(backbone, images())


@cache
def stock(pipeline: str) -> float:
    return train(drop_in.source(pipeline), pipeline)[1]


def test_readme_has_a_diff_for_every_pipeline() -> None:
    assert {diff.pipeline for diff in DIFFS} == {"moco", "nnclr", "simclr", "byol", "barlowtwins"}
    assert len(DIFFS) == sum(page.read_text().count("```diff") for page in drop_in.PAGES)
    assert len({(diff.pipeline, diff.title) for diff in DIFFS}) == len(DIFFS)


@pytest.mark.parametrize("diff", DIFFS, ids=lambda diff: f"{diff.pipeline}: {diff.title}")
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_diff_trains_as_printed(diff: Diff) -> None:
    """A minute's worth; longer, and by other optimizers: ``python -m harness bench drop_in``.

    At seed 1 the stock pipelines have 77 to 92 % after 40 steps (450 test images: a standard
    error of 1.4), so that 4 points below them are a fault.
    """
    losses, accuracy = train(drop_in.patch(drop_in.source(diff.pipeline), diff), diff.pipeline)
    assert all(math.isfinite(loss) for loss in losses)
    assert len(losses) == STEPS
    assert accuracy > stock(diff.pipeline) - 4.0


def test_a_line_that_is_not_lightlys_is_an_error() -> None:
    diff = Diff("simclr", ("-criterion = NTXentLoss(temperature=0.5)",))
    with pytest.raises(ValueError, match=r"examples/pytorch/simclr.py has no line 'criterion"):
        drop_in.patch(drop_in.source("simclr"), diff)


def test_a_patch_puts_lines_where_they_belong() -> None:
    text = "def f():\n    a = 1\n    b = 2\n"
    diff = Diff("x", ("+import m", " a = 1", "+c = 3", "-b = 2", "+b = 4", "+d = 5"))
    expected = "import m\ndef f():\n    a = 1\n    c = 3\n    b = 4\n    d = 5\n"
    assert drop_in.patch(text, diff) == expected
