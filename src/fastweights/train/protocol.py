"""Which checkpoint is kept and when a run stops. Pure arithmetic on accuracies.

`published` looks at the two test bins, as the official code does (best mean of both, stop when both
are at 100 %), so its numbers are optimistic by construction. `strict` looks at the validation
split only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from fastweights.train.config import RunConfig


@dataclasses.dataclass
class Selection:
    """Best evaluation so far, and what the stop rule needs. The fields go into checkpoints."""

    step: int = 0
    accuracy: float = -1.0
    nats_per_token: float = math.inf
    highest_accuracy: float = -1.0
    lowest_nats: float = math.inf
    evaluations_without_improvement: int = 0

    def update(self, step: int, accuracy: float, nats_per_token: float) -> bool:
        """Take in an evaluation; True if it is the best so far.

        Best: the higher accuracy, then the lower nats per token; the earlier step on a tie of both.
        """
        improved = accuracy > self.highest_accuracy or nats_per_token < self.lowest_nats
        self.evaluations_without_improvement = (
            0 if improved else self.evaluations_without_improvement + 1
        )
        self.highest_accuracy = max(self.highest_accuracy, accuracy)
        self.lowest_nats = min(self.lowest_nats, nats_per_token)
        if (accuracy, -nats_per_token) <= (self.accuracy, -self.nats_per_token):
            return False
        self.step, self.accuracy, self.nats_per_token = step, accuracy, nats_per_token
        return True


class Protocol:
    """The splits a protocol evaluates during training, its selection and its stop rule."""

    def __init__(self, config: RunConfig, steps_per_epoch: int) -> None:
        training = config.training
        self.published = config.protocol == "published"
        self.splits = ("bin0", "bin1") if self.published else ("validation",)
        self.selection: Literal["validation", "bin0+bin1"] = (
            "bin0+bin1" if self.published else "validation"
        )
        self.evaluate_every = training.evaluate_every or 1
        self.steps_per_epoch = steps_per_epoch
        self.patience, self.stop_nats = training.patience, training.stop_nats
        epochs = training.max_epochs
        self.max_steps = min(
            training.max_steps or math.inf, epochs * steps_per_epoch if epochs else math.inf
        )
        self.last_reason = "max_steps" if self.max_steps == training.max_steps else "max_epochs"

    def evaluates_at(self, step: int) -> bool:
        """Every `evaluate_every` steps, at the last, and under published at every epoch's end."""
        return (
            step % self.evaluate_every == 0
            or step >= self.max_steps
            or (self.published and step % self.steps_per_epoch == 0)
        )

    def score(self, scores: Mapping[str, Mapping[str, Any]]) -> tuple[float, float]:
        """(sequence accuracy, nats per token), each the mean over the protocol's splits."""
        accuracy = [scores[name]["sequence_accuracy"] for name in self.splits]
        nats = [scores[name]["nats_per_token"] for name in self.splits]
        finite = all(value is not None for value in nats)
        return sum(accuracy) / len(accuracy), sum(nats) / len(nats) if finite else math.inf

    def stop(self, accuracy: float, nats_per_token: float, selection: Selection) -> str | None:
        """Why to stop after this evaluation, or None."""
        if self.published:
            return "bin0 and bin1 at 100 %" if accuracy >= 1.0 else None
        if accuracy >= 1.0 and nats_per_token < self.stop_nats:
            return f"validation accuracy 1.0, nats_per_token below {self.stop_nats:g}"
        if self.patience and selection.evaluations_without_improvement >= self.patience:
            return f"{self.patience} evaluations without improvement"
        return None
