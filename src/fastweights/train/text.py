"""Language modelling: the next byte of a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastweights.models.menu import build_model
from fastweights.tasks.text.corpus import lanes, load_corpus
from fastweights.train.config import ConfigError, RunConfig, SequenceModelConfig, TextTask
from fastweights.train.data import generator_for
from fastweights.train.problem import Problem, Scores, TrainingLoss
from fastweights.train.protocol import Protocol
from fastweights.train.text_scores import segment_scores

VALIDATION_BYTES = 2**18
"""That an evaluation during training looks at, from the beginning."""


class TextProblem(Problem):
    """Cross-entropy of every next byte, in segments of `context_length` bytes that know nothing of
    each other.

    The training text is cut into one lane for each sequence of the batch; a step takes the next
    segment of every lane. Validation and test are cut into segments in the same way; what does not
    fill a last segment is left out. The weights of the lowest loss on (the beginning of) the
    validation text are selected.

    Raises ConfigError where the text cannot be read or is too short.
    """

    loss_name = "nats_per_token"

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        assert isinstance(config.task, TextTask)
        self.config, self.task, self.device = config, config.task, device
        try:
            corpus = load_corpus(self.task.text)
        except ValueError as error:
            raise ConfigError([str(error)]) from None
        self.lanes = lanes(corpus.splits["train"], config.training.batch_size)
        self.held_out = {name: corpus.splits[name] for name in ("validation", "test")}
        self.segments = (self.lanes.shape[1] - 1) // self.task.context_length
        shortest = min(self.lanes.shape[1], *map(len, self.held_out.values()))
        if shortest <= self.task.context_length:
            sizes = {name: len(tokens) for name, tokens in corpus.splits.items()}
            raise ConfigError(
                [
                    f"text: {self.task.text}: too short for {config.training.batch_size} sequences "
                    f"of {self.task.context_length} bytes: {sizes['train']} bytes to train, "
                    f"{sizes['validation']} to validate"
                ]
            )
        self.steps_per_epoch = self.segments
        self.checksum = corpus.checksum
        self.vocab_size = corpus.tokenizer.vocab_size
        self.protocol = Protocol(config, self.segments, self.loss_name, accuracy_name=None)

    def build_model(self) -> nn.Module:
        """Tokens of the corpus in, scores for the next one out."""
        assert isinstance(self.config.model, SequenceModelConfig)
        generator = generator_for(self.config.seed, "model")
        return build_model(self.config.model, self.vocab_size, self.vocab_size, generator)

    def training_loss(self, model: nn.Module, step: int) -> TrainingLoss:
        """Mean over all bytes of a segment of every lane."""
        length = self.task.context_length
        start = step % self.segments * length
        segment = self._on_device(self.lanes[:, start : start + length + 1])
        output = model(segment[:, :-1])
        loss = F.cross_entropy(output.logits.flatten(0, 1), segment[:, 1:].flatten())
        return TrainingLoss(loss, output.balance_loss, segment[:, 1:].numel())

    def evaluate(self, model: nn.Module, step: int) -> Mapping[str, Scores]:
        """On the beginning of `validation`."""
        return {"validation": self._scores(model, self.held_out["validation"][:VALIDATION_BYTES])}

    def conclude(self, model: nn.Module, step: int) -> dict[str, Any]:
        """On all of `validation` and `test`."""
        return {"splits": {name: self._scores(model, text) for name, text in self.held_out.items()}}

    def _scores(self, model: nn.Module, text: Tensor) -> Scores:
        return segment_scores(model, text, self.task.context_length, self.device)

    def _on_device(self, tokens: Tensor) -> Tensor:
        return tokens.to(self.device, torch.int64)
