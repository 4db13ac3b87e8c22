"""How many retrieval batches a second are trained, beside the way the official code computes them?

    python -m benchmarks.retrieval            # a minute; writes results/retrieval/speed.md

One process, one thread, in turns (see `benchmarks.timing`). The official form makes keys and
queries at every position from one-hot values and embeddings, writes out every product v k^T of the
sum rule, and loops over the steps of the delta rule in Python.
"""

import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.allocator import keep_freed_memory
from benchmarks.timing import Contender, measure
from fastweights.atomic import write_text
from fastweights.cli.parser import Parser, path
from fastweights.experiments import EXPERIMENTS
from fastweights.models.associative_memory import AssociativeMemory
from fastweights.ops import delta_rule_step
from fastweights.report.environments import environment_line
from fastweights.report.tables import markdown_table
from fastweights.train.environment import environment
from fastweights.train.optimizer import build_optimizer
from fastweights.train.process import cpu_threads
from fastweights.train.retrieval import RetrievalProblem

CELLS = {
    ("unique_40", "sum_dpfp_1"): 73,
    ("repeated_20", "delta_dpfp_1"): 7.3,
    ("unique_200", "sum_dpfp_3"): 4.6,
}
"""Task and model, and the batches a second of the official code itself, with one thread of another
machine (torch 2.13)."""
OURS, OFFICIAL = "fastweights", "as the official code"
ROUNDS, TURN_S, STEP = 9, 0.3, "step"
OUT = Path("results/retrieval")


class OfficialForm(AssociativeMemory):
    """The same model, computed as the official code does."""

    def forward(self, keys: Tensor, values: Tensor, queries: Tensor) -> Tensor:
        v = F.one_hot(values, self.num_keys).float()
        stored = torch.cat([v, F.embedding(keys, self.key_embedding)], -1)
        k = self.feature_map(self.to_key(stored))
        q = self.feature_map(self.to_query(F.embedding(queries, self.key_embedding)))
        if self.rule == "sum":
            memory = torch.einsum("btv,btk->btkv", v, k).sum(1)
            return q @ memory / (q @ k.sum(1)[..., None] + 1e-6)
        beta = self.to_beta(stored).sigmoid()
        memory = k.new_zeros(len(k), 1, k.shape[-1], v.shape[-1])
        for t in range(keys.shape[1]):
            k_t, v_t = k[:, t, None], v[:, t, None]
            _, memory = delta_rule_step(k_t, k_t, v_t, beta[:, t], memory)
        return q @ memory[:, 0]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 the file could not be written, 2 wrong usage."""
    parser = Parser(
        prog="python -m benchmarks.retrieval", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=path, default=OUT, metavar="FOLDER", help=f"default: {OUT}")
    parsed = parser.parse_args(arguments)
    try:
        if parsed.out.exists() and not parsed.out.is_dir():
            raise ValueError(f"{parsed.out}: is not a folder")
        keep_freed_memory()
        with cpu_threads(1):
            text = report()
        parsed.out.mkdir(parents=True, exist_ok=True)
        write_text(parsed.out / "speed.md", text)
    except OSError as error:
        print(f"fastweights: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"fastweights: error: {error}", file=sys.stderr)
        return 2
    print(parsed.out / "speed.md")
    return 0


def report() -> str:
    """The page."""
    rows = [_row(task, model, published) for (task, model), published in CELLS.items()]
    head = [
        "task, model",
        "batches a second",
        f"{OFFICIAL}, in the same run",
        "faster",
        "the official code itself",
    ]
    here = environment(torch.device("cpu"), 1)
    machine = environment_line({**here, "device": here["device_name"]})
    how = (
        f"Batches of 32 sequences: forward, backward, Adam. {machine}; one thread, median "
        f"(quartiles) of {ROUNDS} rounds. The last column was measured with one thread of another "
        "machine. Made by `python -m benchmarks.retrieval`."
    )
    title = "# Training speed of the retrieval experiments"
    return "\n\n".join([title, how, markdown_table(head, rows)]) + "\n"


def _row(task: str, model: str, published: float) -> list[str]:
    (cell,) = EXPERIMENTS["retrieval"].cells([task], [model])
    problem = RetrievalProblem(cell.config, torch.device("cpu"))
    contenders = []
    for name in (OURS, OFFICIAL):
        memory = problem.build_model()
        if name == OFFICIAL:
            memory.__class__ = OfficialForm
        step = _steps(problem, memory, cell.config.training)
        step(), step()
        contenders.append(Contender(name, {STEP: step}))
    times = measure(contenders, (STEP,), ROUNDS, TURN_S, lambda _: None)
    rates = {name: [1e3 / ms for ms in each[STEP] if ms] for name, each in times.items()}
    ratio = [a / b for a, b in zip(rates[OURS], rates[OFFICIAL], strict=True)]
    return [f"{task}, {model}", *(_spread(x) for x in (*rates.values(), ratio)), f"{published:g}"]


def _steps(
    problem: RetrievalProblem, memory: torch.nn.Module, training: object
) -> Callable[[], None]:
    optimizer = build_optimizer(memory.parameters(), training)  # type: ignore[arg-type]
    number = iter(range(10**9))

    def step() -> None:
        problem.training_loss(memory, next(number)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _spread(values: Sequence[float]) -> str:
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:.3g} ({low:.3g}–{high:.3g})"


if __name__ == "__main__":
    sys.exit(main())
