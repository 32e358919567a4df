"""Parameters and arguments that are refused."""

import math

import pytest
import torch
from torch import nn

from gmje_plugin.density import JointGaussian
from tests.density.points import points

EYE = torch.eye(3)


@pytest.mark.parametrize(
    ("match", "change"),
    [
        ("mean must be a floating tensor", {"mean": [0.0, 0.0, 0.0]}),
        ("mean must be a floating tensor", {"mean": torch.zeros(3, dtype=torch.int64)}),
        ("mean must have a last dimension of at least 2", {"mean": torch.zeros(())}),
        ("mean must have a last dimension of at least 2", {"mean": torch.zeros(1)}),
        ("mean must be finite", {"mean": torch.tensor([0.0, math.nan, 0.0])}),
        ("covariance must be a floating tensor", {"covariance": 1.0}),
        (r"covariance must have shape \(3, 3\) \(full\)", {"covariance": torch.eye(4)}),
        ("covariance must have shape", {"covariance": torch.ones(3, 1)}),
        ("covariance must be finite", {"covariance": EYE * math.inf}),
        ("covariance must be symmetric", {"covariance": EYE + EYE.roll(1, dims=0)}),
        ("covariance must be symmetric", {"covariance": EYE + 1e-3 * EYE.roll(1, dims=0)}),
        ("covariance must be symmetric", {"covariance": 1e-6 * (EYE + EYE.roll(1, dims=0))}),
        ("covariance must be positive semi-definite", {"covariance": -EYE}),
        ("covariance must be positive, got 0.0", {"covariance": torch.tensor([1.0, 0.0, 1.0])}),
        ("covariance must be positive, got -1.0", {"covariance": torch.tensor(-1.0)}),
        ("one of covariance and scale_tril must be given, got both", {"scale_tril": EYE}),
        ("one of covariance and scale_tril must be given, got neither", {"covariance": None}),
        ("split must be below the 3 dimensions, got 3", {"split": 3}),
        ("split must be below the 3 dimensions, got None", {"split": None}),
        ("split must be an integer of at least 1, got 0", {"split": 0}),
        ("split must be an integer", {"split": 1.0}),
    ],
)
def test_bad_parameters(match: str, change: dict[str, object]) -> None:
    arguments = {"mean": torch.zeros(3), "covariance": EYE, "split": 1}
    JointGaussian(**arguments)
    with pytest.raises(ValueError, match=match):
        JointGaussian(**{**arguments, **change})


@pytest.mark.parametrize(
    ("match", "factor"),
    [
        ("scale_tril must be a floating tensor", [[1.0]]),
        (r"scale_tril must have shape \(3, 3\) \(full\), got \(3,\)", torch.ones(3)),
        ("scale_tril must be finite", EYE * math.nan),
        ("scale_tril must be lower triangular", EYE + EYE.roll(1, dims=1)),
        ("scale_tril must be lower triangular with a positive diagonal", -EYE),
        ("with a positive diagonal", torch.tensor([1.0, 0.0, 1.0]).diag()),
    ],
)
def test_bad_factors(match: str, factor: object) -> None:
    with pytest.raises(ValueError, match=match):
        JointGaussian(torch.zeros(3), split=1, scale_tril=factor)


def test_values_are_not_read_without_validation() -> None:
    density = JointGaussian(torch.zeros(3), torch.tensor(-1.0), 1, validate_args=False)
    assert density.log_prob(torch.zeros(3)).isnan()
    density = JointGaussian(torch.zeros(3), EYE * math.nan, 1, validate_args=False)
    assert density.log_prob(torch.zeros(3)).isnan()
    JointGaussian(torch.zeros(3), split=1, scale_tril=EYE * math.nan, validate_args=False)


def test_a_divergence_has_the_wider_dtype() -> None:
    narrow = JointGaussian(torch.zeros(3), EYE, 1)
    wide = JointGaussian(torch.ones(3).double(), 2 * EYE.double(), 1)
    assert narrow.kl(wide).dtype == wide.kl(narrow).dtype == torch.float64


def test_bad_arguments_of_methods() -> None:
    density = JointGaussian(torch.zeros(3), EYE, split=1)
    for match, call in (
        (
            r"z must be a tensor of shape \(\.\.\., 3\), got \(2, 4\)",
            lambda: density.log_prob(torch.zeros(2, 4)),
        ),
        ("z must be a tensor", lambda: density.log_prob(torch.zeros(()))),
        ("z must be a tensor", lambda: density.log_prob([0.0, 0.0, 0.0])),
        ("z_c must be", lambda: density.condition(torch.zeros(2, 3))),
        ("z_c must be", lambda: density.moments(torch.zeros(2, 3))),
        ("view must be one of context, target, got 'both'", lambda: density.marginal("both")),
        ("other must be a JointGaussian", lambda: density.kl(nn.Identity())),
        (
            "other must have 3 dimensions, got 4",
            lambda: density.kl(JointGaussian(torch.zeros(4), torch.eye(4), 1)),
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_bad_fits() -> None:
    z = points(6, 2)
    for match, z_c, z_t, options in (
        ("z_c must be finite", z / 0, z, {}),
        ("z_t must be finite", z, torch.full((6, 2), math.nan), {}),
        ("z_c and z_t must have the same number of rows, at least 2, got 6 and 5", z, z[:5], {}),
        ("at least 2, got 1 and 1", z[:1], z[:1], {}),
        ("z_t must have shape", z, z[0], {}),
        ("covariance must be one of", z, z, {"covariance": "spherical"}),
        ("covariance must be positive", z, 0 * z, {"covariance": "diagonal"}),
    ):
        with pytest.raises(ValueError, match=match):
            JointGaussian.fit(z_c, z_t, **options)
