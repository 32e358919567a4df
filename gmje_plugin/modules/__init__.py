"""Modules that replace parts of ``lightly.models.modules``."""
