"""The multivariate t against SciPy's."""

import math

import numpy as np
import torch
from scipy.stats import multivariate_t

from gmje_plugin.density.multivariate_t import MultivariateStudentT, heavy_tails
from tests.density.points import close, points
from tests.density.student_ts import (
    DIM,
    parameters,
)


class TestMultivariateStudentT:
    def test_log_prob_is_scipys(self) -> None:
        given = parameters("joint")
        spread = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
        factor = torch.linalg.cholesky(given["scales"])
        found = MultivariateStudentT(given["df"], given["means"], factor, spread)
        z = points(2, 5, 1, DIM)
        expected = np.stack(
            [
                multivariate_t(mean, scale * s**2, df=df).logpdf(z[:, :, 0])
                for mean, scale, s, df in zip(
                    *(part.numpy() for part in (given["means"], given["scales"], spread)),
                    given["df"].numpy(),
                    strict=True,
                )
            ],
            axis=-1,
        )
        close(found.log_prob(z), expected)

    def test_draws_have_its_moments(self) -> None:
        # 40,000 draws of 8 degrees of freedom, seed 0, within 5 standard errors by the draws' own
        # spread: fails with probability below 1e-5 if the seed is changed.
        factor = torch.tensor([[1.0, 0.0], [0.5, 2.0]], dtype=torch.float64)
        loc, df = torch.tensor([1.0, -1.0], dtype=torch.float64), torch.tensor(8.0)
        found = MultivariateStudentT(df.double(), loc, factor, torch.tensor(0.5).double())
        torch.manual_seed(0)
        z = found.sample(torch.Size([40_000]))
        for draws, expected in ((z, found.mean), ((z - loc).square(), found.variance)):
            error = draws.std(dim=0) / math.sqrt(len(z))
            assert ((draws.mean(dim=0) - expected).abs() < 5 * error).all()

    def test_moments_that_do_not_exist(self) -> None:
        df = torch.tensor([1.0, 1.5, 2.0, 3.0])
        found = MultivariateStudentT(df, torch.zeros(4, 2), torch.eye(2))
        assert found.mean.isnan().any(dim=1).tolist() == [True, False, False, False]
        expected = torch.tensor([math.nan, math.inf, math.inf, 3.0])
        torch.testing.assert_close(found.variance[:, 0], expected, equal_nan=True)

    def test_draws_are_a_function_of_the_generator(self) -> None:
        draws = [
            heavy_tails(torch.tensor([3.0, 5.0]), torch.Generator().manual_seed(0)) for _ in "12"
        ]
        assert torch.equal(*draws)

    def test_expands_as_torchs_distributions_do(self) -> None:
        given = parameters("joint")
        factor = torch.linalg.cholesky(given["scales"])
        found = MultivariateStudentT(given["df"], given["means"], factor)
        z = points(5, 1, DIM)
        assert torch.equal(found.expand([5, 3]).log_prob(z), found.log_prob(z))
        one = MultivariateStudentT(given["df"][:1], given["means"][:1], factor[:1])
        close(one.expand([3]).log_prob(z), one.log_prob(z).expand(5, 3))
        assert one.expand([3]).rsample().shape == (3, DIM)
