"""What is trained: encoders, decoders, classifier; each goes on where it was left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from harness import data, runs, training
from harness.callbacks import EpochProgress
from harness.checkpoints import write_tensors
from harness.evaluation import encode
from harness.experiments.mnist_latents.networks import Classifier, Decoder
from harness.fitting import fit
from harness.keyed_random import seeded
from harness.methods.modules.base import Method
from harness.progress import Report
from harness.settings import LatentRowSettings, MNISTLatentsSettings, SettingsError
from harness.tracking import RunFolder

CLASSIFIER_EPOCHS = 5  # 99 % of the test images


@dataclass(frozen=True)
class TrainedRow:
    """What the first two phases leave of a row.

    Attributes:
        settings: The row's.
        results: ``results.json`` of the encoder's training.
        encoder: Maps normalised images to embeddings.
        train: Embeddings of the training images, unit norm, shape (N, d), on the CPU.
        test: Those of the test images.
        decoder: Maps them back to images.
    """

    settings: LatentRowSettings
    results: dict[str, Any]
    encoder: Method
    train: Tensor
    test: Tensor
    decoder: Decoder


class Phases:
    """What trains the parts of a run, each in a folder below the run's, in any process.

    Args:
        folder: The run's.
        report: Told of every epoch of anything.
    """

    def __init__(self, folder: RunFolder, report: Report) -> None:
        self.folder, self.settings, self.report = folder, folder.settings, report
        self.data = data.load(self.settings.data, seed=self.settings.seed)

    @property
    def experiment(self) -> MNISTLatentsSettings:
        """The experiment's settings."""
        return cast("MNISTLatentsSettings", self.settings.experiment)

    def encoder(self, name: str) -> dict[str, Any]:
        """Trains a row's encoder; its results."""
        folder, title = self._encoder_folder(name), self.experiment.rows[name].title
        try:
            return runs.run_training(self.data, folder, title=title, name=name, report=self.report)
        except SettingsError as error:
            raise SettingsError(f"experiment.rows.{name}: {error}") from error

    def row(self, name: str) -> TrainedRow:
        """Trains a row's encoder and decoder, or loads what is trained."""
        results, folder = self.encoder(name), self._encoder_folder(name)
        method = training.load(self.data, folder)
        train, test = self._embeddings(name, method)
        with seeded(self.settings.seed):
            decoder = Decoder(train)
        self.fit(decoder, f"decoders/{name}", epochs=self.experiment.decoder_epochs)
        row = self.experiment.rows[name]
        return TrainedRow(row, results, method, train, test, decoder)

    def _embeddings(self, name: str, encoder: nn.Module) -> tuple[Tensor, Tensor]:
        """Those of all training and test images, encoded once."""
        path = self.folder.path / "embeddings" / f"{name}.pt"
        if not path.exists():
            parts = {"train": self.data.train, "test": self.data.test}
            encoded = {key: encode(encoder, part, self.data)[0] for key, part in parts.items()}
            write_tensors(path, {key: normalize(z.cpu(), dim=1) for key, z in encoded.items()})
        found = torch.load(path, weights_only=True)
        return found["train"], found["test"]

    def _encoder_folder(self, name: str) -> RunFolder:
        method = self.experiment.rows[name].method
        return self.folder.part(name, replace(self.settings, method=method, overwrite=False))

    def classifier(self) -> Classifier:
        """Trains the classifier that generated images are measured by."""
        with seeded(self.settings.seed):
            classifier = Classifier(self.data.num_classes)
        self.fit(classifier, "classifier", epochs=CLASSIFIER_EPOCHS)
        return classifier

    def fit(self, module: pl.LightningModule, name: str, *, epochs: int) -> None:
        """Trains a module on the training images, in a folder of its own."""
        path, told = self.folder.path / name / "last.ckpt", [EpochProgress(self.report)]
        fit(module, self.data.train, self.settings, path=path, epochs=epochs, callbacks=told)
