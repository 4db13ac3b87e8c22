"""One training run: data keyed by step, Lightning Fabric, a run folder that can be resumed.

Interrupted and resumed equals uninterrupted, bit for bit on CPU: weights, optimizer, metrics (but
the times). A step's batch follows from its number; dropout's generator state is in the checkpoint,
and so is the model's state where a task carries it from step to step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.utils._pytree import tree_map

from fastweights.atomic import write_json
from fastweights.train import processes
from fastweights.train.activation_checkpointing import checkpoint_blocks
from fastweights.train.checkpoint import Checkpoint, Checkpoints
from fastweights.train.config import RunConfig, save_config
from fastweights.train.environment import find_device, write_environment
from fastweights.train.errors import CheckpointError, NonFiniteLossError, TrainingInterrupted
from fastweights.train.expert_usage import summary, watched_experts
from fastweights.train.lock import locked_folder
from fastweights.train.log import Metrics, NoMetrics, write_failure
from fastweights.train.optimizer import build_optimizer, lr_at, set_lr
from fastweights.train.problem import Problem
from fastweights.train.problems import load_problem
from fastweights.train.process import (
    Signals,
    cpu_threads,
    default_generators,
    full_disk_in_threads,
)
from fastweights.train.progress import ProgressBar
from fastweights.train.protocol import Selection
from fastweights.train.run_folder import check_folder, finished_result, last_checkpoint
from fastweights.train.run_model import spelled_out

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Result = dict[str, Any]

LOG_EVERY = 10
"""Steps that one training line of the metrics sums up."""

EXPERTS_FILE = "experts.json"
"""Of a model with experts: by layer, which ones it chose in the last evaluation."""

RESUME_HINT = "fastweights train --resume {run_folder}"


@dataclasses.dataclass
class RunState:
    """What a checkpoint knows beside weights, optimizer and generators. Plain values only."""

    step: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0  # of all threads
    stopped_because: str | None = None
    window_loss: float = 0.0
    window_tokens: int = 0
    selection: Selection = dataclasses.field(default_factory=Selection)

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, the selection as a dict."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunState:
        """The reverse of `as_dict`."""
        return cls(**{**values, "selection": Selection(**values["selection"])})


def train(
    config: RunConfig, run_folder: Path, *, resume: bool = False, progress: bool = True
) -> Result:
    """Train, select, evaluate once on every split and along the horizon; returns the result.

    A finished run that is resumed returns its result. Raises, one line each: ConfigError or
    ValueError (values, names, no CUDA device), RunFolderError (folder in use, by another process
    too; nothing to resume), CheckpointError (damaged, another configuration, disk full),
    NonFiniteLossError, TrainingInterrupted (Ctrl-C, SIGTERM; the run can be resumed),
    OtherProcessError. A run that failed leaves RUN/failure.json. Sets the number of CPU threads
    during the run, and seeds torch's default generators (dropout has no other) inside a fork that
    puts them back.

    Under torchrun every process calls this, and all return the result; the first one alone touches
    the folder. Processes that torchrun has started again go on with the run that is there.
    """
    config, run_folder = spelled_out(config), Path(run_folder)
    processes.join(config.strategy, config.device)
    resume = resume or (processes.was_restarted() and (run_folder / "config.yaml").exists())
    resume = processes.from_first(resume)
    finished = processes.from_first(processes.first(lambda: _finished(config, run_folder, resume)))
    if finished is not None:
        return finished
    device = find_device(config.device)
    with (
        cpu_threads(config.num_threads),
        default_generators(config.seed, device, processes.rank()),
        full_disk_in_threads(),
        Signals() as signals,
        contextlib.ExitStack() as folder,
    ):
        # Names and data are checked before the folder is touched.
        problem = load_problem(config, device)
        model = problem.build_model()
        opened = processes.first(
            lambda: folder.enter_context(_opened(config, run_folder, resume, problem, device))
        )
        last, metrics = opened or (None, NoMetrics())
        run = _Run(config, run_folder, problem, model, device, metrics, signals)
        return run.finish(last, progress)


def _finished(config: RunConfig, run_folder: Path, resume: bool) -> Result | None:
    """The result that is there already; else None, if the run may begin or go on."""
    check_folder(run_folder, resume)
    if resume and (run_folder / "result.json").exists():
        return finished_result(config, run_folder)
    return None


@contextlib.contextmanager
def _opened(
    config: RunConfig, run_folder: Path, resume: bool, problem: Problem, device: torch.device
) -> Iterator[tuple[Checkpoint | None, Metrics]]:
    """The folder, locked, with what describes the run in it: its last checkpoint and its metrics.
    An error inside the `with` is written into it."""
    with locked_folder(run_folder, "training"):
        check_folder(run_folder, resume)  # another process may have come and gone meanwhile
        last = last_checkpoint(config, run_folder) if resume else None
        (run_folder / "failure.json").unlink(missing_ok=True)
        try:
            save_config(config, run_folder / "config.yaml")
            problem.describe(run_folder)
            write_environment(
                run_folder, device, torch.get_num_threads(), last.step if last else None
            )
            with Metrics(run_folder, last.step if last else (0 if resume else None)) as metrics:
                yield last, metrics
        except Exception as error:
            write_failure(run_folder, error)
            raise


class _Run:
    """The moving parts of one call of `train`."""

    def __init__(
        self,
        config: RunConfig,
        run_folder: Path,
        problem: Problem,
        model: nn.Module,
        device: torch.device,
        metrics: Metrics | NoMetrics,
        signals: Signals,
    ) -> None:
        self.config, self.run_folder, self.problem = config, run_folder, problem
        self.device, self.metrics, self.signals = device, metrics, signals
        self.state = RunState()
        self.checkpoints = Checkpoints(run_folder)
        self.protocol = problem.protocol
        self.num_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        processes.balance_experts_together(model)
        self.fabric = _fabric(config, device)
        self.raw_model = model
        if config.training.activation_checkpointing:
            checkpoint_blocks(model)
        self.model = self.fabric.setup_module(model)
        self.trainable = [p for p in model.parameters() if p.requires_grad]
        self.raw_optimizer = build_optimizer(self.trainable, config.training)
        optimizer = self.fabric.setup_optimizers(self.raw_optimizer)
        assert not isinstance(optimizer, tuple)  # that is for several
        self.optimizer = optimizer

    def finish(self, last: Checkpoint | None, progress: bool) -> Result:
        """From the last checkpoint (or step 0) to result.json."""
        if processes.from_first(last is not None):
            self._restore(last)
        bar = ProgressBar(
            int(self.protocol.max_steps),
            self.state.step,
            self.problem.loss_name,
            progress and processes.rank() == 0,
        )
        try:
            self._train(bar)
            self.metrics.close()  # what cannot be written is told before the run counts as done
            return self._conclude()
        except TrainingInterrupted:
            hint = RESUME_HINT.format(run_folder=self.run_folder)
            raise TrainingInterrupted(
                f"stopped at step {self.state.step}; to go on: {hint}"
            ) from None
        finally:
            bar.close()

    def _train(self, bar: ProgressBar) -> None:
        """Steps until the protocol stops.

        At each step: log, evaluate, checkpoint, in this order, so that a checkpoint is the state
        after everything that its step wrote.
        """
        state, training = self.state, self.config.training
        before, began = state.wall_s, time.perf_counter()
        cpu_before = state.cpu_s - time.process_time()
        window_began, window_tokens = began, 0
        self.model.train()
        while state.stopped_because is None:
            window_tokens += self._step()
            now = time.perf_counter()
            state.wall_s = before + now - began
            if state.step % LOG_EVERY == 0:
                speed = window_tokens / (now - window_began)
                self._log_window(bar, speed)
                window_began, window_tokens = now, 0
            best = self.protocol.evaluates_at(state.step) and self._evaluate(bar)
            window_began += time.perf_counter() - now  # the speed is that of training alone
            state.wall_s = before + time.perf_counter() - began
            state.cpu_s = cpu_before + time.process_time()
            due = state.step % training.checkpoint_every == 0
            interrupted = processes.anywhere(self.signals.received)
            if best or due or state.stopped_because or interrupted:
                self._save(best)
            if interrupted:
                raise TrainingInterrupted(f"interrupted at step {state.step}")

    def _step(self) -> int:
        """One optimizer step; returns the number of counted tokens."""
        state, training = self.state, self.config.training
        set_lr(self.raw_optimizer, lr_at(state.step, training))
        losses = self.problem.training_losses(self.model, state.step)
        step_loss, step_tokens = 0.0, 0
        for part in range(training.accumulate):
            with self._gradients_kept(part + 1 < training.accumulate):
                loss, penalty, num_tokens = next(losses)
                value, num_tokens, weight = processes.mean_loss(loss.item(), num_tokens)
                step_loss += value / training.accumulate
                step_tokens += num_tokens
                if not math.isfinite(step_loss):
                    raise NonFiniteLossError(
                        f"the loss is {step_loss} at step {state.step + 1}{self._kept()}"
                    )
                self.fabric.backward((loss * weight + penalty) / training.accumulate)
        if training.clip_norm is not None:
            norm = self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=training.clip_norm, error_if_nonfinite=False
            )
            assert norm is not None  # of all gradients, in every process
            if not norm.isfinite():
                raise NonFiniteLossError(
                    f"the gradient is not finite at step {state.step + 1}, loss {step_loss:.4g}"
                    f"{self._kept()}"
                )
        self.optimizer.step()
        self.optimizer.zero_grad()
        state.step += 1
        state.window_loss += step_loss * step_tokens
        state.window_tokens += step_tokens
        return step_tokens

    def _gradients_kept(self, kept: bool) -> contextlib.AbstractContextManager[None]:
        """Inside the `with` the gradients of several processes are not added up, if `kept`."""
        if not kept or processes.alone():
            return contextlib.nullcontext()
        return self.fabric.no_backward_sync(self.model)

    def _log_window(self, bar: ProgressBar, tokens_per_s: float) -> None:
        state = self.state
        loss = state.window_loss / state.window_tokens
        scores = {self.problem.loss_name: loss, "tokens_per_s": tokens_per_s}
        self._log("train", scores)
        bar.step(state.step, loss, tokens_per_s)
        state.window_loss, state.window_tokens = 0.0, 0

    def _log(self, split: str, scores: Mapping[str, float | None]) -> None:
        step, epoch = self.state.step, self.problem.epoch(self.state.step)
        epochs = {} if epoch is None else {"epoch": epoch}
        self.metrics.write(step=step, split=split, **epochs, **scores, wall_s=self.state.wall_s)

    def _evaluate(self, bar: ProgressBar) -> bool:
        """Evaluate the protocol's splits, decide whether to stop; True if it is the best so far."""
        state = self.state
        with watched_experts(self.raw_model) as usages:
            scores = processes.from_first(self.problem.evaluate(self.model, state.step))
        for split, values in scores.items():
            kept = {key: x for key, x in values.items() if not key.startswith("num_")}
            self._log(split, kept)
        if usages:
            self._log("experts", summary(usages))
        score = self.protocol.score(scores)
        best = state.selection.update(state.step, score)
        state.stopped_because = self.protocol.stop(score, state.selection)
        if state.stopped_because is None and state.step >= self.protocol.max_steps:
            state.stopped_because = self.protocol.last_reason
        bar.evaluated(state.step, "+".join(self.protocol.splits), score)
        return best

    def _conclude(self) -> Result:
        """With the selected weights: every split and the horizon, once; then result.json."""
        self.signals.at_once = True  # nothing is left that a checkpoint would save
        state = self.state
        which: Literal["last", "best"] = "last" if self.protocol.selects_last else "best"
        selected = processes.first(lambda: self.checkpoints.load(which))
        processes.load_model_state(self.raw_model, selected and selected.model)
        step = processes.from_first(selected and selected.step)
        assert step is not None
        with watched_experts(self.raw_model) as usages:
            conclusion = processes.from_first(self.problem.conclude(self.model, step))
        result = {
            "status": "done",
            "stopped_because": state.stopped_because,
            "selected_step": step,
            "steps": state.step,
            "wall_s": state.wall_s,
            "cpu_s": state.cpu_s,
            "num_parameters": self.num_parameters,
            "protocol": self.config.protocol,
            "selection": self.protocol.selection,
            **conclusion,
            **({"experts": summary(usages)} if usages else {}),
        }
        result = processes.from_first(result)  # the times are those of the first process

        def write() -> None:
            if usages:
                layers = {name: usage.as_dict() for name, usage in usages.items()}
                write_json(self.run_folder / EXPERTS_FILE, layers)
            write_json(self.run_folder / "result.json", result)

        processes.first(write)
        return result

    def _save(self, best: bool) -> None:
        generators = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state(self.device)
        training_state = {
            "run": self.state.as_dict(),
            "optimizer": processes.optimizer_state(self.raw_model, self.raw_optimizer),
            "generators": generators,
            "generators_of_others": processes.gathered(generators)[1:],
            "config": json.dumps(self.config.model_dump(mode="json")),
            "training_data": self.problem.checksum,
            "problem": processes.all_rows(self.problem.state_dict()),
        }
        model_state = processes.model_state(self.raw_model)

        def write() -> None:
            if not all(bool(x.isfinite().all()) for x in model_state.values()):
                raise NonFiniteLossError(
                    f"the weights are not finite after step {self.state.step}{self._kept()}"
                )
            self.metrics.sync()
            self.checkpoints.save(self.state.step, model_state, training_state, best=best)

        processes.first(write)

    def _restore(self, checkpoint: Checkpoint | None) -> None:
        """From the checkpoint, which the first process has. Its files do not depend on how many
        processes there are: generators go on where their process was there, too."""
        model, saved = checkpoint[1:] if checkpoint else (None, {})
        optimizer = saved.pop("optimizer", None)
        saved = processes.from_first(saved)
        if saved["training_data"] != self.problem.checksum:
            raise CheckpointError(
                f"{self.run_folder}: the training data have changed since step "
                f"{saved['run']['step']}: "
                f"checksum {self.problem.checksum[:12]}, it was {saved['training_data'][:12]}"
            )
        processes.load_model_state(self.raw_model, model)
        processes.load_optimizer_state(self.raw_model, self.raw_optimizer, optimizer)
        problem = tree_map(processes.my_rows, saved.get("problem", {}))
        self.problem.load_state_dict(problem, self.raw_model)
        self.state = RunState.from_dict(saved["run"])
        of_all = [saved["generators"], *saved.get("generators_of_others", [])]
        if processes.rank() < len(of_all):
            generators = of_all[processes.rank()]
            torch.set_rng_state(generators["cpu"].clone())
            if self.device.type == "cuda" and "cuda" in generators:
                torch.cuda.set_rng_state(generators["cuda"].clone(), self.device)

    def _kept(self) -> str:
        if not self.checkpoints.exist():
            return "; no checkpoint yet"
        return f"; the last good checkpoint is {self.checkpoints.index()['last']}"


def _fabric(config: RunConfig, device: torch.device) -> Fabric:
    from lightning_fabric import Fabric  # takes longer than torch: not before a mistake is told

    from fastweights.train.precision import precision_plugin

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=device.type,
        plugins=precision_plugin(config.precision, device.type),
        **processes.fabric_options(config.strategy),
    )
    fabric.launch()
    return fabric
