"""Reports of study and run folders: Markdown, JSON and PNG, made without torch."""

from fastweights.report.build import build_report
from fastweights.report.length_table import length_table
from fastweights.report.runs import Run, read_runs

__all__ = ["Run", "build_report", "length_table", "read_runs"]
