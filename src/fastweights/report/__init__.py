"""Reports of study and run folders: Markdown, JSON and PNG, made without torch."""

from fastweights.report.build import build_report
from fastweights.report.runs import Run, read_runs
from fastweights.report.terminal import length_table

__all__ = ["Run", "build_report", "length_table", "read_runs"]
