"""`fastweights export`."""

from __future__ import annotations

import argparse

from fastweights.cli.evaluate import add_loading_options
from fastweights.cli.parser import Parser, path


def add_options(parser: Parser) -> None:
    """The run folder and the folder to write."""
    parser.usage = "fastweights export RUN --out FOLDER [options]"
    parser.epilog = (
        "`import fastweights.hf`, and `transformers.AutoModelForCausalLM.from_pretrained(FOLDER)` "
        "loads it. Needs the extra `hf`."
    )
    parser.add_argument("run_folder", type=path, metavar="RUN", help="run folder of a text run")
    parser.add_argument(
        "--out", type=path, required=True, metavar="FOLDER", help="new or empty folder"
    )
    add_loading_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the folder; print what is in it."""
    out = arguments.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: is not a new or empty folder")
    try:
        from fastweights import hf
    except ImportError as error:
        raise ValueError(str(error)) from None
    model, tokenizer = hf.from_run(arguments.run_folder, arguments.checkpoint, arguments.device)
    converted = hf.tokenizer_for(tokenizer)
    model.save_pretrained(out)
    converted.save_pretrained(out)
    for file in sorted(out.iterdir()):
        print(file)
    return 0
