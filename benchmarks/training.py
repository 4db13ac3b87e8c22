"""Optimisation steps of the formal-language study's models, with the kernels and without them."""

import contextlib
import functools
import importlib
import math
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F

from benchmarks.timing import Contender
from fastweights.experiments.formal_languages import FORMAL_LANGUAGES
from fastweights.kernels.backend import CPU_OPS, Backend, resolve_backend
from fastweights.report.names import MODEL_NAMES
from fastweights.tasks.formal.menu import Task
from fastweights.train.config import RunConfig
from fastweights.train.data import IGNORED, TrainingBatches, load_run_task
from fastweights.train.optimizer import build_optimizer
from fastweights.train.run_model import build_run_model, spelled_out

MODELS = (
    "delta_net",
    "delta_net_0_2",
    "recurrent_delta_net",
    "srwm",
    "linear_transformer",
    "e_lstm",
)
STEP = "step"
STEPS_PER_TURN = {"parity": 4, "aa_star": 2}
"""By language. Batches differ in length: before and after take the same ones in each round."""
BEFORE, AFTER = "before", "after"


class Training:
    """One model on one language, from the study's weights; each call takes the next batch.

    A step is that of `fastweights.train.loop` without Fabric, which adds 0.1 ms to both.
    """

    def __init__(self, config: RunConfig, task: Task, backend: Literal["auto", "torch"]) -> None:
        self.backend, self.clip_norm = backend, config.training.clip_norm
        self.model = build_run_model(config, task)
        parameters = list(self.model.parameters())
        self.optimizer = build_optimizer(parameters, config.training)
        device = torch.device("cpu")
        self.batches = TrainingBatches(task, config.training.batch_size, config.seed, device)
        self.number = 0

    def step(self) -> float:
        """Returns the loss before the step."""
        batch = self.batches.batch(self.number)
        self.number += 1
        with served_by(self.backend):
            output = self.model(batch.inputs)
            loss = F.cross_entropy(
                output.logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED
            )
            nats = loss.item()
            (loss + output.balance_loss).backward()
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return nats


def training_contenders(language: str) -> tuple[list[Contender], dict[str, float]]:
    """Every model before and after, by `contender_name`, each with two steps done, and by the name
    of the one after how far its second loss is from that before, relatively.

    The second loss has been through a backward pass.
    """
    contenders, errors = [], {}
    configs = {
        cell.model: spelled_out(cell.config)
        for cell in FORMAL_LANGUAGES.cells([language], MODELS, seeds=(1,))
    }
    task = load_run_task(next(iter(configs.values())))
    for model, config in configs.items():
        runs = {BEFORE: Training(config, task, "torch"), AFTER: Training(config, task, "auto")}
        losses = {name: [run.step(), run.step()][-1] for name, run in runs.items()}
        error = abs(losses[AFTER] - losses[BEFORE]) / losses[BEFORE]
        errors[contender_name(model, AFTER)] = error if math.isfinite(error) else math.inf
        contenders += [
            Contender(contender_name(model, when), {STEP: run.step}, {}, STEPS_PER_TURN[language])
            for when, run in runs.items()
        ]
    return contenders, errors


def contender_name(model: str, when: str) -> str:
    """`DeltaNet, before`."""
    return f"{MODEL_NAMES[model]}, {when}"


@contextlib.contextmanager
def served_by(backend: Literal["auto", "torch"]) -> Iterator[None]:
    """Layers ask for "auto"; with "torch" they get plain PyTorch, as if there were no kernels.

    The library has no such switch, and needs none: the function by which the ops pick a backend is
    replaced in their modules for the time being.
    """
    if backend == "auto":
        yield
        return
    # Not `import fastweights.ops.delta_rule`: that name is the function.
    modules = [importlib.import_module(f"fastweights.ops.{op}") for op in CPU_OPS]
    for module in modules:
        vars(module)["resolve_backend"] = _plain_torch
    try:
        yield
    finally:
        for module in modules:
            vars(module)["resolve_backend"] = resolve_backend


@functools.wraps(resolve_backend)
def _plain_torch(
    backend: Backend, op: str, device: torch.device, dtype: torch.dtype
) -> Literal["torch", "cpu"]:
    return resolve_backend("torch" if backend == "auto" else backend, op, device, dtype)
