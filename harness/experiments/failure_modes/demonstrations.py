"""What goes wrong with each objective, and what helps: small enough to watch, a function a case.

Embeddings are free vectors, or those of a linear encoder or a small head, so that only the
objective acts; plain steps go down the paper's whole nats, DIM times the losses. Each demonstration
is a function of a seed alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.distributions import Independent, Normal
from torch.nn.functional import cosine_similarity, normalize
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from gmje_plugin import (
    GJEDualLoss,
    GJEEntropyLoss,
    GJENLLLoss,
    GMJEMDNHead,
    GMJEMDNLoss,
    JointSMCLoss,
    SMCMemoryBankModule,
)
from harness.figures.failure_modes import Curves, Demonstration
from harness.keyed_random import seeded

ROWS, DIM = 256, 8  # of the free vectors
ROW_RATE = 0.02 * ROWS  # learning rate of free vectors, whose losses are means over the rows


def trace_trap(seed: int) -> Demonstration:
    """The data fit has no gradient where S is the batch's own moment (Huang 2026, Eq. 122-127)."""
    return Demonstration(
        "Trace trap",
        "gradient norm of the data fit",
        failure={"covariance of the batch": _data_fit_gradients("batch", seed)},
        remedy={
            "moving average": _data_fit_gradients("ema", seed),
            "learned": _data_fit_gradients("learned", seed),
        },
        logarithmic=True,
    )


def log_det_cheat(seed: int) -> Demonstration:
    """A covariance that can follow lets the likelihood shrink everything (App. O.4)."""

    def norms(criterion: torch.nn.Module) -> list[float]:
        z = _normal(2, ROWS, DIM, seed=seed).requires_grad_()
        # Plain steps, as Adam's would shrink some directions first and wait for the others.
        optimizer = SGD([z], lr=ROW_RATE)
        for parameter in criterion.parameters():
            optimizer.add_param_group({"params": [parameter], "lr": 0.005})
        return _descend(optimizer, lambda: (DIM * criterion(*z), _mean_norm(z)), steps=300)

    return Demonstration(
        "Log-determinant cheat",
        "mean norm of the embeddings",
        failure={"GJENLLLoss, learned": norms(GJENLLLoss(DIM, covariance="learned"))},
        remedy={"GJEEntropyLoss": norms(GJEEntropyLoss())},
        logarithmic=True,
    )


def dual_collapse(seed: int) -> Demonstration:
    """A gradient through the targets takes them and then the contexts away (App. E).

    The targets shrink from the first step on, the contexts hold out and then fall to a constant.
    The paper's remedy, targets of a moving average without a gradient, follows the contexts all
    the way down; targets that hold still do not let them go.
    """
    symmetric = _dual(None, seed)
    return Demonstration(
        "Symmetric dual collapse",
        "share of the start",
        failure={f"{name}, symmetric": values for name, values in symmetric.items()},
        remedy={
            "contexts, targets held still": _dual(1.0, seed)["contexts"],
            "contexts, EMA targets (App. E)": _dual(0.99, seed)["contexts"],
        },
    )


def entropy_drift(seed: int) -> Demonstration:
    """The joint entropy alone makes the views of an image independent (App. G and O.3)."""

    def similarity(criterion: torch.nn.Module) -> list[float]:
        image, noise = _normal(2, ROWS, DIM, seed=seed)
        views = torch.stack([image, image + 0.3 * noise]).requires_grad_()

        def evaluate() -> tuple[Tensor, float]:
            one, other = views
            return criterion(one, other), cosine_similarity(one, other, dim=1).mean().item()

        return _descend(Adam([views], lr=0.01), evaluate, steps=300)

    return Demonstration(
        "Joint-entropy drift",
        "cosine between the views",
        # The weight leaves nothing of the alignment.
        failure={"joint entropy alone": similarity(GJEEntropyLoss(1e3, covariance="joint"))},
        remedy={"alignment + entropies": similarity(GJEEntropyLoss())},
    )


def identity_collapse(seed: int) -> Demonstration:
    """A density of the target that sees the target copies it (App. M).

    The target is one of three values, whatever the context is, with a noise of 0.05.
    """
    noise = 0.05
    context, residual = _normal(2, ROWS, 1, seed=seed)
    branch = torch.randint(3, (ROWS, 1), generator=_generator(seed, 1))
    target = branch - 1.0 + noise * residual

    def deviations(inputs: Tensor) -> list[float]:
        with seeded(seed):
            head = GMJEMDNHead(inputs.shape[1], 32, 1, scale="exp")  # as printed, unbounded
        criterion = GMJEMDNLoss(guard=None)

        def evaluate() -> tuple[Tensor, float]:
            predicted = head(inputs)
            deviations = predicted.component_distribution.stddev[..., 0]
            mean = (predicted.mixture_distribution.probs * deviations).sum(dim=1).mean()
            return criterion(predicted, target), float(mean.detach())

        return _descend(Adam(head.parameters(), lr=0.002), evaluate, steps=500)

    return Demonstration(
        "Identity collapse",
        f"deviation predicted (noise: {noise})",
        failure={"head sees the target": deviations(torch.cat([context, target], dim=1))},
        remedy={"head sees the context": deviations(context)},
        logarithmic=True,
    )


def printed_guard(seed: int) -> Demonstration:
    """The guard on the context as Eq. 23 prints it pulls the context to the origin."""

    def norms(guard: str) -> list[float]:
        context = _normal(ROWS, DIM, seed=seed).requires_grad_()
        criterion = GMJEMDNLoss(DIM, guard=guard, momentum=0.99)
        target = torch.zeros(ROWS, 1)
        # A fixed density: the context feels the guard alone.
        density = Independent(Normal(target, torch.ones_like(target)), 1)
        density.context = context  # type: ignore[attr-defined]
        return _descend(
            SGD([context], lr=ROW_RATE),
            lambda: (criterion(density, target), _mean_norm(context)),
            steps=200,
        )

    return Demonstration(
        "The guard of Eq. 23 as printed",
        "mean norm of the context",
        failure={'guard="marginal"': norms("marginal")},
        remedy={'guard="entropy"': norms("entropy")},
        logarithmic=True,
    )


def joint_smc_own_terms(seed: int) -> Demonstration:
    """A pair that weighs itself outweighs every particle (Algorithm 6 to the letter)."""
    particles, batch = 256, 64

    def fresh(*, count_own_query: bool) -> list[float]:
        criterion = JointSMCLoss(
            DIM,
            particles,
            resampling="multinomial",
            ess_threshold=None,
            count_own_query=count_own_query,
            seed=seed,
        )
        shares = []
        for step in range(54):
            image = _normal(batch, DIM, seed=seed, stream=2 * step)
            noise = _normal(2, batch, DIM, seed=seed, stream=2 * step + 1)
            views = normalize(image + 0.3 * noise, dim=2)
            criterion(*views)
            joint = torch.cat([*views], dim=1)
            found = (criterion.particles[:, None] == joint).all(dim=2).any(dim=1)
            shares.append(found.double().mean().item())
        return shares[particles // batch :]  # from a full bank on

    return Demonstration(
        "Joint SMC: own terms",
        "share of the last batch",
        failure={"own terms counted": fresh(count_own_query=True)},
        remedy={"left out": fresh(count_own_query=False)},
    )


def particle_clones(seed: int) -> Demonstration:
    """Resampling with replacement at every step fills the bank with copies (Algorithm 2)."""
    size, batch = 1024, 64

    def distinct(bank: SMCMemoryBankModule) -> list[float]:
        classes = _normal(10, 16, seed=seed)
        shares = []
        for step in range(size // batch + 100):
            labels = torch.randint(10, (batch,), generator=_generator(seed, 2 * step))
            noise = _normal(batch, 16, seed=seed, stream=2 * step + 1)
            bank.update(normalize(classes[labels] + noise, dim=1))
            shares.append(bank.diagnostics()["unique_fraction"].item())
        return shares[size // batch - 1 :]  # from a full bank on

    return Demonstration(
        "Particle clones",
        "distinct share of the bank",
        failure={"Algorithm 2": distinct(SMCMemoryBankModule.paper((size, 16), seed=seed))},
        remedy={"default": distinct(SMCMemoryBankModule((size, 16), seed=seed))},
    )


DEMONSTRATIONS: dict[str, Callable[[int], Demonstration]] = {
    demonstrate.__name__: demonstrate
    for demonstrate in (
        trace_trap,
        log_det_cheat,
        dual_collapse,
        entropy_drift,
        identity_collapse,
        printed_guard,
        joint_smc_own_terms,
        particle_clones,
    )
}


def _descend(
    optimizer: Optimizer, evaluate: Callable[[], tuple[Tensor, float]], *, steps: int
) -> list[float]:
    """Minimises a loss; what is measured beside it before every step."""
    measured = []
    for _ in range(steps):
        loss, value = evaluate()
        measured.append(value)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return measured


def _data_fit_gradients(covariance: str, seed: int) -> list[float]:
    """For batch after batch of fixed embeddings, the norm of the data fit's gradient to them."""
    criterion = GJENLLLoss(DIM, covariance=covariance)
    mixing = torch.eye(2 * DIM) + 0.1 * _normal(2 * DIM, 2 * DIM, seed=seed)
    history, norms = None, []
    for step in range(1, 51):
        z = _normal(ROWS, 2 * DIM, seed=seed, stream=step) @ mixing
        z = z.double().requires_grad_()
        data_fit = DIM * criterion(z[:, :DIM], z[:, DIM:])
        if covariance != "learned":  # the log-determinant, of which the loss is the sum with it
            moment = z.mT @ z / ROWS
            if covariance == "ema":
                history = moment.detach() if history is None else history
                moment = criterion.momentum * history + (1.0 - criterion.momentum) * moment
            history = moment.detach()
            data_fit = data_fit - 0.5 * torch.logdet(moment)
        (gradient,) = torch.autograd.grad(data_fit, z)
        norms.append(gradient.norm().item())
    return norms


def _dual(momentum: float | None, seed: int) -> Curves:
    """The dual loss with two linear encoders that start alike.

    Args:
        momentum: Of the target encoder, a moving average of the context encoder without a gradient;
            1 holds it still. None: it is trained too.
        seed: Of images, views and encoders.

    Returns:
        Over the steps, the mean distance between contexts and the mean norm of targets, each as a
        share of its start.
    """
    rows, steps = 64, 600
    image = DIM**0.5 * normalize(_normal(rows, DIM, seed=seed), dim=1)
    views = image + 0.1 * _normal(2, rows, DIM, seed=seed, stream=1)
    start = torch.linalg.qr(_normal(DIM, DIM, seed=seed, stream=2)).Q / DIM**0.5
    context, target = start.clone().requires_grad_(), start.clone()
    if momentum is None:
        target.requires_grad_()
    # A length-scale at which the contexts are far apart at first.
    criterion = GJEDualLoss(length_scale=0.27, noise=0.2)
    # Plain steps: Adam would give both encoders the same speed.
    trained = [each for each in (context, target) if each.requires_grad]
    optimizer = SGD(trained, lr=0.006)
    schedule = CosineAnnealingLR(optimizer, steps)
    measured = []
    for _ in range(steps):
        z_c, z_t = views[0] @ context, views[1] @ target
        with torch.no_grad():
            measured.append((torch.pdist(z_c).mean().item(), _mean_norm(z_t)))
        optimizer.zero_grad()
        (DIM * criterion(z_c, z_t)).backward()
        optimizer.step()
        schedule.step()
        if momentum is not None:
            target = momentum * target + (1.0 - momentum) * context.detach()
    contexts, targets = zip(*measured, strict=True)
    return {
        "contexts": [value / contexts[0] for value in contexts],
        "targets": [value / targets[0] for value in targets],
    }


def _mean_norm(z: Tensor) -> float:
    return float(torch.linalg.vector_norm(z.detach(), dim=-1).mean())


def _normal(*shape: int, seed: int, stream: int = 0) -> Tensor:
    return torch.randn(*shape, generator=_generator(seed, stream))


def _generator(seed: int, stream: int) -> Generator:
    """Streams of neighbouring seeds are apart."""
    return Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + stream) % 2**63)
