"""How fast is text generated, and how large is the state, after a context of up to 65,536 tokens?

    python -m benchmarks.generation           # minutes; writes results/language-models/generation.*

One process, one thread, in turns (see `benchmarks.timing`). A step is one token through a whole
model of one sequence, from the state that the context left; the context is read in pieces. Softmax
attention keeps its keys and values and copies them at every step (`torch.cat`), which is timed by
itself, too.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_leaves

from benchmarks.allocator import keep_freed_memory
from benchmarks.timing import Contender, measure
from fastweights.atomic import write_json, write_text
from fastweights.cli.parser import Parser, path
from fastweights.models.menu import build_model
from fastweights.models.sequence_model import SequenceModel
from fastweights.report.environments import environment_line
from fastweights.report.tables import markdown_table
from fastweights.train.config import SequenceModelConfig
from fastweights.train.environment import environment
from fastweights.train.process import cpu_threads

LAYERS = ("delta_net", "linear_transformer", "softmax_attention", "transformer_xl")
COPY = "copy of the cache"
VOCABULARY, PIECE, STEP = 256, 512, "step"


class Settings(NamedTuple):
    """contexts: ascending; dim, num_layers: of the models; rounds, turn_s: see `timing.measure`."""

    contexts: tuple[int, ...]
    dim: int
    num_layers: int
    rounds: int
    turn_s: float


FULL = Settings((256, 1024, 4096, 16384, 65536), 256, 2, 9, 0.3)
QUICK = Settings((16, 64), 16, 1, 2, 0.002)
OUT, QUICK_OUT = Path("results/language-models"), Path("runs/generation-quick")


class Reader:
    """A model and the state that the context so far has left."""

    def __init__(self, layer: str, settings: Settings) -> None:
        config = SequenceModelConfig(
            layer=layer, dim=settings.dim, num_layers=settings.num_layers, ff_dim=4 * settings.dim
        )
        generator = torch.Generator().manual_seed(0)
        self.model: SequenceModel = build_model(config, VOCABULARY, VOCABULARY, generator).eval()
        self.state: Any = None
        self.seen = 0
        self.wall_s = 0.0

    def read(self, context: torch.Tensor) -> None:
        """Go on to the end of a context `[1, T]`."""
        start = time.perf_counter()
        for piece in context[:, self.seen :].split(PIECE, 1):
            self.state = self.model(piece, self.state, at=torch.zeros_like(piece).bool()).state
        self.seen = context.shape[1]
        self.wall_s += time.perf_counter() - start

    def step(self) -> None:
        """One token more, and back."""
        self.model(torch.zeros(1, 1, dtype=torch.int64), self.state)

    def state_mib(self) -> float:
        """Of all tensors of the state."""
        return sum(x.numel() * x.element_size() for x in tree_leaves(self.state)) / 2**20

    def copy(self) -> None:
        """What `torch.cat` does to every tensor of a state of softmax attention."""
        for x in tree_leaves(self.state):
            torch.cat([x, x[:, :1]], 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 a file could not be written, 2 wrong usage, 130 interrupted."""
    parser = Parser(
        prog="python -m benchmarks.generation", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help=f"tiny models (into {QUICK_OUT})")
    parser.add_argument("--out", type=path, metavar="FOLDER", help=f"default: {OUT}")
    parsed = parser.parse_args(arguments)
    out = parsed.out or (QUICK_OUT if parsed.quick else OUT)
    try:
        out.mkdir(parents=True, exist_ok=True)  # what cannot be written is told before the minutes
        keep_freed_memory()
        settings = QUICK if parsed.quick else FULL
        with cpu_threads(1), torch.inference_mode():
            rows = measure_all(settings, lambda text: print(text, file=sys.stderr))
        here = environment(torch.device("cpu"), 1)
        content = {"environment": here, "settings": settings._asdict(), "rows": rows}
        write_json(out / "generation.json", content)
        write_text(out / "generation.md", page(content))
    except KeyboardInterrupt:
        print("fastweights: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"fastweights: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    print(out / "generation.md")
    return 0


def measure_all(settings: Settings, watch: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row a context and layer: `state_mib`, `read_s` for all of the context and `step_ms` of
    every round; one more for the copy of the cache, which has `step_ms` alone."""
    readers = {layer: Reader(layer, settings) for layer in LAYERS}
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(VOCABULARY, (1, settings.contexts[-1]), generator=generator)
    rows = []
    for context in settings.contexts:
        for layer, reader in readers.items():
            watch(f"{context} tokens: {layer}")
            reader.read(text[:, :context])
        calls = {layer: reader.step for layer, reader in readers.items()}
        calls[COPY] = readers["softmax_attention"].copy
        contenders = [Contender(name, {STEP: call}) for name, call in calls.items()]
        times = measure(contenders, (STEP,), settings.rounds, settings.turn_s, lambda _: None)
        for name in calls:
            row: dict[str, Any] = {"context": context, "name": name, "step_ms": times[name][STEP]}
            if name in readers:
                reader = readers[name]
                row |= {"state_mib": reader.state_mib(), "read_s": reader.wall_s}
            rows.append(row)
    return rows


def page(content: dict[str, Any]) -> str:
    """The tables as Markdown."""
    settings, here = content["settings"], content["environment"]
    rows = {(row["context"], row["name"]): row for row in content["rows"]}
    speed = [
        [f"{context:,}", *(_rate(rows[context, layer]) for layer in LAYERS), _share(rows, context)]
        for context in settings["contexts"]
    ]
    size = [
        [f"{context:,}", *(f"{rows[context, layer]['state_mib']:.3g}" for layer in LAYERS)]
        for context in settings["contexts"]
    ]
    how = (
        f"Models of width {settings['dim']}, {settings['num_layers']} blocks, one sequence, "
        f"float32. {environment_line({**here, 'device': here['device_name']})}; median (quartiles) "
        f"of {settings['rounds']} rounds in turns. Made by `python -m benchmarks.generation`."
    )
    parts = [
        "# Generation after a long context",
        how,
        "Tokens a second after that many tokens; last column: the part of a step of softmax "
        "attention that copies its cache (`torch.cat`), during which it is in memory twice.",
        markdown_table(["context", *LAYERS, "copying"], speed),
        "Size of the state, in MiB.",
        markdown_table(["context", *LAYERS], size),
    ]
    return "\n\n".join(parts) + "\n"


def _rate(row: dict[str, Any]) -> str:
    rates = [1e3 / ms for ms in row["step_ms"]]
    low, median, high = (
        f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
        for rate in statistics.quantiles(rates, n=4, method="inclusive")
    )
    return f"{median} ({low}–{high})"


def _share(rows: dict[tuple[int, str], dict[str, Any]], context: int) -> str:
    copy, step = (
        statistics.median(rows[context, name]["step_ms"]) for name in (COPY, "softmax_attention")
    )
    return f"{100 * copy / step:.0f} %"


if __name__ == "__main__":
    sys.exit(main())
