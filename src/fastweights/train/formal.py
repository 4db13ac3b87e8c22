"""Formal languages, and the user's own: a label for every prefix of a string."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fastweights.train.accuracy import evaluate_examples, horizon
from fastweights.train.config import ConfigError, RunConfig
from fastweights.train.data import IGNORED, TrainingBatches, load_run_task
from fastweights.train.problem import Problem, Scores, TrainingLoss
from fastweights.train.protocol import Protocol, PublishedBins
from fastweights.train.run_model import build_run_model
from fastweights.train.task_file import write_task


class FormalLanguageProblem(Problem):
    """Cross-entropy of the labels; sequence accuracy on validation and the bins; the horizon.

    Raises ConfigError where a split that the protocol needs is missing.
    """

    loss_name = "nats_per_token"

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.task = load_run_task(config)
        protocol = PublishedBins if config.protocol == "published" else Protocol
        for split in ("train", *protocol.splits):
            if not self.task.splits.get(split):
                raise ConfigError(
                    [
                        f"task {self.task.name}: no {split} split, which protocol "
                        f"{config.protocol!r} needs"
                    ]
                )
        self.batches = TrainingBatches(self.task, config.training.batch_size, config.seed, device)
        self.steps_per_epoch = self.batches.steps_per_epoch
        self.checksum = self.batches.checksum
        self.protocol = protocol(config, self.steps_per_epoch)

    def build_model(self) -> nn.Module:
        """One input more than symbols and one output more than labels: the padding."""
        return build_run_model(self.config, self.task)

    def describe(self, run_folder: Path) -> None:
        """task.json, and a copy of the user's automaton."""
        write_task(self.config, self.task, run_folder)

    def training_loss(self, model: nn.Module, step: int) -> TrainingLoss:
        """Mean over the counted positions of a batch."""
        batch = self.batches.batch(step)
        output = model(batch.inputs)
        loss = F.cross_entropy(
            output.logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED
        )
        return TrainingLoss(loss, output.balance_loss, batch.num_tokens)

    def evaluate(self, model: nn.Module, step: int) -> Mapping[str, Scores]:
        """On the protocol's splits."""
        return {name: self._scores(model, name) for name in self.protocol.splits}

    def conclude(self, model: nn.Module, step: int) -> dict[str, Any]:
        """Every split and the horizon, once."""
        config = self.config
        splits = {
            name: self._scores(model, name)
            for name in ("validation", "bin0", "bin1")
            if self.task.splits.get(name)
        }
        measured = horizon(
            model,
            self.task,
            config.horizon_lengths,
            config.horizon_sequences,
            config.seed,
            device=self.device,
        )
        return {"splits": splits, "horizon": measured}

    def _scores(self, model: nn.Module, split: str) -> Scores:
        return evaluate_examples(
            model,
            self.task.splits[split],
            self.task.symbols,
            self.task.labels,
            device=self.device,
        ).as_dict()
