"""Language modelling: the next token of a text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_structure, tree_unflatten

from fastweights.models.menu import build_model
from fastweights.models.sequence_model import SequenceModel
from fastweights.models.state import enter_segment, leave_segment
from fastweights.tasks.text.corpus import lanes, load_corpus
from fastweights.train.config import ConfigError, RunConfig, SequenceModelConfig, TextTask
from fastweights.train.data import generator_for
from fastweights.train.problem import Problem, Scores, TrainingLoss
from fastweights.train.processes import check_even, my_rows
from fastweights.train.protocol import Protocol
from fastweights.train.text_file import check_text_file, write_text_file
from fastweights.train.text_positions import loss_by_position
from fastweights.train.text_scores import Progress, Reading, TextSize, text_scores

VALIDATION_TOKENS = 2**18
"""That an evaluation during training looks at, from the beginning."""
LONGER = 4
"""So many times the training context is what the loss by position goes to."""


class TextProblem(Problem):
    """Cross-entropy of every next token, in segments of `context_length` tokens.

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
        self.held_out = {
            name: corpus.splits[name][: self.task.held_out_tokens]
            for name in ("validation", "test")
        }
        self.segments = (self.lanes.shape[1] - 1) // self.task.context_length
        shortest = min(self.lanes.shape[1], *map(len, self.held_out.values()))
        if shortest <= self.task.context_length:
            texts = {**corpus.splits, **self.held_out}
            sizes = {name: len(tokens) for name, tokens in texts.items()}
            raise ConfigError(
                [
                    f"text: {self.task.text}: too short for {config.training.batch_size} sequences "
                    f"of {self.task.context_length} tokens: {sizes['train']} tokens to train, "
                    f"{sizes['validation']} to validate, {sizes['test']} to test"
                ]
            )
        self.steps_per_epoch = self.segments
        self.checksum = corpus.checksum
        self.tokenizer, self.vocab_size = corpus.tokenizer, corpus.tokenizer.vocab_size
        self.protocol = Protocol(config, self.segments, self.loss_name, accuracy_name=None)
        self.parts = self.lanes.chunk(config.training.accumulate)
        self.carried: list[Any] = [None] * len(self.parts)

    def build_model(self) -> nn.Module:
        """Tokens of the corpus in, scores for the next one out."""
        assert isinstance(self.config.model, SequenceModelConfig)
        generator = generator_for(self.config.seed, "model")
        return build_model(self.config.model, self.vocab_size, self.vocab_size, generator)

    def describe(self, run_folder: Path) -> None:
        """text.json and the tokenizer's file, where it has one."""
        write_text_file(self.task.text, self.corpus, run_folder)  # first: it refuses another text
        self.tokenizer.save(run_folder)

    def check(self, run_folder: Path) -> None:
        """The text is the one of text.json."""
        check_text_file(self.task.text, self.corpus, run_folder)

    def training_loss(self, model: nn.Module, step: int, part: int = 0) -> TrainingLoss:
        """Mean over all tokens of a segment of every lane of a part."""
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
        parts = zip(*map(tree_leaves, self.carried), strict=True)
        return {"carried": [torch.cat(tensors).cpu() for tensors in parts]}

    def load_state_dict(self, values: Mapping[str, Any], model: nn.Module) -> None:
        """The state is built as that of `model` is."""
        if "carried" not in values:
            return
        assert isinstance(model, SequenceModel)
        structure = tree_structure(model.initial_state(1))
        count = len(self.parts)
        parts = zip(*(x.to(self.device).chunk(count) for x in values["carried"]), strict=True)
        self.carried = [tree_unflatten(tensors, structure) for tensors in parts]

    @property
    def reading(self) -> Reading:
        """How the texts are read where nothing else is asked for: as in training."""
        if self.task.carry_state:
            num_lanes = self.config.training.batch_size
            return Reading("carried", self.task.context_length, num_lanes=num_lanes)
        return Reading("segments", self.task.context_length)

    def evaluate(self, model: nn.Module, step: int) -> Mapping[str, Scores]:
        """On the beginning of `validation`."""
        tokens = self.held_out["validation"][:VALIDATION_TOKENS]
        size = self.sizes["validation"]
        return {"validation": text_scores(model, tokens, self.reading, size, self.device)}

    def conclude(self, model: nn.Module, step: int) -> dict[str, Any]:
        """On `validation` and `test`; `reading`: how they were read; `by_position` to LONGER
        times the training context, where the test text is long enough."""
        found: dict[str, Any] = {
            "reading": self.reading_of(self.held_out, self.reading),
            "splits": {split: self.scores(model, split, self.reading) for split in self.held_out},
        }
        if len(self.held_out["test"]) > 2 * LONGER * self.task.context_length:
            found["by_position"] = self.by_position(model, LONGER)
        return found

    def reading_of(self, splits: Iterable[str], reading: Reading) -> dict[str, Any]:
        """See `Reading.described`. Raises ValueError where it does not fit a text."""
        return reading.described({split: len(self.held_out[split]) for split in splits})

    def scores(
        self, model: nn.Module, split: str, reading: Reading, progress: Progress | None = None
    ) -> Scores:
        """On one of the texts held out."""
        tokens, size = self.held_out[split], self.sizes[split]
        return text_scores(model, tokens, reading, size, self.device, progress)

    def by_position(
        self, model: nn.Module, times_context: int, progress: Progress | None = None
    ) -> dict[str, Any]:
        """The loss by position on the test text, to so many times the training context."""
        context, test = self.task.context_length, self.held_out["test"]
        return loss_by_position(
            model, test, context, times_context * context, self.device, progress
        )

    @property
    def sizes(self) -> dict[str, TextSize]:
        """Of the whole texts that `held_out` is from."""
        corpus = self.corpus
        return {
            split: TextSize(
                len(corpus.splits[split]), corpus.num_bytes[split], corpus.num_characters[split]
            )
            for split in self.held_out
        }

    def _on_device(self, tokens: Tensor) -> Tensor:
        return tokens.to(self.device, torch.int64)
