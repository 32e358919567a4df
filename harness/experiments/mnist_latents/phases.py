"""The phases of Experiment 3: encoders, decoders, classifier; each goes on where it was left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.nn.functional import normalize

from harness import runs, training
from harness.data import ImageData
from harness.evaluation import encode
from harness.experiments.mnist_latents.networks import Classifier, Decoder
from harness.keyed_random import seeded
from harness.runs import EpochBar
from harness.settings import LatentRowSettings, Settings, SettingsError
from harness.tracking import RunFolder

CLASSIFIER_EPOCHS = 5  # 99 % of the test images


@dataclass(frozen=True)
class TrainedRow:
    """What the first two phases leave of a row.

    Attributes:
        settings: The row's.
        results: ``results.json`` of the encoder's training.
        criterion: The encoder's loss.
        encoder: Maps normalised images to embeddings.
        train: Embeddings of the training images, unit norm, shape (N, d), on the CPU.
        test: Those of the test images.
        decoder: Maps them back to images.
    """

    settings: LatentRowSettings
    results: dict[str, Any]
    criterion: nn.Module
    encoder: nn.Module
    train: Tensor
    test: Tensor
    decoder: Decoder


@dataclass(frozen=True)
class Phases:
    """What trains the parts of a run, each in a folder below the run's.

    Args:
        settings: Of the run.
        data: The images.
        folder: The run's.
        bar: Moves by an epoch of anything.
    """

    settings: Settings
    data: ImageData
    folder: RunFolder
    bar: EpochBar

    def row(self, name: str, row: LatentRowSettings, *, decoder_epochs: int) -> TrainedRow:
        """Trains a row's encoder, then its decoder."""
        settings = replace(self.settings, method=row.method, overwrite=False)
        folder = self.folder.part(name, settings)
        self.bar.describe(f"{row.title}: encoder")
        try:
            results = runs.run_training(
                settings, self.data, folder, title=row.title, name=name, callbacks=[self.bar]
            )
        except SettingsError as error:
            raise SettingsError(f"experiment.rows.{name}: {error}") from error
        method = training.load(settings, self.data, folder)
        train, test = (
            normalize(encode(method, part, self.data)[0].cpu(), dim=1)
            for part in (self.data.train, self.data.test)
        )
        self.bar.describe(f"{row.title}: decoder")
        with seeded(self.settings.seed):
            decoder = Decoder(train)
        self.fit(decoder, f"decoders/{name}", epochs=decoder_epochs)
        return TrainedRow(row, results, method.criterion, method, train, test, decoder)

    def classifier(self) -> Classifier:
        """Trains the judge of generated images."""
        self.bar.describe("classifier")
        with seeded(self.settings.seed):
            classifier = Classifier(self.data.num_classes)
        self.fit(classifier, "classifier", epochs=CLASSIFIER_EPOCHS)
        return classifier

    def fit(self, module: pl.LightningModule, place: str, *, epochs: int) -> None:
        """Trains a module on the training images, in a folder of its own."""
        path = self.folder.path / place / "last.ckpt"
        training.fit(
            module,
            self.data.train,
            self.settings,
            path=path,
            resume_from=path if path.exists() else None,
            epochs=epochs,
            callbacks=[self.bar],
        )
