"""A run's configuration, spelled out, and its untrained model."""

from __future__ import annotations

from torch import nn

from fastweights.models.menu import build_model, layer_options, published_block
from fastweights.tasks.formal.menu import Task
from fastweights.train.config import RunConfig, SequenceModelConfig
from fastweights.train.data import generator_for


def spelled_out(config: RunConfig) -> RunConfig:
    """The same run with every default written down: the protocol's, the layer's, the block.

    A layer option that is None is left out. Raises ValueError for an unknown layer or option.
    """
    config = config.resolved()
    model = config.model
    if not isinstance(model, SequenceModelConfig):
        return config
    options = layer_options(model.layer, model.layer_options)
    update = {
        "layer_options": {name: value for name, value in options.items() if value is not None},
        "block": model.block or published_block(model.layer),
    }
    return config.model_copy(update={"model": model.model_copy(update=update)})


def build_run_model(config: RunConfig, task: Task) -> nn.Module:
    """The untrained sequence model of a run, its weights drawn with the run's seed."""
    assert isinstance(config.model, SequenceModelConfig)
    return build_model(
        config.model,
        vocab_size=len(task.symbols) + 1,
        num_outputs=len(task.labels) + 1,
        generator=generator_for(config.seed, "model"),
    )
