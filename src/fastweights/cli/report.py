"""`fastweights report`."""

from __future__ import annotations

import argparse

from fastweights.cli.parser import Parser, path


def add_options(parser: Parser) -> None:
    """The folder with the runs, the folder for the report."""
    parser.usage = "fastweights report FOLDER [--out OUT]"
    parser.add_argument("folder", type=path, metavar="FOLDER", help="study folder or run folder")
    parser.add_argument(
        "--out", type=path, metavar="OUT", help="folder for the report (default: FOLDER)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the report; print the accuracy by length and where the files are."""
    from rich.console import Console

    from fastweights.report import build_report, length_table

    page = build_report(arguments.folder, arguments.out)
    console = Console(highlight=False)
    console.print(length_table(arguments.folder))
    plots = sorted(path.name for path in page.parent.glob("*.png"))
    for line in (f"report: {page}", f"plots:  {page.parent} ({', '.join(plots) or 'none'})"):
        console.print(line, markup=False, soft_wrap=True)
    return 0
