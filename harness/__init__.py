"""Replays the experiments of Huang 2026 with gmje_plugin: ``python -m harness``."""
