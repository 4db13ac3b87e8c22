"""A run's configuration, spelled out, and its untrained model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fastweights.models.menu import build_model, resolve
from fastweights.tasks.formal.menu import Task, load_language
from fastweights.tasks.text.corpus import corpus_vocab_size
from fastweights.train.config import (
    RecallTask,
    RetrievalTask,
    RunConfig,
    SequenceModelConfig,
    TextTask,
)
from fastweights.train.data import generator_for, load_run_task


def spelled_out(config: RunConfig) -> RunConfig:
    """The same run with every default written down: the protocol's, those of the layers, the block.

    An option that is None is left out. Raises ValueError for an unknown layer or option.
    """
    config = config.resolved()
    model = config.model
    if not isinstance(model, SequenceModelConfig):
        return config
    resolved = resolve(model)._asdict()
    for name in ("layer_options", "feed_forward_options"):
        options = resolved[name].items()
        resolved[name] = {option: value for option, value in options if value is not None}
    return config.model_copy(update={"model": model.model_copy(update=resolved)})


def build_run_model(config: RunConfig, task: Task) -> nn.Module:
    """The untrained sequence model of a run, its weights drawn with the run's seed."""
    assert isinstance(config.model, SequenceModelConfig)
    sizes = sizes_for(task.symbols, task.labels)
    return build_model(config.model, *sizes, generator_for(config.seed, "model"))


def sizes_for(symbols: Sequence[str], labels: Sequence[str]) -> tuple[int, int]:
    """vocab_size and num_outputs of a model: one input and one output more, the padding."""
    return len(symbols) + 1, len(labels) + 1


def model_sizes(config: RunConfig) -> tuple[int, int]:
    """vocab_size and num_outputs of a run's sequence model. Draws no data; reads the user's files.

    Raises ValueError for an unknown language and a task without a sequence model.
    """
    task = config.task
    if isinstance(task, RetrievalTask):
        raise ValueError("task retrieval has no sequence model")
    if isinstance(task, RecallTask):
        return task.vocab_size, task.vocab_size
    if isinstance(task, TextTask):
        vocab_size = corpus_vocab_size(task.text)
        return vocab_size, vocab_size
    known = load_run_task(config) if task.kind == "files" else load_language(task.model_dump())
    return sizes_for(known.symbols, known.labels)
