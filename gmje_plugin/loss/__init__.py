"""Losses that replace parts of ``lightly.loss``."""
