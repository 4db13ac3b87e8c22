"""Language modelling: the next token of a text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastweights.models.menu import build_model
from fastweights.tasks.text.corpus import lanes, load_corpus
from fastweights.train.config import ConfigError, RunConfig, SequenceModelConfig, TextTask
from fastweights.train.data import generator_for
from fastweights.train.problem import Problem, Scores, TrainingLoss, finite_or_none
from fastweights.train.protocol import Protocol

VALIDATION_TOKENS = 2**18
"""That an evaluation during training looks at, from the beginning."""
TOKENS_A_PASS = 2**14


class TextProblem(Problem):
    """Cross-entropy of every next token, in segments of `context_length` tokens that know nothing
    of each other.

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
                    f"of {self.task.context_length} tokens: {sizes['train']} tokens to train, "
                    f"{sizes['validation']} to validate"
                ]
            )
        self.steps_per_epoch = self.segments
        self.checksum = corpus.checksum
        self.tokenizer, self.vocab_size = corpus.tokenizer, corpus.tokenizer.vocab_size
        self.bytes_per_token = {
            name: corpus.num_bytes[name] / len(tokens) for name, tokens in self.held_out.items()
        }
        self.protocol = Protocol(config, self.segments, self.loss_name, accuracy_name=None)

    def build_model(self) -> nn.Module:
        """Tokens of the corpus in, scores for the next one out."""
        assert isinstance(self.config.model, SequenceModelConfig)
        generator = generator_for(self.config.seed, "model")
        return build_model(self.config.model, self.vocab_size, self.vocab_size, generator)

    def describe(self, run_folder: Path) -> None:
        """The tokenizer's file, where it has one."""
        self.tokenizer.save(run_folder)

    def training_loss(self, model: nn.Module, step: int) -> TrainingLoss:
        """Mean over all tokens of a segment of every lane."""
        length = self.task.context_length
        start = step % self.segments * length
        segment = self._on_device(self.lanes[:, start : start + length + 1])
        output = model(segment[:, :-1])
        loss = F.cross_entropy(output.logits.flatten(0, 1), segment[:, 1:].flatten())
        return TrainingLoss(loss, output.balance_loss, segment[:, 1:].numel())

    def evaluate(self, model: nn.Module, step: int) -> Mapping[str, Scores]:
        """On the beginning of `validation`."""
        return {"validation": self._scores(model, "validation", VALIDATION_TOKENS)}

    def conclude(self, model: nn.Module, step: int) -> dict[str, Any]:
        """On all of `validation` and `test`."""
        return {"splits": {name: self._scores(model, name) for name in self.held_out}}

    @torch.inference_mode()
    def _scores(self, model: nn.Module, split: str, num_tokens: int | None = None) -> Scores:
        """nats_per_token, bits_per_byte, and perplexity where tokens are no bytes (None where not
        finite), and num_tokens; of the first `num_tokens`, or all.

        bits_per_byte counts the bytes of the whole split for all of its tokens.
        """
        text, length = self.held_out[split][:num_tokens], self.task.context_length
        count = (len(text) - 1) // length
        starts = torch.arange(count) * length
        segments = text[starts[:, None] + torch.arange(length + 1)]
        was_training = model.training
        model.eval()
        nats = 0.0
        for part in segments.split(max(1, TOKENS_A_PASS // length)):
            part = self._on_device(part)
            logits = model(part[:, :-1]).logits.float()
            nats += F.cross_entropy(
                logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum"
            ).item()
        model.train(was_training)
        mean = nats / (count * length)
        scores = {
            "nats_per_token": finite_or_none(mean),
            "bits_per_byte": finite_or_none(mean / self.bytes_per_token[split] / math.log(2)),
            "num_tokens": count * length,
        }
        if self.tokenizer.file is not None:
            scores["perplexity"] = finite_or_none(_exp(mean))
        return scores

    def _on_device(self, tokens: Tensor) -> Tensor:
        return tokens.to(self.device, torch.int64)


def _exp(nats: float) -> float:
    """exp, infinite where it is too large."""
    return math.exp(nats) if nats < 700 else math.inf
