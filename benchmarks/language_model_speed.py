"""How fast does a language model train with each sequence layer, beside the same model with softmax
attention?

    python -m benchmarks.language_model_speed   # writes results/language-models/training_speed.*

The byte-level model of `fastweights train --text` by default, every layer in the same block, on
random bytes, the same number of them a step at every context length. A step is forward and backward
pass, clipping and Adam, all layers in turns in one process (see `benchmarks.timing`).
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.allocator import keep_freed_memory
from benchmarks.spread import Spread, spread
from benchmarks.timing import Contender, Times, measure
from fastweights.atomic import write_text
from fastweights.cli.parser import Parser, path
from fastweights.models.menu import SEQUENCE_LAYERS, build_model
from fastweights.report.environments import environment_line
from fastweights.report.tables import markdown_table
from fastweights.tasks.text.tokenizer import ByteTokenizer
from fastweights.train.config import RunConfig, SequenceModelConfig, parse_config
from fastweights.train.environment import environment
from fastweights.train.optimizer import build_optimizer
from fastweights.train.process import cpu_threads


@dataclass(frozen=True)
class Settings:
    """What is measured: contexts and tokens a step, width of the model, number of rounds."""

    contexts: tuple[int, ...]
    tokens_a_step: int
    dim: int
    ff_dim: int
    num_layers: int
    rounds: int


TEXT = parse_config({"task": {"kind": "text"}})
assert isinstance(TEXT.model, SequenceModelConfig) and TEXT.model.ff_dim is not None
SIZES = TEXT.model.dim, TEXT.model.ff_dim, TEXT.model.num_layers
FULL = Settings((256, 1024, 4096), 4096, *SIZES, rounds=9)
QUICK = Settings((16, 32), 32, dim=8, ff_dim=8, num_layers=1, rounds=2)
YARDSTICK = "softmax_attention"
STEP = "step"
OUT, QUICK_OUT = Path("results/language-models"), Path("runs/training-speed-quick")

Measured = dict[int, dict[str, list[float | None]]]
"""Milliseconds a step by context length, layer and round; None where it took no part."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 a file could not be written, 2 wrong usage, 130 interrupted."""
    parser = Parser(
        prog="python -m benchmarks.language_model_speed",
        description=" ".join((__doc__ or "").split("\n\n")[0].split()),
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--out", type=path, metavar="FOLDER", help=f"default: {OUT}")
    parser.add_argument("--threads", type=_threads, default=1, metavar="N", help="default: 1")
    parsed = parser.parse_args(arguments)
    settings = QUICK if parsed.quick else FULL
    out = parsed.out or (QUICK_OUT if parsed.quick else OUT)
    try:
        out.mkdir(parents=True, exist_ok=True)  # what cannot be written is told at once
        keep_freed_memory()
        with cpu_threads(parsed.threads):
            measured = {length: run_context(length, settings) for length in settings.contexts}
            here = environment(torch.device("cpu"), parsed.threads)
        data = {"environment": here, "settings": asdict(settings), "ms": measured}
        write_text(out / "training_speed.json", json.dumps(data, indent=1) + "\n")
        write_text(out / "training_speed.md", report(here, settings, measured))
    except KeyboardInterrupt:
        print("fastweights: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"fastweights: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    print(out / "training_speed.md")
    return 0


def run_context(length: int, settings: Settings) -> dict[str, list[float | None]]:
    """Milliseconds a step by layer and round."""
    contenders = []
    for layer in SEQUENCE_LAYERS:
        _watch(length, layer)
        step = make_step(layer, length, settings)
        step()
        start = time.perf_counter()
        step()
        seconds = {STEP: time.perf_counter() - start}
        contenders.append(Contender(layer, {STEP: step}, seconds))
    times: Times = measure(
        contenders, (STEP,), settings.rounds, 0.0, lambda text: _watch(length, text)
    )
    return {name: each[STEP] for name, each in times.items()}


def make_step(layer: str, length: int, settings: Settings) -> Callable[[], float]:
    """A function that takes an optimizer step on the same random bytes and returns the loss."""
    config = run_config(layer, settings)
    assert isinstance(config.model, SequenceModelConfig)
    generator = torch.Generator().manual_seed(0)
    vocab_size = ByteTokenizer.vocab_size
    model = build_model(config.model, vocab_size, vocab_size, generator)
    optimizer = build_optimizer(model.parameters(), config.training)
    lanes = max(1, settings.tokens_a_step // length)
    text = torch.randint(vocab_size, (lanes, length + 1), generator=generator)
    clip_norm = config.training.clip_norm
    assert clip_norm is not None

    def step() -> float:
        output = model.losses(text[:, :-1], text[:, 1:])
        loss = output.nats.mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def run_config(layer: str, settings: Settings) -> RunConfig:
    """That of a text run, with every layer in the block of the fast weight programmers."""
    sizes = {name: getattr(settings, name) for name in ("dim", "ff_dim", "num_layers")}
    model = {"layer": layer, "block": "pre_norm", **sizes}
    return parse_config({"task": {"kind": "text"}, "model": model})


def report(here: Mapping[str, Any], settings: Settings, measured: Measured) -> str:
    """The page."""
    threads = "1 thread" if here["num_threads"] == 1 else f"{here['num_threads']} threads"
    how = (
        f"D = {settings.dim}, {settings.num_layers} layers, {settings.tokens_a_step:,} tokens a "
        f"step, {threads}. {environment_line({**here, 'device': here['device_name']})}. Median "
        f"(quartiles) of up to {settings.rounds} rounds. Made by "
        "`python -m benchmarks.language_model_speed`."
    )
    contexts = [f"T = {length:,}" for length in measured]
    layers = list(next(iter(measured.values())))
    ratios = [
        [layer, *(_shown(_ratios(by_layer, layer), ".2f") for by_layer in measured.values())]
        for layer in layers
        if layer != YARDSTICK
    ]
    speeds = [
        [
            layer,
            *(
                _shown(_speeds(length, settings, by_layer[layer]), ",.0f")
                for length, by_layer in measured.items()
            ),
        ]
        for layer in layers
    ]
    parts = [
        "# Training speed of language models",
        how,
        f"Tokens a second over those of {YARDSTICK} in the same round:",
        markdown_table(["", *contexts], ratios),
        "Tokens a second:",
        markdown_table(["", *contexts], speeds),
    ]
    return "\n\n".join(parts) + "\n"


def _ratios(by_layer: Mapping[str, list[float | None]], layer: str) -> Spread | None:
    pairs = zip(by_layer[YARDSTICK], by_layer[layer], strict=True)
    return spread([a / b for a, b in pairs if a is not None and b])


def _speeds(length: int, settings: Settings, rounds: Sequence[float | None]) -> Spread | None:
    tokens = length * max(1, settings.tokens_a_step // length)
    return spread([1e3 * tokens / ms for ms in rounds if ms])


def _shown(found: Spread | None, digits: str) -> str:
    if found is None:
        return ""
    return f"{found.median:{digits}} ({found.low:{digits}}–{found.high:{digits}})"


def _watch(length: int, text: str) -> None:
    print(f"T {length}: {text}", file=sys.stderr)


def _threads(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"threads must be >= 1, got {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
