"""Run folders, curves and provenance."""

from harness.tracking.environment import commit, provenance
from harness.tracking.folder import (
    CHECKPOINT,
    CONFIG,
    METRICS_FILE,
    RESULTS,
    RunFolder,
    folder_name,
    leaves,
)
from harness.tracking.loggers import check_logger, curve_loggers
from harness.tracking.metrics import MetricsFile, MetricsRow, curve, read_metrics
from harness.tracking.summary import log_summary

__all__ = [
    "CHECKPOINT",
    "CONFIG",
    "METRICS_FILE",
    "RESULTS",
    "MetricsFile",
    "MetricsRow",
    "RunFolder",
    "check_logger",
    "commit",
    "curve",
    "curve_loggers",
    "folder_name",
    "leaves",
    "log_summary",
    "provenance",
    "read_metrics",
]
