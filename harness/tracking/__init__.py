"""Run folders, curves and provenance."""

from harness.tracking.environment import commit as commit
from harness.tracking.environment import cores as cores
from harness.tracking.environment import provenance as provenance
from harness.tracking.folder import CHECKPOINT as CHECKPOINT
from harness.tracking.folder import CONFIG as CONFIG
from harness.tracking.folder import METRICS_FILE as METRICS_FILE
from harness.tracking.folder import RESULTS as RESULTS
from harness.tracking.folder import RunFolder as RunFolder
from harness.tracking.folder import folder_name as folder_name
from harness.tracking.folder import leaves as leaves
from harness.tracking.loggers import check_logger as check_logger
from harness.tracking.loggers import curve_loggers as curve_loggers
from harness.tracking.metrics import MetricsFile as MetricsFile
from harness.tracking.metrics import MetricsRow as MetricsRow
from harness.tracking.metrics import curve as curve
from harness.tracking.metrics import read_metrics as read_metrics
