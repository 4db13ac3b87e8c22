"""Associative retrieval: how far what a memory reads is from the value that was stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastweights.models.associative_memory import AssociativeMemory
from fastweights.tasks.retrieval import (
    PUBLISHED_MAX_QUERIES,
    Retrieval,
    ask_all,
    ask_one,
    draw_pairs,
    train_length,
)
from fastweights.train.config import AssociativeMemoryConfig, RetrievalTask, RunConfig
from fastweights.train.data import generator_for
from fastweights.train.problem import Problem, Scores, TrainingLoss, finite_or_none
from fastweights.train.processes import check_rows, my_rows
from fastweights.train.protocol import Protocol

EVALUATION_SEQUENCES = 20
TEST_SEQUENCES = 100
PUBLISHED_CHUNK = 32
"""The official code takes a mean over chunks of at most so many queries, then one over chunks."""
NUMBERS_A_PASS = 2**22
"""Read weights that an evaluation computes at once."""


class RetrievalProblem(Problem):
    """Half the squared distance between the value and what is read, summed over the S components:
    0.5 for a memory that reads nothing. Schlag, Irie, Schmidhuber (2021), section 6.1.

    Training sequences are drawn by step. Variant `published` evaluates as the official code does:
    20 new sequences of length S (also where the training sequences have 2 S pairs), the first 200
    of their keys, the mean over chunks of at most 32 queries without weights; the last weights are
    the result. Variant `strict` evaluates every key of 20 sequences that are drawn once, as long as
    the training sequences, selects the best weights and tests them on 100 others.
    """

    loss_name = "squared_error"
    steps_per_epoch = None
    checksum = "drawn by step"

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        assert isinstance(config.task, RetrievalTask)
        self.config, self.task, self.device = config, config.task, device
        check_rows(config.training.batch_size)
        self.published = config.task.variant == "published"
        self.length = train_length(self.task.num_keys, self.task.replacement)
        self.protocol = Protocol(
            config, None, self.loss_name, accuracy_name=None, selects_last=self.published
        )

    def build_model(self) -> nn.Module:
        """See `fastweights.models.associative_memory`."""
        return build_associative_memory(self.config)

    def training_loss(self, model: nn.Module, step: int) -> TrainingLoss:
        """One query a sequence."""
        generator = generator_for(self.config.seed, "retrieval", step)
        sequences = self.config.training.batch_size
        keys, values = self._pairs(sequences, self.length, generator)
        batch = Retrieval(*map(my_rows, ask_one(keys, values, generator)))
        loss = squared_errors(model, self._on_device(batch)).mean()
        return TrainingLoss(loss, 0.0, batch.keys.numel())

    def evaluate(self, model: nn.Module, step: int) -> Mapping[str, Scores]:
        """`validation`: 20 sequences."""
        number = step if self.published else 0
        length = self.task.num_keys if self.published else self.length
        return {"validation": self._scores(model, EVALUATION_SEQUENCES, length, number)}

    def conclude(self, model: nn.Module, step: int) -> dict[str, Any]:
        """Strict: `test`, 100 sequences. Published: the last evaluation."""
        if self.published:
            return {"splits": dict(self.evaluate(model, step))}
        return {"splits": {"test": self._scores(model, TEST_SEQUENCES, self.length, 1)}}

    def validation_pairs(self) -> tuple[Tensor, Tensor]:
        """Keys and values [20, T] of the strict validation set."""
        generator = self._evaluation_generator(0)
        return self._pairs(EVALUATION_SEQUENCES, self.length, generator)

    @torch.inference_mode()
    def _scores(self, model: nn.Module, sequences: int, length: int, number: int) -> Scores:
        keys, values = self._pairs(sequences, length, self._evaluation_generator(number))
        most = PUBLISHED_MAX_QUERIES if self.published else None
        asked = ask_all(keys, values, self.task.num_keys, most)
        at_once = max(1, NUMBERS_A_PASS // (asked.queries.shape[1] * max(length, 1)))
        errors, right = [], []
        was_training = model.training
        model.eval()
        for start in range(0, sequences, at_once):
            part = Retrieval(*(x[start : start + at_once] for x in self._on_device(asked)))
            read = model(part.keys, part.values, part.queries)
            errors.append(_errors(read, part.targets).cpu())
            right.append((read.argmax(-1) == part.targets).cpu())
        model.train(was_training)
        counted = asked.counted
        found = torch.cat(errors)
        mean = _mean_of_chunks(found, counted) if self.published else found[counted].mean().item()
        return {
            "squared_error": finite_or_none(mean),
            "accuracy": torch.cat(right)[counted].double().mean().item(),
            "num_queries": int(counted.sum()),
        }

    def _pairs(
        self, sequences: int, length: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        task = self.task
        return draw_pairs(sequences, task.num_keys, length, task.replacement, generator)

    def _evaluation_generator(self, number: int) -> torch.Generator:
        return generator_for(self.config.seed, "retrieval evaluation", number)

    def _on_device(self, batch: Retrieval) -> Retrieval:
        return Retrieval(*(x.to(self.device) for x in batch))


def build_associative_memory(config: RunConfig) -> AssociativeMemory:
    """The untrained model of a retrieval run. Raises ValueError for options that do not fit."""
    model = config.resolved().model
    assert isinstance(model, AssociativeMemoryConfig) and isinstance(config.task, RetrievalTask)
    options = model.model_dump(exclude={"kind"})
    return AssociativeMemory(
        config.task.num_keys, **options, generator=generator_for(config.seed, "model")
    )


def squared_errors(model: nn.Module, asked: Retrieval) -> Tensor:
    """Half the squared distance of each query [B, M]."""
    return _errors(model(asked.keys, asked.values, asked.queries), asked.targets)


def _errors(read: Tensor, targets: Tensor) -> Tensor:
    return (read - F.one_hot(targets, read.shape[-1])).square().sum(-1) / 2


def _mean_of_chunks(errors: Tensor, counted: Tensor) -> float:
    """Over chunks of PUBLISHED_CHUNK queries of one sequence, each one's mean counting the same."""
    means = [
        chunk.mean().item()
        for of_sequence, mask in zip(errors, counted, strict=True)
        for chunk in of_sequence[mask].split(PUBLISHED_CHUNK)
    ]
    return math.fsum(means) / len(means)
