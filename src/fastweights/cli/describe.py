"""`fastweights describe`."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastweights.cli.parser import Parser, path
from fastweights.cli.run_options import RunOptions
from fastweights.train.config import RunConfig, SequenceModelConfig, load_config

if TYPE_CHECKING:
    from fastweights.account import Account

TOKENS_BEFORE = 1024


def add_options(parser: Parser) -> None:
    """Which model, after how many tokens, what it should be as large as; every option of train."""
    parser.usage = "fastweights describe [CONFIG.yaml | RUN] [--match OTHER] [options]"
    parser.epilog = (
        "FLOPs: multiplications and additions that one token needs in the forward pass, in matrix "
        "products and element-wise: with the experts, hidden units and values that are chosen "
        "alone, and with what is remembered as it was computed when it came, whatever the code "
        "does to be fast. Activation functions, norms, residuals and biases are not counted. "
        "The options of train are laid over the file."
    )
    parser.add_argument(
        "source",
        nargs="?",
        type=path,
        metavar="CONFIG.yaml|RUN",
        help="configuration or run folder (default: the defaults of train)",
    )
    parser.add_argument(
        "--after",
        type=int,
        default=TOKENS_BEFORE,
        metavar="N",
        help="earlier tokens of the sequence, where state and FLOPs grow with them "
        f"(default: {TOKENS_BEFORE})",
    )
    parser.add_argument(
        "--match",
        type=path,
        metavar="OTHER",
        help="choose the size of the feed-forward layer so that there are as many parameters, "
        "within 0.1 %%, as in the model of this configuration or run folder, for the same tokens",
    )
    parser.add_argument(
        "--match-size",
        metavar="NAME",
        help="which size (default: ff_dim, expert_dim or num_subkeys, what the layer has)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(options=RunOptions(parser))


def run(arguments: argparse.Namespace) -> int:
    """Print parameters, FLOPs and state."""
    if arguments.after < 0:
        raise ValueError(f"--after must be >= 0, got {arguments.after}")
    if arguments.match_size and not arguments.match:
        raise ValueError("--match-size names what --match chooses: give --match OTHER, too")
    from fastweights.account import describe_model, equal_parameters

    overrides = arguments.options.overrides(arguments)
    config = _load(arguments.source, overrides)
    settings, sizes = _sequence_model(config), _sizes(arguments.source, config, overrides)
    shown: dict[str, Any] = {}
    if arguments.match:
        like = _sequence_model(_load(arguments.match, {}))
        settings = equal_parameters(settings, like, *sizes, arguments.match_size)
        shown = {"ff_dim": settings.ff_dim, "feed_forward_options": settings.feed_forward_options}
    account = describe_model(settings, *sizes, arguments.after)
    if arguments.json:
        totals = {"num_parameters": account.num_parameters, "num_flops": account.num_flops}
        print(json.dumps({**shown, **dataclasses.asdict(account), **totals}, indent=2))
    else:
        _show(account, shown)
    return 0


def _load(source: Path | None, overrides: Mapping[str, Any]) -> RunConfig:
    """The configuration of a file or a run folder."""
    if source is None or not source.is_dir():
        return load_config(source, overrides)
    if not (source / "config.yaml").is_file():
        raise ValueError(f"{source}: is not a run folder (no config.yaml)")
    from fastweights.train.task_file import own_automaton

    return own_automaton(load_config(source / "config.yaml", overrides), source)


def _sizes(source: Path | None, config: RunConfig, overrides: Mapping[str, Any]) -> tuple[int, int]:
    """vocab_size and num_outputs. Of a run on text, unless another text is asked for, those of the
    tokenizer in its folder: the text need not be there any more."""
    from fastweights.train.run_model import model_sizes
    from fastweights.train.text_file import TEXT_FILE, run_tokenizer

    other = "text" in overrides.get("task", ())
    if source is None or other or not (source / TEXT_FILE).is_file():
        return model_sizes(config)
    vocab_size = run_tokenizer(source).vocab_size
    return vocab_size, vocab_size


def _sequence_model(config: RunConfig) -> SequenceModelConfig:
    if not isinstance(config.model, SequenceModelConfig):
        raise ValueError(f"describe knows sequence models, not those of task {config.task.kind}")
    return config.model


def _show(account: Account, shown: Mapping[str, Any]) -> None:
    from rich.console import Console

    from fastweights.cli.tables import plain_table

    table = plain_table("part", "parameters", "FLOPs a token")
    for part, count in account.parameters.items():
        table.add_row(part, f"{count:,}", f"{account.flops[part]:,}")
    table.add_section()
    table.add_row("all", f"{account.num_parameters:,}", f"{account.num_flops:,}")
    console = Console(highlight=False)
    console.print(table)
    for line in (*_matched(shown), *_facts(account)):
        console.print(line, markup=False, soft_wrap=True)


def _matched(shown: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {value}" for name, value in shown.items() if value]


def _facts(account: Account) -> list[str]:
    feed_forward, active = account.parameters["feed-forward"], account.active_feed_forward
    used = (
        f"{active:,} of {feed_forward:,} ({active / feed_forward:.1%})" if feed_forward else "none"
    )
    return [
        f"feed-forward parameters that a token uses: {used}",
        f"state of a sequence after {account.context_length:,} tokens: "
        f"{account.state_numbers:,} numbers, {account.state_bytes:,} bytes",
    ]
