"""Every layer by its name, and how a configuration becomes a model."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from pydantic import TypeAdapter, ValidationError

from fastweights.layers.delta_delta_net import DeltaDeltaNet
from fastweights.layers.delta_lstm import DeltaLSTM
from fastweights.layers.delta_mlp import DeltaMLP
from fastweights.layers.delta_net import DeltaNet
from fastweights.layers.delta_rnn import DeltaRNN
from fastweights.layers.dense import Dense
from fastweights.layers.e_lstm import ELSTM
from fastweights.layers.layer import FeedForward, SequenceLayer
from fastweights.layers.linear_transformer import LinearTransformer
from fastweights.layers.lstm import LSTM
from fastweights.layers.moe import MoE
from fastweights.layers.normalized_delta_net import NormalizedDeltaNet
from fastweights.layers.product_key_memory import DenseProductKeyMemory, ProductKeyMemory
from fastweights.layers.recurrent_delta_net import RecurrentDeltaNet
from fastweights.layers.short_convolution import ShortConvolution
from fastweights.layers.softmax_attention import SoftmaxAttention
from fastweights.layers.srwm import SRWM
from fastweights.layers.top_k import TopK
from fastweights.layers.transformer_xl import TransformerXL
from fastweights.models.block import (
    Block,
    NormedInputBlock,
    NormedResidualBlock,
    PlainBlock,
    PostNormBlock,
    PreNormBlock,
    ResidualBlock,
)
from fastweights.models.sequence_model import Embedding, Initialization, Positions, SequenceModel
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
    "delta_rnn": DeltaRNN,
    "delta_lstm": DeltaLSTM,
    "delta_delta_net": DeltaDeltaNet,
    "delta_mlp": DeltaMLP,
}

# A layer, or one with some options fixed: `functools.partial(Layer, option=value)`.
FEED_FORWARDS: dict[str, Callable[..., FeedForward]] = {
    "dense": Dense,
    "top_k": TopK,
    "product_key_memory": ProductKeyMemory,
    "dense_product_key_memory": DenseProductKeyMemory,
    "moe": MoE,
    "sigma_moe": functools.partial(MoE, router="sigmoid"),
    "switch": functools.partial(
        MoE, router="switch", top_k=1, balance_weight=0.01, initialization="switch"
    ),
    "s_base": functools.partial(MoE, router="s_base"),
    "noisy_top_k": functools.partial(MoE, router="noisy_top_k"),
}
DEFAULT_FEED_FORWARD = "dense"

# What the model gives to every layer whose signature has it; the rest of a signature are options.
GIVEN = ("dim", "ff_dim", "num_layers", "dropout", "generator")

RESIDUAL_BLOCKS: dict[str, type[ResidualBlock]] = {
    "pre_norm": PreNormBlock,
    "post_norm": PostNormBlock,
    "normed_residual": NormedResidualBlock,
    "normed_input": NormedInputBlock,
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
    def feed_forward(self) -> str: ...
    @property
    def feed_forward_options(self) -> Mapping[str, Any]: ...
    @property
    def ff_dim(self) -> int | None: ...
    @property
    def convolution_size(self) -> int | None: ...
    @property
    def block(self) -> str | None: ...
    @property
    def final_norm(self) -> bool | None: ...
    @property
    def dim(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def dropout(self) -> float: ...
    @property
    def embedding(self) -> Embedding: ...
    @property
    def scale_embedding(self) -> bool: ...
    @property
    def embedding_dropout(self) -> float: ...
    @property
    def positions(self) -> Positions: ...
    @property
    def adaptive_cutoffs(self) -> tuple[int, ...] | None: ...
    @property
    def initialization(self) -> Initialization: ...


class Resolved(NamedTuple):
    """The settings that follow from others where they are not given."""

    layer_options: dict[str, Any]
    feed_forward_options: dict[str, Any]
    block: str
    final_norm: bool


def layer_parameters(layer: str) -> dict[str, inspect.Parameter]:
    """The options of a sequence layer. Raises ValueError on an unknown layer."""
    check_name(layer, SEQUENCE_LAYERS, "layer")
    return _parameters(SEQUENCE_LAYERS[layer])


def feed_forward_parameters(name: str) -> dict[str, inspect.Parameter]:
    """The options of a feed-forward layer. Raises ValueError on an unknown one."""
    check_name(name, FEED_FORWARDS, "feed-forward layer")
    return _parameters(FEED_FORWARDS[name])


def fixed_options(make: Callable[..., FeedForward]) -> dict[str, Any]:
    """What an entry of `FEED_FORWARDS` fixes."""
    return make.keywords if isinstance(make, functools.partial) else {}


def layer_options(layer: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a layer: the given ones, checked and converted, and the defaults of its
    signature for the rest.

    Raises:
        ValueError: on an unknown layer, an unknown option (with the near names), one that is
            missing, or a value of the wrong type.
    """
    return _options("layer", layer, layer_parameters(layer), options)


def feed_forward_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """As `layer_options`, of a feed-forward layer."""
    return _options("feed-forward layer", name, feed_forward_parameters(name), options)


def published_block(layer: str) -> str:
    """The placement of norm and residual with which a layer was published."""
    return PUBLISHED_BLOCK.get(layer, "pre_norm")


def resolve(settings: ModelSettings) -> Resolved:
    """The settings that depend on others, checked.

    Raises:
        ValueError: on an unknown name (with the near names) or values that do not fit.
    """
    layer, name = settings.layer, settings.feed_forward
    options = layer_options(layer, settings.layer_options)
    forward_options = feed_forward_options(name, settings.feed_forward_options)
    block = settings.block or published_block(layer)
    check_name(block, BLOCKS, "block")
    if block == "plain" and name != DEFAULT_FEED_FORWARD:
        raise ValueError(f"block plain has no feed-forward layer, got feed_forward={name!r}")
    if settings.ff_dim is not None and not has_ff_dim(name):
        raise ValueError(
            f"feed-forward layer {name} has its sizes in feed_forward_options and no ff_dim, "
            f"got ff_dim={settings.ff_dim} (null: none)"
        )
    final_norm = block == "post_norm" if settings.final_norm is None else settings.final_norm
    return Resolved(options, forward_options, block, final_norm)


def has_ff_dim(feed_forward: str) -> bool:
    """Whether `ff_dim` is the size of a feed-forward layer."""
    return "ff_dim" in inspect.signature(FEED_FORWARDS[feed_forward]).parameters


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
    resolved = resolve(settings)
    block, dim, dropout = resolved.block, settings.dim, settings.dropout
    blocks: list[Block] = []
    for _ in range(settings.num_layers):
        make = SEQUENCE_LAYERS[settings.layer]
        layer = make(**_given(make, settings, generator), **resolved.layer_options)
        if settings.convolution_size is not None:
            layer = ShortConvolution(layer, dim, settings.convolution_size, generator)
        if block == "plain":
            blocks.append(PlainBlock(layer, dropout))
            continue
        make_forward = FEED_FORWARDS[settings.feed_forward]
        feed_forward = make_forward(
            **_given(make_forward, settings, generator), **resolved.feed_forward_options
        )
        blocks.append(RESIDUAL_BLOCKS[block](dim, layer, feed_forward, dropout))
    return SequenceModel(
        dim,
        vocab_size,
        num_outputs,
        blocks,
        final_norm=resolved.final_norm,
        embedding=settings.embedding,
        scale_embedding=settings.scale_embedding,
        embedding_dropout=settings.embedding_dropout,
        positions=settings.positions,
        adaptive_cutoffs=settings.adaptive_cutoffs,
        initialization=settings.initialization,
        generator=generator,
    )


def _given(
    make: Callable[..., Any], settings: ModelSettings, generator: torch.Generator | None
) -> dict[str, Any]:
    """What the model gives to a layer."""
    given = {
        "dim": settings.dim,
        "ff_dim": settings.ff_dim,
        "num_layers": settings.num_layers,
        "dropout": settings.dropout,
        "generator": generator,
    }
    known = inspect.signature(make).parameters
    return {name: given[name] for name in GIVEN if name in known}


def _parameters(make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    no_options = (*GIVEN, *fixed_options(make))
    parameters = inspect.signature(make).parameters
    return {name: parameter for name, parameter in parameters.items() if name not in no_options}


def _options(
    kind: str, layer: str, parameters: Mapping[str, inspect.Parameter], given: Mapping[str, Any]
) -> dict[str, Any]:
    field = "layer_options" if kind == "layer" else "feed_forward_options"
    for name in given:
        check_name(name, parameters, f"option of {kind} {layer}")
    resolved = {}
    for name, parameter in parameters.items():
        if name not in given:
            if parameter.default is parameter.empty:
                raise ValueError(f"{field}.{name} of {layer}: is missing")
            resolved[name] = parameter.default
            continue
        try:
            resolved[name] = TypeAdapter(parameter.annotation).validate_python(given[name])
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ValueError(f"{field}.{name} of {layer}: {reason}, got {given[name]!r}") from None
    return resolved
