"""Models of the joint density of context and target embeddings."""

from gmje_plugin.density.gaussian import JointGaussian
from gmje_plugin.density.mixture import JointGaussianMixture, MonteCarloEstimate

__all__ = ["JointGaussian", "JointGaussianMixture", "MonteCarloEstimate"]
