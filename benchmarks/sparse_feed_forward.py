"""What does a mixture of experts cost beside its arithmetic, the dense layer and a loop of experts?

    python -m benchmarks.sparse_feed_forward   # minutes; writes results/sparse-feed-forward/

Forward and backward pass with all gradients, in turns in one process (see `benchmarks.timing`).
The yardstick is the dense two-layer network with as many multiplications (F = K G). One thread is
timed in CPU time, which other processes disturb little, two threads in wall time.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.allocator import keep_freed_memory
from benchmarks.spread import Spread, spread
from benchmarks.timing import Contender, Times, measure
from fastweights.atomic import write_text
from fastweights.cli.parser import Parser, path
from fastweights.layers.moe import MoE
from fastweights.report.environments import environment_line
from fastweights.report.tables import markdown_table
from fastweights.train.environment import environment
from fastweights.train.process import cpu_threads


@dataclass(frozen=True)
class Cell:
    """One table row: sizes, dtype, how the routes fall, threads."""

    tokens: int
    dim: int = 512
    num_experts: int = 32
    expert_dim: int = 128
    top_k: int = 4
    skewed: bool = False
    dtype: str = "float32"
    threads: int = 1

    @property
    def name(self) -> str:
        sizes = f"N {self.tokens}, D {self.dim}, E {self.num_experts}, {self.dtype}"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{sizes}, {threads}" + (", skewed" if self.skewed else "")


CELLS = (
    Cell(2048),
    Cell(2048, skewed=True),
    Cell(8192),
    Cell(2048, dim=412, num_experts=128),
    Cell(2048, dim=412, num_experts=128, dtype="bfloat16"),
    Cell(2048, dtype="bfloat16"),
    Cell(2048, threads=2),
    Cell(8192, threads=2),
)
IDEAL, OURS, LAYER = "as many multiplications", "experts, routes given", "layer, with its router"
LOOP, DENSE = "loop of experts", "dense, as many weights"
CONTENDERS = {
    IDEAL: "a dense network with F = K G",
    OURS: "the experts of `MoE`, with given experts and gates (and the gradient of the gates)",
    LAYER: "all of `MoE`: sigmoid router, entropy loss, experts; its routes fall evenly",
    LOOP: "Hugging Face's way: `where`, `weight[e]`, `index_add_` for every expert, routes given",
    DENSE: "a dense network with F = E G",
}
ROUNDS, TURN_S, STEP = 15, 0.3, "forward and backward"
OUT = Path("results/sparse-feed-forward")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 the files could not be written, 2 wrong usage."""
    parser = Parser(
        prog="python -m benchmarks.sparse_feed_forward",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument("--out", type=path, default=OUT, metavar="FOLDER", help=f"default: {OUT}")
    parser.add_argument("--rounds", type=_rounds, default=ROUNDS, help=f"default: {ROUNDS}")
    parsed = parser.parse_args(arguments)
    keep_freed_memory()
    measured = [(cell, run_cell(cell, parsed.rounds)) for cell in CELLS]
    here = environment(torch.device("cpu"), torch.get_num_threads())
    here["vectors"] = torch.backends.cpu.get_cpu_capability()
    del here["device"], here["num_threads"]  # the CPU; threads vary by cell
    cells = [{**asdict(cell), "ms": _by_name(times)} for cell, times in measured]
    data = {"environment": here, "rounds": parsed.rounds, "turn_s": TURN_S, "cells": cells}
    try:
        parsed.out.mkdir(parents=True, exist_ok=True)
        write_text(parsed.out / "measurements.json", json.dumps(data, indent=1) + "\n")
        write_text(parsed.out / "report.md", report(here, parsed.rounds, measured))
    except OSError as error:
        print(f"fastweights: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    print(parsed.out / "report.md")
    return 0


def run_cell(cell: Cell, rounds: int) -> Times:
    """Milliseconds by contender and round."""
    clock = time.process_time if cell.threads == 1 else time.perf_counter
    with cpu_threads(cell.threads):
        steps = make_steps(cell)
        contenders = []
        for name, step in steps.items():
            step()
            start = time.perf_counter()
            step()
            seconds = {STEP: time.perf_counter() - start}
            contenders.append(Contender(name, {STEP: step}, seconds))
        return measure(contenders, (STEP,), rounds, TURN_S, lambda text: _watch(cell, text), clock)


def make_steps(cell: Cell) -> dict[str, Callable[[], list[Tensor]]]:
    """By contender, a function that computes y and all gradients (input, weights, gates) anew."""
    dtype = getattr(torch, cell.dtype)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, std: float = 1.0) -> Tensor:
        x = std * torch.randn(shape, generator=generator)
        return x.to(dtype).requires_grad_()

    x, direction = draw(cell.tokens, cell.dim), draw(cell.tokens, cell.dim).detach()
    sizes = cell.dim, cell.num_experts, cell.expert_dim, cell.top_k
    layer = MoE(*sizes, generator=generator).to(dtype)
    expert_index = _expert_index(cell)
    gate = torch.rand(expert_index.shape, generator=generator).to(dtype).requires_grad_()

    def step(
        forward: Callable[[], tuple[Tensor, Tensor | None]], leaves: Sequence[Tensor]
    ) -> Callable[[], list[Tensor]]:
        def run() -> list[Tensor]:
            y, loss = forward()
            roots = [y] if loss is None else [y, loss]
            return [y, *torch.autograd.grad(roots, leaves, [direction, None][: len(roots)])]

        return run

    def dense(ff_dim: int) -> Callable[[], list[Tensor]]:
        up, down = (draw(ff_dim, cell.dim, std=0.02) for _ in range(2))
        return step(lambda: (F.linear(x, up).relu() @ down, None), [x, up, down])

    leaves = [x, layer.up, layer.down, gate]
    return {
        IDEAL: dense(cell.top_k * cell.expert_dim),
        OURS: step(lambda: (layer._experts(x, expert_index, gate), None), leaves),
        LAYER: step(lambda: layer(x), [x, *layer.parameters()]),
        LOOP: step(lambda: (expert_loop(x, expert_index, gate, layer), None), leaves),
        DENSE: dense(cell.num_experts * cell.expert_dim),
    }


def expert_loop(x: Tensor, expert_index: Tensor, gate: Tensor, layer: MoE) -> Tensor:
    """A mixture of experts as libraries of language models write it down."""
    y = torch.zeros_like(x)
    mask = F.one_hot(expert_index, layer.num_experts).permute(2, 1, 0)
    for e in mask.sum((1, 2)).nonzero().flatten().tolist():
        rank, token = torch.where(mask[e])
        hidden = F.linear(x[token], layer.up[e]).relu()
        y.index_add_(0, token, (hidden @ layer.down[e]) * gate[token, rank, None])
    return y


def report(here: dict[str, Any], rounds: int, measured: Sequence[tuple[Cell, Times]]) -> str:
    """The page."""
    machine = environment_line({**here, "device": here["device_name"]})
    how = (
        f"Forward and backward pass with all gradients, G = {CELLS[0].expert_dim}, "
        f"K = {CELLS[0].top_k}. {machine}. Median (quartiles) of {rounds} rounds; one thread in "
        "CPU time, two in wall time. Made by `python -m benchmarks.sparse_feed_forward`."
    )
    names = "\n".join(f"- {name}: {what}." for name, what in CONTENDERS.items())
    cost = [[cell.name, *_costs(times)] for cell, times in measured]
    ms = [[cell.name, *_milliseconds(times)] for cell, times in measured]
    others = [name for name in CONTENDERS if name != IDEAL]
    parts = [
        "# Cost of the mixture of experts",
        how,
        names,
        f"Time over that of the same round of {IDEAL!r}:",
        markdown_table(["", *others, f"{OURS}: times faster than dense"], cost),
        "Milliseconds:",
        markdown_table(["", *CONTENDERS], ms),
        "Skewed: tokens of an expert, by number of them: "
        + ", ".join(map(str, _skewed_counts()))
        + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _expert_index(cell: Cell) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    score = torch.randn(cell.tokens, cell.num_experts, generator=generator)
    if cell.skewed:
        score = score + 2 * torch.randn(cell.num_experts, generator=generator)
    return score.topk(cell.top_k).indices


def _skewed_counts() -> list[int]:
    cell = next(cell for cell in CELLS if cell.skewed)
    index = _expert_index(cell)
    return sorted(index.flatten().bincount(minlength=cell.num_experts).tolist())


def _costs(times: Times) -> list[str]:
    ideal, dense = times[IDEAL][STEP], times[DENSE][STEP]
    others = [times[name][STEP] for name in CONTENDERS if name != IDEAL]
    ratios = [_ratio(other, ideal) for other in others]
    return [*ratios, _ratio(dense, times[OURS][STEP])]


def _ratio(a: Sequence[float | None], b: Sequence[float | None]) -> str:
    pairs = zip(a, b, strict=True)
    return _shown(spread([x / y for x, y in pairs if x is not None and y]))


def _milliseconds(times: Times) -> list[str]:
    return [_shown(spread([ms for ms in each[STEP] if ms is not None])) for each in times.values()]


def _shown(found: Spread | None) -> str:
    return "" if found is None else f"{found.median:.3g} ({found.low:.3g}–{found.high:.3g})"


def _by_name(times: Times) -> dict[str, list[float | None]]:
    return {name: each[STEP] for name, each in times.items()}


def _watch(cell: Cell, text: str) -> None:
    print(f"{cell.name}: {text}", file=sys.stderr)


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"rounds must be >= 1, got {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
