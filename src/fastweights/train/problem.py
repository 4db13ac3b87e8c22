"""What a run learns, behind one interface: the loop knows no task."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from fastweights.train.protocol import Protocol

Scores = dict[str, Any]
"""Numbers of one evaluation by name; None where one is not finite."""


class TrainingLoss(NamedTuple):
    """loss: a mean over `num_tokens` of the batch; penalty: added to it for the backward pass, not
    shown."""

    loss: Tensor
    penalty: Tensor | float
    num_tokens: int


class Problem(ABC):
    """A task with the model that learns it. What is random follows from the run's seed and the
    step, so a resumed run needs no other state, or that of `state_dict`.

    Attributes:
        loss_name: of the loss, with its unit, in the metrics.
        steps_per_epoch: None where training sequences are drawn without end.
        checksum: of the training data; a run does not go on with others.
        protocol: when to evaluate, what to select, when to stop.
    """

    loss_name: str
    steps_per_epoch: int | None
    checksum: str
    protocol: Protocol

    @abstractmethod
    def build_model(self) -> nn.Module:
        """The untrained model on the CPU, its weights drawn with the run's seed."""

    @abstractmethod
    def training_loss(self, model: nn.Module, step: int) -> TrainingLoss:
        """The loss of the batch of step 0, 1, ..."""

    def training_losses(self, model: nn.Module, step: int) -> Iterator[TrainingLoss]:
        """The losses of the `training.accumulate` parts of the batch of step 0, 1, ..., which count
        the same; each is computed when it is asked for."""
        yield self.training_loss(model, step)

    @abstractmethod
    def evaluate(self, model: nn.Module, step: int) -> Mapping[str, Scores]:
        """Scores by split, those that the protocol looks at after a step."""

    @abstractmethod
    def conclude(self, model: nn.Module, step: int) -> dict[str, Any]:
        """What result.json says of the selected weights, those of a step: `splits` and more."""

    def describe(self, run_folder: Path) -> None:  # noqa: B027
        """Write beside the configuration what one needs to read the run, if anything."""

    def check(self, run_folder: Path) -> None:  # noqa: B027
        """Raise RunFolderError where the data are not those that the run learned."""

    def state_dict(self) -> dict[str, Any]:
        """What the next step needs beside the weights, for a checkpoint: tensors in lists."""
        return {}

    def load_state_dict(self, values: Mapping[str, Any], model: nn.Module) -> None:  # noqa: B027
        """Go on from what `state_dict` returned."""

    def epoch(self, step: int) -> float | None:
        """Passes over the training data after a step."""
        return None if self.steps_per_epoch is None else step / self.steps_per_epoch


def finite_or_none(value: float) -> float | None:
    """JSON has neither NaN nor infinities."""
    return value if math.isfinite(value) else None
