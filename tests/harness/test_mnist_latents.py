"""Experiment 3 on a tiny MNIST: what it prints, leaves behind, repeats and refuses."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from rich.console import Console
from torch import nn
from torch.nn.functional import normalize

from gmje_plugin import GMJEPrototypeLoss, JointGaussianMixture
from harness import backbones
from harness.data import ImageSet
from harness.experiments import mnist_latents
from harness.experiments.mnist_latents.completion import Completer, conditionals, most_ambiguous
from harness.experiments.mnist_latents.densities import fit_densities
from harness.experiments.mnist_latents.networks import Classifier, Decoder
from harness.report import write_report
from harness.report.latents import tables
from harness.settings import SettingsError
from tests.harness.commands import harness, settings, shown
from tests.harness.tiny_mnist import write_tiny_mnist

ASKED = [
    "experiment=mnist_latents",
    "scale=reduced",
    "logger=csv",
    "trainer.batch_size=64",
    "trainer.epochs=1",
    "experiment.num_components=4",
    "~experiment.rows.simclr",
]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run's folder and what the command printed."""
    where = tmp_path_factory.mktemp("checkout")
    write_tiny_mnist(where / "data")
    done = harness(*ASKED, folder=where)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (folder,) = (where / "outputs" / "mnist_latents").iterdir()
    return folder, done.stdout


@pytest.fixture(scope="module")
def results(ran: tuple[Path, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ran[0] / "results.json").read_text())
    return found


def test_the_folder_holds_every_phase(ran: tuple[Path, str]) -> None:
    rows = {"gje", "gmje"}
    assert {path.name for path in (ran[0] / "trainings").iterdir()} == rows
    assert {path.parent.name for path in (ran[0] / "decoders").glob("*/last.ckpt")} == rows
    assert {path.parent.name for path in (ran[0] / "completion").glob("*/last.ckpt")} == {
        "jepa",
        "gje",
        "gmje",
        "mdn",
    }
    assert (ran[0] / "classifier" / "last.ckpt").exists()
    pictures = {path.stem for path in (ran[0] / "figures").iterdir()}
    assert pictures == {"completions", "calibration"} | {
        f"{row}_{kind}" for row in rows for kind in ("map", "grids", "nearest")
    }
    for name in pictures:
        picture = imread(ran[0] / "figures" / f"{name}.png")[..., :3]
        assert (picture < 0.95).any(axis=-1).mean() > 0.02


def test_three_lines_load_the_density_that_was_learned(ran: tuple[Path, str]) -> None:
    density = JointGaussianMixture(**torch.load(ran[0] / "densities" / "gmje.pt"))
    drawn = density.sample((3,), generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 256)
    assert torch.isfinite(density.log_prob(drawn)).all()
    assert density.condition(drawn[:, :128]).mean.shape == (3, 128)
    assert density.means.view(4, 2, 128).norm(dim=2).allclose(torch.ones(4, 2))


def test_results_hold_every_density_and_ceiling(results: dict[str, Any]) -> None:
    gje, gmje = results["rows"]["gje"], results["rows"]["gmje"]
    assert set(gje["densities"]) == {"gaussian", "gmm"}
    assert set(gmje["densities"]) == set(gje["densities"]) | {
        "prototypes",
        "prototypes_ema",
        "prototypes_em",
    }
    assert (
        results["classifier"]["real"]["coverage"]
        > 0.2
        > results["rows"]["gje"]["decoder"]["coverage"]
    )
    assert results["classifier"]["accuracy"] > 0.3
    assert gmje["densities"]["prototypes"]["trace"] == pytest.approx(128 * 0.01, rel=1e-4)
    assert gmje["densities"]["prototypes_ema"]["trace"] == pytest.approx(1.0, abs=1e-3)
    for areas in gmje["out_of_distribution"].values():
        assert set(areas) == {"nearest", *gmje["densities"]}
        assert all(0.0 <= area <= 1.0 for area in areas.values())
    assert list(results["completion"]) == [
        "jepa",
        "gje",
        "gje_t",
        "gmje",
        "gmje_em",
        "gmje_t",
        "mdn",
    ]
    for found in results["completion"].values():
        assert found["best_of"] == sorted(found["best_of"])
        assert found["calibration"] == sorted(found["calibration"])
        assert found["calibration"][9] == found["coverage_0.5"]
    assert results["commit"]
    assert results["command"] == ASKED


def test_the_same_command_shows_it_again(ran: tuple[Path, str], results: dict[str, Any]) -> None:
    again = harness(*ASKED, folder=ran[0].parents[2])
    assert (again.returncode, again.stderr) == (0, "")
    assert "Finished before" in again.stdout
    assert shown(again.stdout)[:-2] == shown(ran[1])[:-2]
    for table in tables(results):
        assert all(len(row) in (1, len(table.header)) for row in table.rows)


def test_a_terminal_of_80_columns_shows_every_number(results: dict[str, Any]) -> None:
    results = copy.deepcopy(results)
    for found in results["completion"].values():
        found["nll"] = 1234567.0  # of a model that was hardly trained
    told = io.StringIO()
    mnist_latents.show(results, Console(file=told, width=80))
    assert "1234567" in told.getvalue()
    assert "…" not in told.getvalue()  # rich's mark of what it has cut off


def test_the_report_shows_it(ran: tuple[Path, str], tmp_path: Path) -> None:
    assert write_report([ran[0]], tmp_path) == []
    page = (tmp_path / "report.md").read_text()
    for heading in (
        "The paper's Table 2",
        "Samples decoded",
        "Out-of-distribution images",
        "Whole images from",
    ):
        assert page.count(heading) == 1
    assert "| \N{NO-BREAK SPACE}\N{NO-BREAK SPACE}gaussian" in page  # below its row's title
    shown = [path.name for path in (tmp_path / "figures").glob("latents-*.png")]
    assert len(shown) == 2 * 3 + 2
    assert all(f"(figures/{name})" in page for name in shown)
    assert (tmp_path / "report.html").read_text().count("data:image/png;base64") == len(shown)


def test_an_interrupted_one_trains_nothing_twice(
    ran: tuple[Path, str], results: dict[str, Any]
) -> None:
    for lost in ("results.json", "measured/rows/gje.json", "decoders/gje/last.ckpt"):
        (ran[0] / lost).unlink()
    kept = {path: path.stat().st_mtime_ns for path in ran[0].rglob("*.ckpt")}
    again = harness(*ASKED, folder=ran[0].parents[2])
    assert (again.returncode, again.stderr) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    repeated = json.loads((ran[0] / "results.json").read_text())
    for part in ("classifier", "rows", "completion"):
        assert repeated[part] == results[part]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("data=digits", "experiment=mnist_latents is for data=mnist, not digits"),
        ("experiment.completed=best", "must be one of simclr, gje, gmje, got 'best'"),
        ("experiment.rows.gje.density=prototypes", "density=prototypes is for parametric_gmje"),
        ("trainer.epochs=0", "trainer.epochs must be at least 1"),
        ("method@experiment.rows.gje.method=byol", "rows.gje.method must be of SimCLR's family"),
        (
            "experiment.rows.gmje.method.entropy_weight=0",
            "rows.gmje.method.entropy_weight must be above 0",
        ),
        ("method=simclr", "method and bank are for benchmark and banks, not mnist_latents"),
        ("trainer.devices=2", "trainer.devices and trainer.num_nodes are for benchmark and banks"),
    ],
)
def test_what_cannot_be_is_one_line(asked: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings("experiment=mnist_latents", asked)


def test_a_white_pixel_can_turn_black_again_in_bfloat16() -> None:
    decoder = Decoder(torch.zeros(1, 128))
    last = decoder.network[-1]
    assert isinstance(last, nn.ConvTranspose2d)
    assert last.bias is not None
    nn.init.constant_(last.bias, 5.0)  # tanh(5) is 1 in bfloat16, without a gradient
    with torch.autocast("cpu", torch.bfloat16):
        images = decoder(torch.randn(4, 128, generator=torch.Generator().manual_seed(0)))
    assert images.shape == (4, 1, 32, 32)
    assert images.dtype == torch.float32
    images.mean().backward()  # type: ignore[no-untyped-call]
    assert last.bias.grad is not None
    assert last.bias.grad.item() > 1e-6


def test_codes_are_decoded_from_the_sphere_and_classified_the_same_in_any_company() -> None:
    codes = torch.randn(1200, 128, generator=torch.Generator().manual_seed(0))
    decoder, classifier = Decoder(codes), Classifier(10)
    assert decoder.decode(codes).float().mean() == pytest.approx(0.1 * 255, abs=5.0)  # as MNIST
    images = decoder.decode(codes)
    assert images.dtype == torch.uint8
    assert (images[:50].int() - decoder.decode(3.0 * codes[:50]).int()).abs().max() <= 1
    features, probabilities = classifier.classify(images)
    assert (features.shape, probabilities.shape) == ((1200, 128), (1200, 10))
    assert probabilities.sum(dim=1).allclose(torch.ones(1200))
    assert features[1100:].allclose(classifier.classify(images[1100:])[0], atol=1e-4)


def test_a_row_with_prototypes_has_three_densities_of_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(2, 4).repeat_interleave(150, dim=0)
    codes = normalize(centres + 0.2 * torch.randn(300, 4, generator=generator), dim=1)
    criterion = GMJEPrototypeLoss(4, 2, temperature=0.1)
    with torch.no_grad():
        criterion.prototypes.copy_(torch.eye(2, 4).repeat(1, 2))
    criterion(codes, codes)  # the average moves with gradients enabled
    found = fit_densities(criterion, codes, num_components=2, seed=0)
    moment = (codes.T @ codes / len(codes)).double()
    covariances = {name: own.factors @ own.factors.mT for name, own in found.items()}
    assert found["prototypes"].means.allclose(torch.eye(2, 4).double())
    assert covariances["prototypes"].allclose(0.1 * torch.eye(4).double())
    assert found["prototypes_ema"].means.allclose(torch.eye(2, 4).double())
    assert covariances["prototypes_ema"].allclose(moment.expand(2, 4, 4), atol=1e-6)
    by_class = codes.view(2, 150, 4).mean(dim=1).double()  # EM keeps the order of its start
    assert found["prototypes_em"].means.allclose(by_class, atol=0.02)
    assert found["gmm"].means.sum(dim=0).allclose(by_class.sum(dim=0), atol=0.02)


@pytest.mark.parametrize(
    ("kind", "fitted"), [("gje", {"gje", "gje_t"}), ("gmje", {"gmje_em", "gmje_t"})]
)
def test_a_completion_is_fitted_or_by_prototypes_as_trained(kind: str, fitted: set[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    contexts = normalize(torch.randn(800, 4, generator=generator), dim=1)
    targets = normalize(contexts + 0.1 * torch.randn(800, 4, generator=generator), dim=1)
    known, held_out = zip(contexts.chunk(2), targets.chunk(2), strict=True)
    contexts, targets = known
    backbone = backbones.build(
        settings("experiment=mnist_latents").backbone, in_channels=1, image_size=(32, 32)
    )
    completer = Completer(backbone, targets, kind, num_prototypes=3)
    found = conditionals(completer, contexts, targets, held_out, seed=0)
    given = contexts.double()
    scores = {name: density(given).log_prob(targets.double()) for name, density in found.items()}
    assert set(found) == fitted | {kind}
    if kind == "gmje":
        as_trained = completer.criterion.mixture().condition(given)
        assert scores["gmje"].allclose(as_trained.log_prob(targets.double()))
        assert all(scores[name].mean() > scores["gmje"].mean() + 1.0 for name in fitted)


def test_the_most_ambiguous_upper_halves_are_those_of_many_classes() -> None:
    halves = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    halves[1, :, 0], halves[2, :, 1] = 255, 255  # rows of pixels, far from each other
    halves[:, :, 2:] = torch.randint(256, (3, 1, 2, 4), dtype=torch.uint8)  # tells nothing
    labels = torch.cat([torch.arange(50) % classes for classes in (2, 5, 1)])
    train = ImageSet(halves.repeat_interleave(50, dim=0), labels)
    assert most_ambiguous(halves, train).tolist() == [1, 0, 2]


def test_the_papers_protocol() -> None:
    found = settings("experiment=mnist_latents")
    assert (found.seed, found.trainer.epochs, found.trainer.batch_size) == (42, 50, 256)
    assert (found.backbone.name, found.data.views.normalization) == ("mnist_cnn", "half")
    encoder = backbones.build(found.backbone, in_channels=1, image_size=(32, 32))
    assert encoder.feature_dim == 1024
    experiment: Any = found.experiment
    assert (experiment.decoder_epochs, experiment.completion_epochs) == (50, 5)
    assert {row.method.learning_rate for row in experiment.rows.values()} == {1e-3}
    assert {name: row.density for name, row in experiment.rows.items()} == {
        "simclr": "gmm",
        "gje": "gaussian",
        "gmje": "prototypes_ema",
    }


def test_reduced_it_trains_less_of_everything() -> None:
    found = settings("experiment=mnist_latents", "scale=reduced")
    experiment: Any = found.experiment
    assert found.trainer.epochs == 2
    assert (experiment.decoder_epochs, experiment.completion_epochs) == (1, 1)


def test_every_component_of_a_predicted_mixture_has_a_share_of_the_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(10, 128, generator=generator), dim=1)
    noise = 0.02 * torch.randn(400, 128, generator=generator)
    targets = normalize(centres.repeat(40, 1) + noise, dim=1)
    backbone = backbones.build(
        settings("experiment=mnist_latents").backbone, in_channels=1, image_size=(32, 32)
    )
    completer = Completer(backbone, targets, "mdn", num_prototypes=3)
    found = completer.prediction_head(torch.randn(400, 128, generator=generator))
    shares = (found.logits + found.component_distribution.log_prob(targets[:, None])).softmax(dim=1)
    assert shares.mean(dim=0).detach().allclose(torch.full((10,), 0.1), atol=0.01)
