"""Every layer by its name, and how a configuration becomes a model."""

import inspect
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from pydantic import TypeAdapter, ValidationError

from fastweights.layers.delta_net import DeltaNet
from fastweights.layers.dense import Dense
from fastweights.layers.e_lstm import ELSTM
from fastweights.layers.layer import SequenceLayer
from fastweights.layers.linear_transformer import LinearTransformer
from fastweights.layers.lstm import LSTM
from fastweights.layers.normalized_delta_net import NormalizedDeltaNet
from fastweights.layers.recurrent_delta_net import RecurrentDeltaNet
from fastweights.layers.short_convolution import ShortConvolution
from fastweights.layers.softmax_attention import SoftmaxAttention
from fastweights.layers.srwm import SRWM
from fastweights.layers.transformer_xl import TransformerXL
from fastweights.models.block import (
    Block,
    NormedResidualBlock,
    PlainBlock,
    PostNormBlock,
    PreNormBlock,
    ResidualBlock,
)
from fastweights.models.sequence_model import Embedding, SequenceModel
from fastweights.near_names import check_name

SEQUENCE_LAYERS: dict[str, type[SequenceLayer]] = {
    "lstm": LSTM,
    "e_lstm": ELSTM,
    "softmax_attention": SoftmaxAttention,
    "transformer_xl": TransformerXL,
    "linear_transformer": LinearTransformer,
    "delta_net": DeltaNet,
    "normalized_delta_net": NormalizedDeltaNet,
    "recurrent_delta_net": RecurrentDeltaNet,
    "srwm": SRWM,
}

RESIDUAL_BLOCKS: dict[str, type[ResidualBlock]] = {
    "pre_norm": PreNormBlock,
    "post_norm": PostNormBlock,
    "normed_residual": NormedResidualBlock,
}
BLOCKS: dict[str, type[Block]] = {"plain": PlainBlock, **RESIDUAL_BLOCKS}

# Where it is not pre_norm.
PUBLISHED_BLOCK = {
    "lstm": "plain",
    "e_lstm": "plain",
    "softmax_attention": "post_norm",
    "srwm": "normed_residual",
}


class ModelSettings(Protocol):
    """What `build_model` reads of a configuration (`train.config.SequenceModelConfig`)."""

    @property
    def layer(self) -> str: ...
    @property
    def layer_options(self) -> Mapping[str, Any]: ...
    @property
    def convolution_size(self) -> int | None: ...
    @property
    def block(self) -> str | None: ...
    @property
    def dim(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def ff_dim(self) -> int: ...
    @property
    def dropout(self) -> float: ...
    @property
    def embedding(self) -> Embedding: ...


def layer_options(layer: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a layer: the given ones, checked and converted, and the defaults of its
    signature for the rest.

    Raises:
        ValueError: on an unknown layer, an unknown option (with the near names) or a value of the
            wrong type.
    """
    check_name(layer, SEQUENCE_LAYERS, "layer")
    signature = inspect.signature(SEQUENCE_LAYERS[layer])
    parameters = {
        name: parameter
        for name, parameter in signature.parameters.items()
        if name not in ("dim", "generator")
    }
    resolved = {name: parameter.default for name, parameter in parameters.items()}
    for name, value in options.items():
        check_name(name, parameters, f"option of layer {layer}")
        try:
            resolved[name] = TypeAdapter(parameters[name].annotation).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ValueError(f"layer_options.{name} of {layer}: {reason}, got {value!r}") from None
    return resolved


def published_block(layer: str) -> str:
    """The placement of norm and residual with which a layer was published."""
    return PUBLISHED_BLOCK.get(layer, "pre_norm")


def build_model(
    settings: ModelSettings,
    vocab_size: int,
    num_outputs: int,
    generator: torch.Generator | None = None,
) -> SequenceModel:
    """The model that a configuration describes, its weights drawn from `generator`.

    Raises:
        ValueError: on an unknown name (with the near names) or values that do not fit.
    """
    options = layer_options(settings.layer, settings.layer_options)
    block = settings.block or published_block(settings.layer)
    check_name(block, BLOCKS, "block")
    dim, dropout = settings.dim, settings.dropout
    blocks: list[Block] = []
    for _ in range(settings.num_layers):
        layer = SEQUENCE_LAYERS[settings.layer](dim, **options, generator=generator)
        if settings.convolution_size is not None:
            layer = ShortConvolution(layer, dim, settings.convolution_size, generator)
        if block == "plain":
            blocks.append(PlainBlock(layer, dropout))
            continue
        feed_forward = Dense(dim, settings.ff_dim, dropout, generator=generator)
        blocks.append(RESIDUAL_BLOCKS[block](dim, layer, feed_forward, dropout))
    return SequenceModel(
        dim,
        vocab_size,
        num_outputs,
        blocks,
        final_norm=block == "post_norm",
        embedding=settings.embedding,
        generator=generator,
    )
