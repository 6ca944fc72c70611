"""Records -> one self-contained HTML page, metrics.json and runs.csv."""

from hptransfer.report.render import Section, metrics_json, render, runs_table

__all__ = ["Section", "metrics_json", "render", "runs_table"]
