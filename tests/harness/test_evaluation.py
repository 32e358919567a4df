"""The protocols against brute force and cases worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gmje_plugin import JointGaussianMixture
from harness.checkpoints import read_checkpoint
from harness.data import EpochBatches, ImageData, ImageSet, load, train_loader
from harness.evaluation import encode, evaluate
from harness.evaluation.collapse import alignment, dead_dimensions, effective_rank, uniformity
from harness.evaluation.density import principal_plane
from harness.evaluation.encoding import evaluating
from harness.evaluation.knn import knn_accuracy
from harness.evaluation.linear_probe import converged_accuracy, paper_accuracy
from harness.keyed_random import seeded
from harness.settings import DataSettings
from harness.views import ProbeView
from tests.harness.commands import settings


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def brute_force_knn(train: Tensor, labels: Tensor, test: Tensor, k: int, t: float) -> list[int]:
    predictions = []
    for point in test.double():
        similarity = [
            float(torch.cosine_similarity(point, other, dim=0)) for other in train.double()
        ]
        nearest = sorted(range(len(train)), key=lambda index: -similarity[index])[:k]
        votes: dict[int, float] = {}
        for index in nearest:
            label = int(labels[index])
            votes[label] = votes.get(label, 0.0) + math.exp(similarity[index] / t)
        predictions.append(max(votes, key=lambda label: votes[label]))
    return predictions


@pytest.mark.parametrize(("k", "t"), [(1, 0.1), (7, 0.1), (25, 0.02), (25, 5.0)])
def test_knn_is_brute_force(k: int, t: float) -> None:
    train, test = normal(60, 5), normal(40, 5, seed=1)
    labels = torch.arange(60) % 4
    predicted = torch.tensor(brute_force_knn(train, labels, test, k, t))
    truth = torch.arange(40) % 4
    found = knn_accuracy(train, labels, test, truth, num_classes=4, knn_k=k, knn_t=t)
    assert found == pytest.approx((predicted == truth).double().mean().item(), abs=1e-12)


def test_knn_with_more_neighbours_than_images_lets_all_vote() -> None:
    train, labels = normal(6, 3), torch.tensor([0, 0, 0, 0, 1, 1])
    options = {"num_classes": 2, "knn_t": 1e6}  # equal votes: the majority
    found = knn_accuracy(train, labels, train, labels, knn_k=200, **options)
    assert found == pytest.approx(4 / 6)


def test_linear_probe_finds_what_is_linear_and_no_more() -> None:
    points = normal(300, 2)
    linear, quadratic = (points[:, 0] > 0).long(), (points.prod(dim=1) > 0).long()
    assert converged_accuracy(points[:200], linear[:200], points[200:], linear[200:]) > 0.95
    assert converged_accuracy(points[:200], quadratic[:200], points[200:], quadratic[200:]) < 0.65


def test_linear_probe_does_not_depend_on_the_features_scale() -> None:
    points = normal(200, 4)
    labels = (points[:, 0] + points[:, 1] > 0).long()
    scaled = points * torch.tensor([1e-4, 1e3, 1.0, 10.0]) + 5.0
    assert converged_accuracy(points, labels, points, labels) == converged_accuracy(
        scaled, labels, scaled, labels
    )


def test_effective_rank_by_hand() -> None:
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert effective_rank(corners) == pytest.approx(2.0)
    assert effective_rank(corners + 7.0) == pytest.approx(2.0)  # centred
    # Singular values 3 : 1 are shares 3/4 and 1/4.
    entropy = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert effective_rank(corners * torch.tensor([3.0, 1.0])) == pytest.approx(math.exp(entropy))
    assert effective_rank(normal(10, 1) @ normal(1, 5)) == pytest.approx(1.0, abs=1e-4)
    assert effective_rank(torch.full((10, 5), 0.1)) == 0.0


def test_dead_dimensions_are_those_that_do_not_vary() -> None:
    features = normal(50, 4)
    assert dead_dimensions(features) == 0.0
    assert dead_dimensions(features * torch.tensor([1.0, 1e-4, 0.0, 1.0]) + 5.0) == 0.5
    assert dead_dimensions(torch.ones(50, 4)) == 1.0


def test_uniformity_and_alignment_are_brute_force() -> None:
    first, second = normal(20, 3).double(), normal(20, 3, seed=1).double()
    unit = [point / point.norm() for point in first]
    pairs = [math.exp(-2 * float((a - b).square().sum())) for a in unit for b in unit if a is not b]
    assert uniformity(first) == pytest.approx(math.log(sum(pairs) / len(pairs)))
    assert uniformity(torch.ones(5, 3)) == pytest.approx(0.0)
    distances = [
        float((a / a.norm() - b / b.norm()).square().sum())
        for a, b in zip(first, second, strict=True)
    ]
    assert alignment(first, second) == pytest.approx(sum(distances) / 20)
    assert alignment(first, -3.0 * first) == pytest.approx(4.0)


def plain_probe(network: nn.Module, data: ImageData, *, seed: int, epochs: int) -> Tensor:
    """The weight of the paper's probe by a plain loop."""
    batches = EpochBatches(data.train.labels, batch_size=256, seed=seed)
    with seeded(seed):
        layer = nn.Linear(16, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(batches))
    view = ProbeView(mean=data.mean, std=data.std, seed=seed)
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for images, labels, indices in train_loader(data.train, batches):
            with torch.no_grad(), evaluating(network):
                features = network(view(images, indices, epoch=epoch))
            optimizer.zero_grad()
            nn.functional.cross_entropy(layer(features), labels).backward()
            optimizer.step()
            scheduler.step()
    return layer.weight.detach()


def test_the_papers_probe_learns_and_is_a_function_of_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Grayscale squares of two shades: what neither cropping nor flipping takes away.
    labels = torch.arange(600) % 2
    pixels = (80 + 100 * labels[:, None, None, None] + 20 * normal(600, 1, 16, 16)).byte()
    images = ImageSet(pixels, labels)
    data = replace(load(DataSettings()), train=images, test=images, num_classes=2)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.BatchNorm1d(16))
    monkeypatch.setattr("harness.evaluation.linear_probe._EPOCHS", 40)
    before = torch.get_rng_state()
    stream = ("trainer.devices=2", "data.order=class_correlated")
    asked = settings("experiment=benchmark", "data=digits", "seed=1", *stream)

    def probe(name: str) -> tuple[float, Tensor]:
        path = tmp_path / name / "probe.ckpt"
        found = paper_accuracy(network, data, asked, path=path)
        return found, read_checkpoint(path)["state_dict"]["layer.weight"]

    first, weight = probe("a")
    assert torch.equal(weight, plain_probe(network, data, seed=1, epochs=40))
    # An interruption: from the last whole epoch on, not from zero, to the same bits.
    epochs: list[int] = []
    view = ProbeView.__call__

    def counted(self: ProbeView, images: Tensor, indices: Tensor, *, epoch: int) -> Tensor:
        epochs.append(epoch)
        if epochs.count(25) == 2 and len(set(epochs)) > 25:
            raise InterruptedError
        return view(self, images, indices, epoch=epoch)

    monkeypatch.setattr(ProbeView, "__call__", counted)
    with pytest.raises(InterruptedError):
        probe("b")
    del epochs[:]
    again, same_weight = probe("b")
    assert set(epochs) == set(range(25, 40))
    assert first == again
    assert torch.equal(weight, same_weight)
    assert 0.9 < first <= 1.0
    assert network.training
    assert torch.equal(network[2].running_mean, torch.zeros(16))
    assert torch.equal(before, torch.get_rng_state())


def test_encode_is_in_evaluation_mode_and_leaves_the_mode() -> None:
    data = load(DataSettings())
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5))
    found, labels = encode(network, data.test, data)
    assert network.training
    assert torch.equal(network[1].running_mean, torch.zeros(64))
    pixels = (data.test.images.float() / 255.0 - data.mean) / data.std
    torch.testing.assert_close(found, pixels.flatten(1) / math.sqrt(1 + 1e-5))
    assert torch.equal(labels, data.test.labels)


def test_evaluate_gives_every_metric_and_pixels_do_well(tmp_path: Path) -> None:
    data = load(DataSettings())
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64))
    nn.init.eye_(network[1].weight)
    every = settings("evaluation.labels_per_class=null", "evaluation.knn_k=20")
    found = evaluate(network, data, every, folder=tmp_path)
    assert list(found) == [
        "knn_accuracy",
        "linear_accuracy",
        "effective_rank",
        "uniformity",
        "alignment",
        "dead_dimensions",
    ]
    assert found["knn_accuracy"] > 0.96
    assert 1.0 < found["effective_rank"] < 64.0


def test_few_labels_are_a_mean_over_draws_and_as_many_as_there_are_are_all(tmp_path: Path) -> None:
    data = load(DataSettings())
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64))
    nn.init.eye_(network[1].weight)

    def accuracies(labels: int | None) -> list[float]:
        word = "null" if labels is None else labels
        asked = settings(f"evaluation.labels_per_class={word}")
        found = evaluate(network, data, asked, folder=tmp_path)
        return [found["knn_accuracy"], found["linear_accuracy"]]

    few, many, all_of_them = map(accuracies, (2, 10**6, None))
    assert many == pytest.approx(all_of_them, abs=1e-3)
    for part, whole in zip(few, all_of_them, strict=True):
        assert 0.4 < part < whole - 0.1


@pytest.mark.parametrize("probe", ["converged", "paper"])
def test_images_of_one_class_have_no_accuracies(probe: str, tmp_path: Path) -> None:
    data = load(DataSettings())
    one = ImageData(
        **{
            **vars(data),
            "train": ImageSet(data.train.images, torch.zeros_like(data.train.labels)),
            "test": ImageSet(data.test.images, torch.zeros_like(data.test.labels)),
            "num_classes": 1,
        }
    )
    network, asked = nn.Sequential(nn.Flatten(), nn.Linear(64, 64)), (f"evaluation.probe={probe}",)
    expected = evaluate(network, data, settings("evaluation.knn_k=1"), folder=tmp_path)
    del expected["knn_accuracy"], expected["linear_accuracy"]
    assert evaluate(network, one, settings(*asked), folder=tmp_path) == expected


@pytest.mark.parametrize("kind", ["isotropic", "diagonal", "full"])
def test_planar_density_is_the_mixture_projected(kind: str) -> None:
    factors = normal(3, 8, 8, seed=2)
    covariances = {
        "isotropic": torch.tensor([0.5, 1.0, 2.0]),
        "diagonal": factors.diagonal(dim1=1, dim2=2).square() + 0.1,
        "full": factors @ factors.mT + 0.1 * torch.eye(8),
    }[kind]
    weights, means = torch.tensor([0.2, 0.3, 0.5]), normal(3, 8, seed=1)
    mixture = JointGaussianMixture(weights, means, covariances, split=4)
    embeddings = normal(30, 4, seed=3) * torch.tensor([3.0, 1.0, 2.0, 0.1])
    planar = principal_plane(mixture, embeddings)

    # The plane is that of the largest variance: the first and the third direction, nearly.
    assert 0.9 < planar.explained < 1.0
    assert planar.points.var(dim=0)[0] > planar.points.var(dim=0)[1]
    # 200,000 draws, seed 0: means within 5 standard errors, covariances within 3 %. A sound
    # projection would fail in about 1 of 10^5 seeds.
    drawn = mixture.sample((200_000,), generator=torch.Generator().manual_seed(0))[:, :4]
    centre = embeddings.mean(dim=0)
    basis = torch.linalg.lstsq(embeddings - centre, planar.points).solution
    projected = (drawn - centre) @ basis
    standard_error = projected.std(dim=0) / 200_000**0.5
    assert ((projected.mean(dim=0) - planar.density.mean).abs() < 5 * standard_error).all()
    torch.testing.assert_close(projected.var(dim=0), planar.density.variance, rtol=0.03, atol=0)
    torch.testing.assert_close(planar.means, (means[:, :4] - centre) @ basis, rtol=1e-3, atol=1e-3)
