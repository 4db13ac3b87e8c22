"""Language modelling: the next byte of a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from fastweights.models.menu import build_model
from fastweights.models.sequence_model import SequenceModel
from fastweights.models.state import enter_segment, leave_segment, tensors_of, with_tensors
from fastweights.tasks.text.corpus import lanes, load_corpus
from fastweights.train.config import ConfigError, RunConfig, SequenceModelConfig, TextTask
from fastweights.train.corpus_file import check_corpus, write_corpus
from fastweights.train.data import generator_for
from fastweights.train.problem import Problem, Scores, TrainingLoss
from fastweights.train.processes import check_even, my_rows
from fastweights.train.protocol import Protocol
from fastweights.train.text_scores import carried_scores, segment_scores

VALIDATION_BYTES = 2**18
"""That an evaluation during training looks at, from the beginning."""


class TextProblem(Problem):
    """Cross-entropy of every next byte, in segments of `context_length` bytes.

    The training text is cut into one lane for each sequence of the batch; a step takes the next
    segment of every lane. With `carry_state` a segment begins in the state in which the one before
    it ended (see `models.state.leave_segment`), without gradients through it, and an epoch begins
    in the empty state; otherwise segments know nothing of each other. Validation and test are read
    in the same way: in segments, or in as many lanes as a batch has. The weights of the lowest loss
    on (the beginning of) the validation text are selected.

    Raises ConfigError where the text cannot be read or is too short.
    """

    loss_name = "nats_per_token"

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        assert isinstance(config.task, TextTask)
        self.config, self.task, self.device = config, config.task, device
        try:
            self.corpus = corpus = load_corpus(self.task.text)
        except ValueError as error:
            raise ConfigError([str(error)]) from None
        check_even(config.training.batch_size // config.training.accumulate)
        self.lanes = my_rows(lanes(corpus.splits["train"], config.training.batch_size))
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
        self.parts = self.lanes.chunk(config.training.accumulate)
        self.carried: list[Any] = [None] * len(self.parts)

    def build_model(self) -> nn.Module:
        """Tokens of the corpus in, scores for the next one out."""
        assert isinstance(self.config.model, SequenceModelConfig)
        generator = generator_for(self.config.seed, "model")
        return build_model(self.config.model, self.vocab_size, self.vocab_size, generator)

    def describe(self, run_folder: Path) -> None:
        """corpus.json."""
        write_corpus(self.task.text, self.corpus, run_folder)

    def check(self, run_folder: Path) -> None:
        """The text is the one of corpus.json."""
        check_corpus(self.task.text, self.corpus, run_folder)

    def training_loss(self, model: nn.Module, step: int, part: int = 0) -> TrainingLoss:
        """Mean over all bytes of a segment of every lane of a part."""
        length = self.task.context_length
        start = step % self.segments * length
        segment = self._on_device(self.parts[part][:, start : start + length + 1])
        if not self.task.carry_state:
            output = model(segment[:, :-1], None, targets=segment[:, 1:])
        else:
            initial = cast(SequenceModel, model).initial_state(len(segment))
            state = enter_segment(self.carried[part], initial) if start else initial
            output = model(segment[:, :-1], state, targets=segment[:, 1:])
            self.carried[part] = leave_segment(output.state, initial)
        return TrainingLoss(output.nats.mean(), output.balance_loss, output.nats.numel())

    def training_losses(self, model: nn.Module, step: int) -> Iterator[TrainingLoss]:
        """Part by part: some of the lanes."""
        for part in range(len(self.parts)):
            yield self.training_loss(model, step, part)

    def state_dict(self) -> dict[str, Any]:
        """`carried`: the tensors of the state in which the next segment begins, all lanes."""
        if self.carried[0] is None:
            return {}
        parts = zip(*map(tensors_of, self.carried), strict=True)
        return {"carried": [torch.cat(tensors).cpu() for tensors in parts]}

    def load_state_dict(self, values: Mapping[str, Any], model: nn.Module) -> None:
        """The state is built as that of `model` is."""
        if "carried" not in values:
            return
        assert isinstance(model, SequenceModel)
        like = model.initial_state(1)
        count = len(self.parts)
        parts = zip(*(x.to(self.device).chunk(count) for x in values["carried"]), strict=True)
        self.carried = [with_tensors(like, tensors) for tensors in parts]

    def evaluate(self, model: nn.Module, step: int) -> Mapping[str, Scores]:
        """On the beginning of `validation`."""
        return {"validation": self._scores(model, self.held_out["validation"][:VALIDATION_BYTES])}

    def conclude(self, model: nn.Module, step: int) -> dict[str, Any]:
        """On all of `validation` and `test`."""
        return {"splits": {name: self._scores(model, text) for name, text in self.held_out.items()}}

    def _scores(self, model: nn.Module, text: Tensor) -> Scores:
        length = self.task.context_length
        if self.task.carry_state:
            num_lanes = self.config.training.batch_size
            return carried_scores(model, text, length, num_lanes, self.device)
        return segment_scores(model, text, length, self.device)

    def _on_device(self, tokens: Tensor) -> Tensor:
        return tokens.to(self.device, torch.int64)
