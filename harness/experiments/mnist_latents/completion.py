"""Conditional completion: what half an image tells of the whole one's embedding.

Models of one size see the upper half of an image. Their targets are the embeddings of whole
images under an encoder that was trained before and stays as it is, so that one decoder serves all
and nothing can collapse. Only what they say of the target differs: a point (JEPA), a Gaussian
(unimodal GJE), a mixture of joint prototypes (Parametric GMJE) or one fitted to the same embeddings
by EM, a predicted mixture (GMJE-MDN). To the embeddings of the second and the third a Student t
and a mixture of them are fitted, too, and calibrated on test images that nothing is measured on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, SimCLRProjectionHead
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import normalize, one_hot

from gmje_plugin import (
    GJEEntropyLoss,
    GMJEMDNHead,
    GMJEMDNLoss,
    GMJEPrototypeLoss,
    JointGaussian,
    JointGaussianMixture,
    JointStudentTMixture,
)
from harness import training
from harness.backbones import Backbone
from harness.checkpoints import write_tensors
from harness.data import ImageSet, evenly_spaced
from harness.evaluation import conditional as measures
from harness.evaluation.generation import nearest_distances
from harness.experiments.mnist_latents.evaluating import GenerationEvaluator
from harness.experiments.mnist_latents.networks import AdamModule, Batch, Decoder, to_signed
from harness.experiments.mnist_latents.phases import Phases, TrainedRow
from harness.keyed_random import seeded
from harness.report.latents import COMPLETIONS

KINDS = ["jepa", "gje", "gmje", "mdn"]  # what is trained
MODES = 5
_SHOWN, _SHOWN_MODES = 12, 3
_HIDDEN = 512  # of every head
_TEMPERATURE = 0.01  # of the prototypes
_INIT_SCALE = 0.1  # of GMJE-MDN, about that of targets of unit norm within a cluster
_COMPONENTS = 10  # of GMJE-MDN and of the fits by EM
_FITTED, _STEPS = 20_000, 20  # embeddings, so that a component has many times 2 d, and steps of EM
_MEASURED, _CALIBRATED = 5000, 500  # test images; of the latter, as a caption says, 100 draws each
_CHUNK, _DRAWN_AT_ONCE = 1000, 10
# Test images that those shown are chosen from, and neighbours of each.
_CANDIDATES, _NEIGHBOURS = 1000, 50

Conditional = Callable[[Tensor], Distribution]


class Completer(AdamModule):
    """An encoder of upper halves, trained against fixed embeddings of the whole images.

    Args:
        backbone: Of the same kind as the target encoder's.
        targets: Embeddings of the training images by their indices, shape (N, d), unit norm.
        kind: One of ``KINDS``.
        num_prototypes: Of Parametric GMJE.
    """

    def __init__(
        self, backbone: Backbone, targets: Tensor, kind: str, *, num_prototypes: int
    ) -> None:
        super().__init__()
        dim = targets.shape[1]
        self.kind = kind
        self.targets = targets  # no buffer: it is no part of what is learned
        self.backbone = backbone
        self.projection_head = SimCLRProjectionHead(backbone.feature_dim, _HIDDEN, dim)
        self.prediction_head: nn.Module = nn.Identity()
        self.criterion: nn.Module
        match kind:
            case "jepa":
                self.prediction_head = BYOLPredictionHead(dim, _HIDDEN, dim)
                self.criterion = NegativeCosineSimilarity()
            case "mdn":
                self.prediction_head = _head_of_clusters(targets)
                self.criterion = GMJEMDNLoss(guard=None)
            case "gje":
                self.criterion = GJEEntropyLoss()
            case _:
                self.criterion = GMJEPrototypeLoss(
                    dim, num_prototypes, temperature=_TEMPERATURE, correlation=0.0
                )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """The criterion of the half's embedding and the whole's."""
        images, _, indices = batch
        targets = self.targets[indices.to(self.targets.device)].to(images.device)
        embeddings = self.projection_head(self.backbone(to_signed(upper_half(images))))
        predicted = self.prediction_head(embeddings)
        with torch.autocast(device_type=self.device.type, enabled=False):
            if isinstance(predicted, Tensor):
                predicted = predicted.float()
            loss: Tensor = self.criterion(predicted, targets)
        return loss

    @torch.no_grad()
    def embed(
        self,
        images: Tensor,  # shape: (N, 1, 32, 32)
    ) -> Tensor:  # shape: (N, d)
        """What the densities are conditioned on, of unit norm where the loss takes it so."""
        self.eval()
        halves = (to_signed(upper_half(chunk)) for chunk in torch.split(images, _CHUNK))
        embeddings = torch.cat([self.projection_head(self.backbone(half)) for half in halves])
        return embeddings if self.kind in ("jepa", "mdn") else normalize(embeddings, dim=1)


def _head_of_clusters(
    targets: Tensor,  # shape: (N, d)
) -> GMJEMDNHead:
    """A head whose components start at the centres of clusters of the targets, for any context.

    Where they start at random, one or two are nearer to all targets than the others, by hundreds
    of nats in so many dimensions, and take all of the gradient for good.
    """
    dim = targets.shape[1]
    head = GMJEMDNHead(
        dim, _HIDDEN, dim, num_components=_COMPONENTS, scale="softplus", init_scale=_INIT_SCALE
    )
    some = targets[evenly_spaced(len(targets), _FITTED)]
    clusters = KMeans(_COMPONENTS, n_init=1, random_state=0).fit(some.cpu().numpy())
    with torch.no_grad():
        head.means.bias.copy_(torch.from_numpy(clusters.cluster_centers_).flatten())
    for zero in (head.means.weight, head.logits.weight, head.logits.bias):
        nn.init.zeros_(zero)
    return head


def upper_half(images: Tensor) -> Tensor:  # shape: (N, 1, H, W)
    """Images whose lower half is background."""
    masked = images.clone()
    masked[..., images.shape[-2] // 2 :, :] = 0
    return masked


def conditionals(
    completer: Completer,
    contexts: Tensor,  # shape: (N, d)
    targets: Tensor,  # shape: (N, d)
    held_out: tuple[Tensor, Tensor],  # shapes: (M, d), (M, d)
    *,
    seed: int,
) -> dict[str, Conditional]:
    """What a trained model says of the target given the context, by the name of the density.

    Args:
        completer: The model, on the CPU in evaluation mode.
        contexts: Embeddings of some training images' halves.
        targets: Those of the whole.
        held_out: Both of images that the model was not trained on, for calibration.
        seed: Of a fit by EM.
    """
    contexts, targets = contexts.double(), targets.double()

    def fitted(kind: Any, num_components: int, **options: Any) -> Any:
        generator = torch.Generator().manual_seed(seed)
        return kind.fit(
            contexts, targets, num_components, max_steps=_STEPS, generator=generator, **options
        )

    def student_t(num_components: int) -> Conditional:
        density = fitted(JointStudentTMixture, num_components, coupling="independent")
        condition: Conditional = density.calibrated(*held_out).condition
        return condition

    head: Any = completer.prediction_head
    criterion: Any = completer.criterion
    match completer.kind:
        case "jepa":
            # The error of the point prediction makes it a density to compare with.
            points = normalize(head(contexts.float()), dim=1)
            scale = float((points - targets).square().mean().sqrt())
            return {"jepa": lambda z: Independent(Normal(normalize(head(z), dim=1), scale), 1)}
        case "mdn":
            return {"mdn": head}
        case "gje":
            gaussian = JointGaussian.fit(contexts, targets)
            return {"gje": gaussian.condition, "gje_t": student_t(1)}
        case _:
            return {
                "gmje": criterion.mixture().condition,
                "gmje_em": fitted(JointGaussianMixture, _COMPONENTS).condition,
                "gmje_t": student_t(_COMPONENTS),
            }


@torch.no_grad()
def complete(
    phases: Phases, row: TrainedRow, evaluator: GenerationEvaluator, kind: str
) -> dict[str, Any]:
    """Trains a model on a row's embeddings and measures what it says of test images.

    Args:
        phases: Of the run; what is drawn in the end is left in its folder.
        row: The target encoder and its decoder.
        evaluator: Names what the decoder makes of modes.
        kind: One of ``KINDS``.

    Returns:
        For each density ``nll`` (nats, mean over test images), the coverage of its regions, at
        some levels by name and as a curve over ``measures.CURVE`` (``calibration``),
        ``best_of``, the share of images whose class is among those of its 1, ..., 5 likeliest modes
        decoded, and for comparison ``top_of_first``, the share whose class is among the 1, ..., 5
        that the classifier finds likeliest of the first mode.
    """
    seed, experiment = phases.settings.seed, phases.experiment
    with seeded(seed):
        completer = Completer(
            training.build_backbone(phases.settings, phases.data),
            row.train,
            kind,
            num_prototypes=experiment.num_components,
        )
    with torch.enable_grad():
        phases.fit(completer, f"completion/{kind}", epochs=experiment.completion_epochs)
    completer.cpu().eval()  # densities are evaluated where their draws can be repeated
    # At least every other test image is left for calibration.
    some = evenly_spaced(len(evaluator.test), min(_MEASURED, len(evaluator.test) // 2))
    others = torch.ones(len(evaluator.test), dtype=torch.bool)
    others[some] = False
    (images, labels, _), targets = evaluator.test[some], row.test[some]
    contexts = completer.embed(images)
    fitted = evenly_spaced(len(evaluator.train), _FITTED)
    known = completer.embed(evaluator.train.images[fitted]), row.train[fitted]
    held_out = completer.embed(evaluator.test.images[others]), row.test[others]
    indices = most_ambiguous(images, evaluator.train)[:_SHOWN]
    shown: dict[str, Tensor] = {}
    if kind == KINDS[0]:
        shown["upper half"] = upper_half(images[indices])
        shown["whole"] = images[indices]
        shown["whole, decoded"] = row.decoder.decode(targets[indices])
    found: dict[str, Any] = {}
    for name, condition in conditionals(completer, *known, held_out, seed=seed).items():
        found[name], classes = _measure(
            condition, contexts, targets, row.decoder, evaluator, seed=seed
        )
        hits = classes.argmax(dim=2), classes[0].topk(MODES).indices.T
        best_of, top_of_first = (measures.best_of(hit, labels.cpu()) for hit in hits)
        found[name] |= {"best_of": best_of, "top_of_first": top_of_first}
        modes = measures.modes(condition(contexts[indices]), _SHOWN_MODES, seed=seed)
        for number, mode in enumerate(modes[: 1 if name == "jepa" else None], 1):
            shown[f"{COMPLETIONS[name]}, {number}"] = row.decoder.decode(mode)
    images_by_row = {name: row.cpu() for name, row in shown.items()}
    write_tensors(shown_file(phases.folder.path, kind), images_by_row)
    return found


def shown_file(folder: Path, kind: str) -> Path:
    """Where a run keeps the images that a model's figure shows, by the names of their rows."""
    return folder / "completion" / f"{kind}.pt"


def most_ambiguous(
    images: Tensor,  # shape: (N, 1, H, W)
    train: ImageSet,
) -> Tensor:  # shape: (_CANDIDATES or fewer,)
    """Places of some images, first those whose upper half tells least of the class.

    That is where the nearest 50 upper halves of training images agree least.
    """
    indices = evenly_spaced(len(images), _CANDIDATES)
    halves, known = (
        to_signed(upper_half(some)).flatten(1).cpu() for some in (images[indices], train.images)
    )
    _, alike = nearest_distances(halves, known, min(_NEIGHBOURS, len(known)))
    votes = one_hot(train.labels.cpu()[alike]).sum(dim=1)
    return indices[votes.max(dim=1).values.argsort(stable=True)]


def _measure(
    condition: Conditional,
    contexts: Tensor,  # shape: (N, d)
    targets: Tensor,  # shape: (N, d)
    decoder: Decoder,
    evaluator: GenerationEvaluator,
    *,
    seed: int,
) -> tuple[dict[str, Any], Tensor]:  # shapes: -, (MODES, N, num_classes)
    """Likelihood and calibration, and the classifier's probabilities of the modes."""
    log_probs, classes = [], []
    for z_c, z_t in zip(*(torch.split(part, _CHUNK) for part in (contexts, targets)), strict=True):
        given = condition(z_c)
        log_probs.append(given.log_prob(z_t))
        modes = measures.modes(given, MODES, seed=seed)
        classes.append(
            torch.stack([evaluator.classifier.classify(decoder.decode(z))[1] for z in modes])
        )
    some = torch.split(evenly_spaced(len(contexts), _CALIBRATED), _DRAWN_AT_ONCE)
    ranks = [
        measures.ranks(condition(contexts[few]), targets[few], seed=seed + number)
        for number, few in enumerate(some)
    ]
    metrics = {
        "nll": -float(torch.cat(log_probs).mean()),
        **measures.coverage(torch.cat(ranks).cpu()),
        "calibration": measures.calibration(torch.cat(ranks).cpu()),
    }
    return metrics, torch.cat(classes, dim=1)
