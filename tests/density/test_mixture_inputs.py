"""Dtypes, and parameters and arguments that are refused."""

import math

import pytest
import torch
from torch import nn

from gmje_plugin.density import JointGaussianMixture
from tests.density.mixtures import COMPONENTS, DIM, SPLIT, parameters
from tests.density.points import points

EYE = torch.eye(3)


def test_dtype_is_the_widest_given() -> None:
    weights, means, covariances = (value.bfloat16() for value in parameters("isotropic"))
    weights = torch.full((COMPONENTS,), 1 / COMPONENTS)
    density = JointGaussianMixture(weights, means, covariances, SPLIT)
    z = points(2, DIM)
    assert density.log_prob(z.half()).dtype == torch.float32
    assert density.condition(z[:, :SPLIT]).log_prob(z[:, SPLIT:].float()).dtype == torch.float32
    density = JointGaussianMixture(weights.double(), means, covariances, SPLIT)
    assert density.log_prob(z.float()).dtype == torch.float64


@pytest.mark.parametrize(
    ("match", "change"),
    [
        ("weights must be at least 0 and sum to 1", {"weights": torch.tensor([0.5, 0.49])}),
        ("weights must be at least 0 and sum to 1", {"weights": torch.tensor([1.5, -0.5])}),
        ("weights must be at least 0 and sum to 1", {"weights": torch.tensor([math.nan, 1.0])}),
        (r"weights must have shape \(2,\)", {"weights": torch.ones(1)}),
        ("weights must be a floating tensor", {"weights": [0.5, 0.5]}),
        ("weights must be a floating tensor", {"weights": torch.tensor([1, 0])}),
        (r"means must be a tensor of shape \(K, D\), got \(3,\)", {"means": torch.zeros(3)}),
        ("means must be a tensor", {"means": [[0.0, 0.0, 0.0]] * 2}),
        ("means must be finite", {"means": torch.full((2, 3), math.inf)}),
        (r"covariances must have shape \(2, 3, 3\) \(full\)", {"covariances": torch.eye(3)}),
        ("covariances must be positive", {"covariances": torch.tensor([1.0, 0.0])}),
        ("covariances must be symmetric", {"covariances": torch.ones(2, 3, 3).tril()}),
        (
            "covariance must be positive semi-definite",
            {"covariances": -torch.eye(3).repeat(2, 1, 1)},
        ),
        (r"or with 1 for a batch dimension if all share it, got \(3, 3\)", {"covariances": EYE}),
        (r"\(2, 3, 3\) \(full\), or with 1", {"covariances": None, "scale_tril": EYE}),
        ("scale_tril must be lower", {"covariances": None, "scale_tril": -EYE.repeat(2, 1, 1)}),
        ("one of covariances and scale_tril must be given, got both", {"scale_tril": EYE[None]}),
        ("one of covariances and scale_tril must be given, got neither", {"covariances": None}),
        ("split must be below the 3 dimensions", {"split": 3}),
        ("split must be an integer of at least 1", {"split": -1}),
    ],
)
def test_bad_parameters(match: str, change: dict[str, object]) -> None:
    arguments = {
        "weights": torch.tensor([0.5, 0.5]),
        "means": torch.zeros(2, 3),
        "covariances": torch.ones(2),
        "split": 1,
    }
    JointGaussianMixture(**arguments)
    with pytest.raises(ValueError, match=match):
        JointGaussianMixture(**{**arguments, **change})


def test_bad_arguments_of_methods() -> None:
    density = JointGaussianMixture(torch.ones(1), torch.zeros(1, 3), torch.ones(1), split=1)
    larger = JointGaussianMixture(torch.ones(1), torch.zeros(1, 4), torch.ones(1), split=1)
    for match, call in (
        ("z must be a tensor of shape", lambda: density.log_prob(torch.zeros(2, 4))),
        ("z_c must be a tensor of shape", lambda: density.condition(torch.zeros(2, 3))),
        ("view must be one of", lambda: density.marginal("both")),
        ("other must be a JointGaussian", lambda: density.kl(nn.Identity())),
        ("other must have 3 dimensions, got 4", lambda: density.kl(larger)),
        ("num_samples must be an integer", lambda: density.entropy(num_samples=0)),
    ):
        with pytest.raises(ValueError, match=match):
            call()
