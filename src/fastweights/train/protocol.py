"""Which checkpoint is kept and when a run stops. Pure arithmetic on scores."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from fastweights.train.config import RunConfig


class Score(NamedTuple):
    """What an evaluation is worth: accuracy (0 to 1; None for a task without one), then loss."""

    accuracy: float | None
    loss: float

    def __str__(self) -> str:
        return f"{self.loss:.4f}" if self.accuracy is None else f"{100 * self.accuracy:.1f} %"


@dataclasses.dataclass
class Selection:
    """Best evaluation so far, and what the stop rule needs. The fields go into checkpoints."""

    step: int = 0
    accuracy: float = -1.0
    loss: float = math.inf
    highest_accuracy: float = -1.0
    lowest_loss: float = math.inf
    evaluations_without_improvement: int = 0

    def update(self, step: int, score: Score) -> bool:
        """Take in an evaluation; True if it is the best so far.

        Best: the higher accuracy, then the lower loss; the earlier step on a tie of both.
        """
        accuracy, loss = score.accuracy or 0.0, score.loss
        improved = accuracy > self.highest_accuracy or loss < self.lowest_loss
        self.evaluations_without_improvement = (
            0 if improved else self.evaluations_without_improvement + 1
        )
        self.highest_accuracy = max(self.highest_accuracy, accuracy)
        self.lowest_loss = min(self.lowest_loss, loss)
        if (accuracy, -loss) <= (self.accuracy, -self.loss):
            return False
        self.step, self.accuracy, self.loss = step, accuracy, loss
        return True


class Protocol:
    """One split is looked at during training: the best evaluation is selected; the run stops when
    the split is solved or no better for `patience` evaluations.

    Args:
        config: the run.
        steps_per_epoch: None where there are no epochs.
        loss_name: of the loss among the scores.
        accuracy_name: of the accuracy among the scores; None: there is none.
        selects_last: the last weights are selected, not the best.
    """

    splits: tuple[str, ...] = ("validation",)

    def __init__(
        self,
        config: RunConfig,
        steps_per_epoch: int | None,
        loss_name: str = "nats_per_token",
        *,
        accuracy_name: str | None = "sequence_accuracy",
        selects_last: bool = False,
    ) -> None:
        training = config.training
        self.loss_name, self.accuracy_name = loss_name, accuracy_name
        self.selects_last = selects_last
        self.evaluate_every = training.evaluate_every or 1
        self.steps_per_epoch = steps_per_epoch
        self.patience, self.stop_loss = training.patience, training.stop_loss
        epochs = training.max_epochs
        self.max_steps = min(
            training.max_steps or math.inf,
            epochs * steps_per_epoch if epochs and steps_per_epoch else math.inf,
        )
        self.last_reason = "max_steps" if self.max_steps == training.max_steps else "max_epochs"

    @property
    def selection(self) -> str:
        """What selects, as result.json says it."""
        return "last" if self.selects_last else "+".join(self.splits)

    def evaluates_at(self, step: int) -> bool:
        """Every `evaluate_every` steps and at the last."""
        return step % self.evaluate_every == 0 or step >= self.max_steps

    def score(self, scores: Mapping[str, Mapping[str, Any]]) -> Score:
        """The mean over the splits; a loss that is not finite counts as infinite."""
        losses = [scores[name][self.loss_name] for name in self.splits]
        loss = math.inf if None in losses else sum(losses) / len(losses)
        if self.accuracy_name is None:
            return Score(None, loss)
        accuracies = [scores[name][self.accuracy_name] for name in self.splits]
        return Score(sum(accuracies) / len(accuracies), loss)

    def stop(self, score: Score, selection: Selection) -> str | None:
        """Why to stop after this evaluation, or None."""
        if score.accuracy in (None, 1.0) and score.loss < self.stop_loss:
            right = "" if score.accuracy is None else "validation accuracy 1.0, "
            return f"{right}{self.loss_name} below {self.stop_loss:g}"
        if self.patience and selection.evaluations_without_improvement >= self.patience:
            return f"{self.patience} evaluations without improvement"
        return None


class PublishedBins(Protocol):
    """The two test bins are looked at, as in the official code of Irie et al. (2023): the best mean
    of both is selected, and the run stops when both are at 100 %. So its numbers are optimistic by
    construction."""

    splits = ("bin0", "bin1")

    def evaluates_at(self, step: int) -> bool:
        """At every epoch's end, too."""
        return super().evaluates_at(step) or step % (self.steps_per_epoch or 1) == 0

    def stop(self, score: Score, selection: Selection) -> str | None:
        """Nothing but 100 % ends the run."""
        return "bin0 and bin1 at 100 %" if score.accuracy == 1.0 else None
