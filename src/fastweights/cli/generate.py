"""`fastweights generate`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, cast

from fastweights.cli.evaluate import add_loading_options
from fastweights.cli.parser import Parser, path
from fastweights.cli.predict import standard_input

if TYPE_CHECKING:
    import torch

    from fastweights.evaluate import LoadedModel
    from fastweights.tasks.text.tokenizer import Tokenizer


def add_options(parser: Parser) -> None:
    """The run folder, the prompt, how tokens are drawn."""
    parser.usage = "fastweights generate RUN [--prompt TEXT] [options]"
    parser.epilog = "Writing ends behind a document, after --max-tokens, or on Ctrl-C."
    parser.add_argument("run_folder", type=path, metavar="RUN", help="run folder of a text run")
    parser.add_argument(
        "--prompt",
        metavar="TEXT",
        help="what the text begins with (default: standard input, if it is no terminal; else the "
        "beginning of a document)",
    )
    parser.add_argument(
        "--max-tokens", type=int, default=256, metavar="N", help="at most (default: 256)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        metavar="X",
        help="below 1: likely tokens more often; 0: the likeliest always (default: 1)",
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="the K likeliest tokens only")
    parser.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="the fewest likeliest tokens only whose probabilities add up to P",
    )
    parser.add_argument(
        "--seed", type=int, metavar="S", help="of the draws (default: another one every time)"
    )
    parser.add_argument(
        "--num-samples", type=int, default=1, metavar="N", help="texts (default: 1)"
    )
    add_loading_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the texts, each with its prompt, one below the other."""
    if arguments.num_samples < 1:
        raise ValueError(f"--num-samples must be >= 1, got {arguments.num_samples}")
    if arguments.seed is not None and not 0 <= arguments.seed < 2**63:
        raise ValueError(f"--seed must be from 0 to 2^63 - 1, got {arguments.seed}")
    prompt = _prompt(arguments.prompt)
    import torch

    from fastweights.evaluate import load_text_run

    loaded, tokenizer = load_text_run(arguments.run_folder, arguments.checkpoint, arguments.device)
    generator = torch.Generator()
    if arguments.seed is None:
        generator.seed()
    else:
        generator.manual_seed(arguments.seed)
    for number in range(arguments.num_samples):
        if number:
            print("---")
        _write(loaded, tokenizer, prompt, arguments, generator)
    return 0


def _prompt(given: str | None) -> str:
    """Raises ValueError where it is not text."""
    if given is None:
        return "" if sys.stdin is None or sys.stdin.isatty() else standard_input()
    try:
        given.encode()
    except UnicodeEncodeError as error:  # what is not UTF-8 comes as surrogates
        raise ValueError(f"--prompt: not UTF-8 at character {error.start}") from None
    return given


def _write(
    loaded: LoadedModel,
    tokenizer: Tokenizer,
    prompt: str,
    arguments: argparse.Namespace,
    generator: torch.Generator,
) -> None:
    """One text, every piece as it comes."""
    import torch

    from fastweights.evaluate import autocast
    from fastweights.generate import TextStream, generate
    from fastweights.models.sequence_model import SequenceModel

    given = tokenizer.encode(prompt) or [tokenizer.separator]
    # Where the separator is the end of a line, too, it does not end a document.
    end = None if tokenizer.separator in tokenizer.encode("\n") else tokenizer.separator
    stream = TextStream(tokenizer, given)
    tokens = generate(
        cast(SequenceModel, loaded.model),
        torch.tensor([given], device=loaded.device),
        arguments.max_tokens,
        arguments.temperature,
        arguments.top_k,
        arguments.top_p,
        generator,
    )
    # White space at its end that the tokenizer does not see is left out: it writes its own.
    bare = prompt.rstrip()
    seen = bare == prompt or tokenizer.encode(bare) != tokenizer.encode(prompt)
    print(prompt if seen else bare, end="", flush=True)
    try:
        with autocast(loaded):
            for token in tokens:
                if int(token) == end:
                    break
                print(stream.push(int(token)), end="", flush=True)
    finally:
        print(stream.end())
