"""Multi-query associative recall: how many of the queries of a sequence are answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastweights.models.menu import build_model
from fastweights.tasks.recall import Recall, draw_recall
from fastweights.train.accuracy import THRESHOLD, longest_length
from fastweights.train.config import RecallTask, RunConfig, SequenceModelConfig
from fastweights.train.data import generator_for
from fastweights.train.evaluation_mode import evaluation_mode
from fastweights.train.problem import Problem, Scores, TrainingLoss, finite_or_none
from fastweights.train.processes import check_rows, my_rows
from fastweights.train.protocol import Protocol

EVALUATION_TOKENS = 2**14
"""Of each length; the queries of one sequence at least."""
TOKENS_A_PASS = 2**12


class RecallProblem(Problem):
    """Cross-entropy of the value at each query, over all tokens; nothing else counts.

    Training sequences are drawn by step, of one length a step, the lengths in turn, a constant
    number of tokens. `validation` has sequences of every training length that are drawn once; the
    best accuracy over its queries is selected. Every query counts the same.
    """

    loss_name = "nats_per_query"
    steps_per_epoch = None
    checksum = "drawn by step"

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        assert isinstance(config.task, RecallTask)
        self.config, self.task, self.device = config, config.task, device
        self.protocol = Protocol(config, None, self.loss_name, accuracy_name="accuracy")
        check_rows(self._num_sequences(self.task.lengths[-1]))

    def build_model(self) -> nn.Module:
        """As many outputs as tokens."""
        model, size = self.config.model, self.task.vocab_size
        assert isinstance(model, SequenceModelConfig)
        return build_model(model, size, size, generator_for(self.config.seed, "model"))

    def training_loss(self, model: nn.Module, step: int) -> TrainingLoss:
        """Mean over the queries of a batch."""
        lengths = self.task.lengths
        length = lengths[step % len(lengths)]
        sequences = self._num_sequences(length)
        drawn = self._draw(sequences, length, generator_for(self.config.seed, "recall", step))
        targets = my_rows(drawn.targets.view(sequences, -1)).flatten()
        batch = Recall(my_rows(drawn.inputs), my_rows(drawn.asked), targets)
        output = model(batch.inputs, at=batch.asked)
        loss = F.cross_entropy(output.logits, batch.targets)
        return TrainingLoss(loss, output.balance_loss, batch.inputs.numel())

    def _num_sequences(self, length: int) -> int:
        """Of a training batch, over all processes."""
        shortest = self.task.lengths[0]
        return max(1, self.config.training.batch_size * shortest // length)

    def evaluate(self, model: nn.Module, step: int) -> Mapping[str, Scores]:
        """`validation`: the training lengths."""
        return {"validation": self._scores(model, "validation", self.task.lengths)}

    def conclude(self, model: nn.Module, step: int) -> dict[str, Any]:
        """Validation, and `by_length`: other sequences, at each test length."""
        lengths = self.task.test_lengths
        scores = [self._scores(model, "test", [length]) for length in lengths]
        by_length = {name: [one[name] for one in scores] for name in scores[0]}
        return {
            "splits": dict(self.evaluate(model, step)),
            "by_length": {
                "lengths": list(lengths),
                **by_length,
                "threshold": THRESHOLD,
                "longest_length": longest_length(lengths, by_length["accuracy"]),
            },
        }

    def shortest_sequence(self) -> Tensor:
        """The tokens [T] of the first sequence of `validation`."""
        return next(self._evaluation_batches("validation", self.task.lengths[:1])).inputs[0]

    @torch.inference_mode()
    def _scores(self, model: nn.Module, split: str, lengths: Sequence[int]) -> Scores:
        """accuracy (0 to 1), nats_per_query (None where it is not finite) and num_queries."""
        right = queries = 0
        nats = 0.0
        with evaluation_mode(model):
            for batch in self._evaluation_batches(split, lengths):
                logits = model(batch.inputs, at=batch.asked).logits.float()
                nats += F.cross_entropy(logits, batch.targets, reduction="sum").item()
                # A NaN must never count as right, wherever argmax finds it.
                found = (logits.argmax(-1) == batch.targets) & logits.isfinite().all(-1)
                right += int(found.sum())
                queries += len(batch.targets)
        return {
            "accuracy": right / queries,
            "nats_per_query": finite_or_none(nats / queries),
            "num_queries": queries,
        }

    def _evaluation_batches(self, split: str, lengths: Sequence[int]) -> Iterator[Recall]:
        for length in lengths:
            generator = generator_for(self.config.seed, f"recall {split}", length)
            for _ in range(max(1, EVALUATION_TOKENS // max(length, TOKENS_A_PASS))):
                yield self._draw(max(1, TOKENS_A_PASS // length), length, generator)

    def _draw(self, sequences: int, length: int, generator: torch.Generator) -> Recall:
        task = self.task
        drawn = draw_recall(
            sequences,
            length,
            task.num_keys(length),
            task.vocab_size,
            generator,
            task.random_filler,
            task.writes_per_key,
        )
        return Recall(*(x.to(self.device) for x in drawn))
