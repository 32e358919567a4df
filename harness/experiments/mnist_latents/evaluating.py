"""The last phase: densities, samples and what they decode to, measured and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from harness.data import ImageData, ImageSet, evenly_spaced
from harness.evaluation import encode, generation
from harness.evaluation.generation import nearest_distances
from harness.evaluation.latents import component_log_probs, fit_statistics, sample, shape_statistics
from harness.evaluation.mixtures import GaussianMixtures
from harness.evaluation.ood import auroc, out_of_distribution_images
from harness.experiments.mnist_latents.networks import Classifier, to_signed
from harness.experiments.mnist_latents.phases import TrainedRow

_REAL = 10_000  # training images that stand for the real ones; as many as test images
_IN_DISTRIBUTION = 2500  # test images that out-of-distribution images are told from, or made of


class GenerationEvaluator:
    """Measures images against evenly spaced training images in a classifier's features.

    Args:
        classifier: Trained on real images.
        data: The images.
    """

    def __init__(self, classifier: Classifier, data: ImageData) -> None:
        train, test = data.train, data.test
        if not isinstance(train, ImageSet) or not isinstance(test, ImageSet):
            raise TypeError("the images must be in memory, as MNIST's are")
        self.classifier, self.data, self.train, self.test = classifier, data, train, test
        real = train.images[evenly_spaced(len(train), _REAL)]
        self.real, _ = classifier.classify(real)  # features, shape: (N, F)
        self.in_distribution = evenly_spaced(len(test), _IN_DISTRIBUTION)  # indices of test images

    def about_itself(self) -> dict[str, Any]:
        """Of the classifier: accuracy, metrics of test images, out-of-distribution detection."""
        _, probabilities = self.classifier.classify(self.test.images)
        unsure = -probabilities[self.in_distribution].max(dim=1).values
        return {
            "accuracy": float(
                (probabilities.argmax(dim=1) == self.test.labels.cpu()).double().mean()
            ),
            "real": self.metrics(self.test.images),
            "out_of_distribution": {
                name: auroc(unsure, -self.classifier.classify(images)[1].max(dim=1).values)
                for name, images in self.out_of_distribution().items()
            },
        }

    def out_of_distribution(self) -> dict[str, Tensor]:
        """Sets of out-of-distribution images, some made of test images."""
        return out_of_distribution_images(self.test.images[self.in_distribution].cpu(), seed=0)

    def metrics(self, images: Tensor) -> dict[str, float]:
        """Every metric of images, uint8, shape (N, 1, 32, 32)."""
        features, probabilities = self.classifier.classify(images)
        distances, _ = self.nearest(images[evenly_spaced(len(images), 500)])
        return {
            "frechet": generation.frechet_distance(self.real, features),
            # Neighbours of all, and not of every second image, would take most of the time.
            **generation.neighbourhood_metrics(self.real[::2], features[::2]),
            **generation.label_statistics(probabilities),
            "nearest": float(distances.median()),
        }

    def nearest(self, images: Tensor) -> tuple[Tensor, Tensor]:  # shapes: (N,), (N,)
        """Distance of images to the nearest training image, over pixels in [-1, 1], and which."""
        pixels, real = (to_signed(part.cpu()).flatten(1) for part in (images, self.train.images))
        distances, indices = generation.nearest_distances(pixels, real, 1)
        return distances[:, 0], indices[:, 0]


def measure(
    row: TrainedRow,
    found: Mapping[str, GaussianMixtures],
    evaluator: GenerationEvaluator,
    *,
    seed: int,
) -> dict[str, Any]:
    """Every metric of a row: its decoder's, and each density's shape, fit, samples and alarms."""
    labels = evaluator.test.labels.cpu()
    decoded = row.decoder.decode(row.test)
    result: dict[str, Any] = {
        "title": row.settings.title,
        "density": row.settings.density,
        "encoder": row.results["metrics"],
        "encoder_training": {
            name: row.results[name] for name in ("wall_time_s", "resumed_at_step", "commit")
        },
        "decoder": {
            "error": float((to_signed(decoded) - to_signed(evaluator.test.images)).square().mean()),
            **evaluator.metrics(decoded),
        },
        "densities": {},
        "out_of_distribution": _out_of_distribution(row, found, evaluator),
    }
    for kind, density in found.items():
        images = row.decoder.decode(sample(density, len(row.test), seed=seed))
        result["densities"][kind] = {
            **shape_statistics(density),
            **fit_statistics(density, row.test, labels),
            **evaluator.metrics(images),
        }
    return result


def _out_of_distribution(
    row: TrainedRow, found: Mapping[str, GaussianMixtures], evaluator: GenerationEvaluator
) -> dict[str, dict[str, float]]:
    """Out-of-distribution detection by scores of a row: areas under the ROC curve.

    Returns:
        For each set of images, by score: minus the log-density of each kind, and ``nearest``, the
        distance to the nearest training embedding.
    """

    def scores(codes: Tensor) -> dict[str, Tensor]:
        given = {"nearest": nearest_distances(codes, row.train, 1)[0][:, 0].cpu()}
        for kind, density in found.items():
            given[kind] = -component_log_probs(density, codes).logsumexp(dim=1)
        return given

    in_distribution = scores(row.test[evaluator.in_distribution])
    areas = {}
    for name, images in evaluator.out_of_distribution().items():
        unlabelled = ImageSet(images, torch.zeros(len(images), dtype=torch.int64))
        codes = normalize(encode(row.encoder, unlabelled, evaluator.data)[0], dim=1)
        areas[name] = {
            kind: auroc(in_distribution[kind], score) for kind, score in scores(codes).items()
        }
    return areas
