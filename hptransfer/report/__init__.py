"""Records -> one self-contained HTML page, metrics.json and runs.csv."""

from hptransfer.report.metrics import metrics_json
from hptransfer.report.render import render
from hptransfer.report.runs_csv import runs_table
from hptransfer.report.section import Section

__all__ = ["Section", "metrics_json", "render", "runs_table"]
