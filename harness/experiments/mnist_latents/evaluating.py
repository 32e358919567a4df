"""The last phase: densities, samples and what they decode to, measured and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from harness.data import ImageData, ImageSet, evenly_spaced
from harness.evaluation import encode, generation
from harness.evaluation.generation import nearest_distances
from harness.evaluation.latents import component_log_probs, fit_statistics, sample, shape_statistics
from harness.evaluation.mixtures import GaussianMixtures
from harness.evaluation.ood import auroc, strange_images
from harness.experiments.mnist_latents.networks import Classifier, to_signed
from harness.experiments.mnist_latents.phases import TrainedRow

_REAL = 10_000  # training images that stand for the real ones; as many as test images
_USUAL = 2500  # test images that strange images are told from, or made of


@dataclass(frozen=True)
class Judge:
    """Measures images against real ones in a classifier's features.

    Args:
        classifier: Trained on real images.
        train: The training images.
        test: The test images.
        real: Features of some training images, shape (N, F).
    """

    classifier: Classifier
    train: ImageSet
    test: ImageSet
    real: Tensor

    @classmethod
    def of(cls, classifier: Classifier, data: ImageData) -> Judge:
        """Judges by evenly spaced training images."""
        train, test = data.train, data.test
        if not isinstance(train, ImageSet) or not isinstance(test, ImageSet):
            raise TypeError("the images must be in memory, as MNIST's are")
        features, _ = classifier.judge(train.images[evenly_spaced(len(train), _REAL)])
        return cls(classifier, train, test, features)

    def about_itself(self) -> dict[str, Any]:
        """The classifier's accuracy, its figures of test images, and what it finds strange."""
        _, probabilities = self.classifier.judge(self.test.images)
        unsure = -probabilities[self.usual].max(dim=1).values
        return {
            "accuracy": float(
                (probabilities.argmax(dim=1) == self.test.labels.cpu()).double().mean()
            ),
            "real": self.metrics(self.test.images),
            "strange": {
                name: auroc(unsure, -self.classifier.judge(images)[1].max(dim=1).values)
                for name, images in self.strange().items()
            },
        }

    @property
    def usual(self) -> Tensor:  # shape: (N,)
        """Places of the test images that strange ones are told from."""
        return evenly_spaced(len(self.test), _USUAL)

    def strange(self) -> dict[str, Tensor]:
        """Sets of strange images, some of them made of the usual ones."""
        return strange_images(self.test.images[self.usual].cpu(), seed=0)

    def metrics(self, images: Tensor) -> dict[str, float]:
        """Every figure of images, uint8, shape (N, 1, 32, 32)."""
        found = generation.generation_metrics(self.real, *self.classifier.judge(images))
        distances, _ = self.nearest(images[evenly_spaced(len(images), 500)])
        return {**found, "nearest": float(distances.median())}

    def nearest(self, images: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (N,), (N,)
        """Distance of images to the nearest training image, over pixels in [-1, 1], and which."""
        pixels, real = (to_signed(part.cpu()).flatten(1) for part in (images, self.train.images))
        distances, places = generation.nearest_distances(pixels, real, 1)
        return distances[:, 0], places[:, 0]


def measure(
    row: TrainedRow,
    found: Mapping[str, GaussianMixtures],
    judge: Judge,
    data: ImageData,
    *,
    seed: int,
) -> dict[str, Any]:
    """Every figure of a row: its decoder's, and each density's shape, fit, samples and alarms."""
    labels = judge.test.labels.cpu()
    decoded = row.decoder.decode(row.test)
    result: dict[str, Any] = {
        "title": row.settings.title,
        "density": row.settings.density,
        "encoder": row.results["metrics"],
        "encoder_training": {
            name: row.results[name] for name in ("wall_time_s", "resumed_at_step", "commit")
        },
        "decoder": {
            "error": float((to_signed(decoded) - to_signed(judge.test.images)).square().mean()),
            **judge.metrics(decoded),
        },
        "densities": {},
        "strange": measure_strangeness(row, found, judge, data),
    }
    for kind, density in found.items():
        images = row.decoder.decode(sample(density, len(row.test), seed=seed))
        result["densities"][kind] = {
            **shape_statistics(density),
            **fit_statistics(density, row.test, labels),
            **judge.metrics(images),
        }
    return result


def measure_strangeness(
    row: TrainedRow,
    found: Mapping[str, GaussianMixtures],
    judge: Judge,
    data: ImageData,
) -> dict[str, dict[str, float]]:
    """How well scores of a row tell strange images from test images (area under the ROC curve).

    Returns:
        For each set of images, by score: minus the log-density of each kind, and ``nearest``, the
        distance to the nearest training embedding.
    """

    def scores(codes: Tensor) -> dict[str, Tensor]:
        given = {"nearest": nearest_distances(codes, row.train, 1)[0][:, 0].cpu()}
        for kind, density in found.items():
            given[kind] = -component_log_probs(density, codes).logsumexp(dim=1)
        return given

    usual = scores(row.test[judge.usual])
    areas = {}
    for name, images in judge.strange().items():
        unlabelled = ImageSet(images, torch.zeros(len(images), dtype=torch.int64))
        codes = normalize(encode(row.encoder, unlabelled, data)[0], dim=1)
        areas[name] = {kind: auroc(usual[kind], score) for kind, score in scores(codes).items()}
    return areas
