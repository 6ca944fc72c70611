"""Records -> one self-contained HTML page, metrics.json and runs.csv."""

from hptransfer.report.metrics import metrics_json, runs_table
from hptransfer.report.render import render
from hptransfer.report.section import Section

__all__ = ["Section", "metrics_json", "render", "runs_table"]
