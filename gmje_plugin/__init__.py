"""Gaussian (Mixture) Joint Embeddings for lightly (Huang 2026, arXiv 2603.26799)."""

__version__ = "0.1.0"
