"""Models of the joint density of context and target embeddings."""

from gmje_plugin.density.gaussian import JointGaussian
from gmje_plugin.density.mixture import JointGaussianMixture
from gmje_plugin.density.monte_carlo import MonteCarloEstimate
from gmje_plugin.density.neural_gas import GrowingNeuralGas
from gmje_plugin.density.student_t import JointStudentTMixture

__all__ = [
    "GrowingNeuralGas",
    "JointGaussian",
    "JointGaussianMixture",
    "JointStudentTMixture",
    "MonteCarloEstimate",
]
