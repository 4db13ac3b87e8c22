"""What a sequence model costs: its parameters, FLOPs a token and the size of its state; and models
of equal size.

Nothing is computed: the model is built on the meta device, whose tensors have shapes alone.

FLOPs are what the definition of a layer needs for one token of a sequence in the forward pass, and
not what a chunk form, a kernel or a fallback computes: experts, hidden units and values that are
not chosen cost nothing, also where all of them are the faster product; a projection of what is
remembered was computed when it came; and what follows from the weights alone (keys of distances,
the sum of the sub-keys of several heads) is shared by all tokens. `torch.utils.flop_counter` counts
them in a step in plain PyTorch. A multiplication and an addition are one each, in matrix products
and element-wise (a write to a fast weight memory is an outer product). Not counted: functions (exp,
sigmoid, softmax, a norm), comparisons, the biases of linear layers, residuals, and numbers that are
only moved (an embedding, a selection).
"""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from fastweights.layers.layer import SequenceLayer
from fastweights.models.block import Block, ResidualBlock
from fastweights.models.menu import build_model, feed_forward_options, has_ff_dim
from fastweights.models.sequence_model import SequenceModel
from fastweights.near_names import check_name
from fastweights.ops.sparse_read import chosen_rows_alone
from fastweights.train.config import SequenceModelConfig

PARTS = ("embedding", "sequence layers", "feed-forward", "norms", "output")
SIZES = ("expert_dim", "num_subkeys")
"""Options of feed-forward layers that say how large they are, where that is not ff_dim."""
TOLERANCE = 1e-3
"""Relative difference up to which two numbers of parameters count as equal."""


@dataclasses.dataclass(frozen=True)
class Account:
    """`flops` are those of one token in the forward pass, after `context_length` others. The state
    is that of one sequence, in float32."""

    parameters: Mapping[str, int]  # that are trained, by part
    active_feed_forward: int  # feed-forward parameters that a token uses
    flops: Mapping[str, int]  # by part
    state_numbers: int
    state_bytes: int
    context_length: int

    @property
    def num_parameters(self) -> int:
        """Of all parts."""
        return sum(self.parameters.values())

    @property
    def num_flops(self) -> int:
        """Of all parts."""
        return sum(self.flops.values())


def describe_model(
    settings: SequenceModelConfig, vocab_size: int, num_outputs: int, context_length: int = 0
) -> Account:
    """The account of a model. Raises ValueError as `build_model` does."""
    if context_length < 0:
        raise ValueError(f"context_length must be >= 0, got {context_length}")
    model = _without_numbers(settings, vocab_size, num_outputs)
    parameters = _by_part(model)
    model.requires_grad_(False)  # the counter follows gradients, and fails at a state of parameters
    blocks = [cast(Block, block) for block in model.blocks]
    feed_forwards = [block.feed_forward for block in blocks if isinstance(block, ResidualBlock)]
    one, two = (torch.empty(B, 1, settings.dim, device="meta") for B in (1, 2))
    with torch.inference_mode():
        states = [_state_after(context_length, block.layer, one) for block in blocks]
        # A token is what a second sequence adds: what follows from the weights alone is in both.
        of_layers = sum(
            _flops(block.layer, two, _state_after(context_length, block.layer, two))
            - _flops(block.layer, one, state)
            for block, state in zip(blocks, states, strict=True)
        )
        of_feed_forwards = sum(_flops(layer, two) - _flops(layer, one) for layer in feed_forwards)
        of_output = _flops(model.scores, one)
    parts = tree_leaves(states)
    return Account(
        parameters,
        sum(layer.active_parameters() for layer in feed_forwards),
        dict(zip(PARTS, (0, of_layers, of_feed_forwards, 0, of_output), strict=True)),
        sum(part.numel() for part in parts),
        sum(part.numel() * part.element_size() for part in parts),
        context_length,
    )


def count_parameters(settings: SequenceModelConfig, vocab_size: int, num_outputs: int) -> int:
    """Parameters that are trained. Raises ValueError as `build_model` does."""
    return sum(_by_part(_without_numbers(settings, vocab_size, num_outputs)).values())


def equal_parameters(
    settings: SequenceModelConfig,
    like: SequenceModelConfig,
    vocab_size: int,
    num_outputs: int,
    size: str | None = None,
) -> SequenceModelConfig:
    """The settings with that size of the feed-forward layer with which they have as many parameters
    as `like`, within 0.1 %, both for the same tokens.

    `size` is `ff_dim`, or an option of the feed-forward layer with whose value the parameters grow
    (default: the one that the layer has of ff_dim, expert_dim and num_subkeys). Raises ValueError
    where it does not, and with the nearest numbers where none of its values is near enough.
    """
    name, start = _size(settings, size)
    target = count_parameters(like, vocab_size, num_outputs)
    start_count = count_parameters(_with_size(settings, name, start), vocab_size, num_outputs)

    def count(value: int) -> int:
        if value == start:
            return start_count
        try:
            return count_parameters(_with_size(settings, name, value), vocab_size, num_outputs)
        except ValueError:
            return 0  # fewer experts than the router chooses: too small

    if count(2 * start) <= count(start):
        raise ValueError(f"{name}: the parameters do not grow with it")
    largest = start
    while count(largest) < target:
        largest *= 2
    above = 1 + bisect_left(range(1, largest), target, key=count)
    near = {value: count(value) for value in (above - 1, above) if value}
    best = min(near, key=lambda value: abs(near[value] - target))
    if abs(near[best] - target) > TOLERANCE * target:
        found = " and ".join(f"{value}: {number:,}" for value, number in near.items() if number)
        raise ValueError(
            f"{name}: no value gives {target:,} parameters within {100 * TOLERANCE:g} %; nearest "
            f"are {found}"
        )
    return _with_size(settings, name, best)


def _without_numbers(
    settings: SequenceModelConfig, vocab_size: int, num_outputs: int
) -> SequenceModel:
    with torch.device("meta"):
        model = build_model(settings, vocab_size, num_outputs)
    return model.eval()


def _by_part(model: nn.Module) -> dict[str, int]:
    counts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            counts[_part(name)] += parameter.numel()
    return counts


def _part(name: str) -> str:
    """The part of a model that a parameter `embedding.weight`, `blocks.0.layer...` belongs to."""
    first, *rest = name.split(".")
    if first in ("embedding", "output"):
        return first
    inside = rest[1] if first == "blocks" else first
    return {"layer": "sequence layers", "feed_forward": "feed-forward"}.get(inside, "norms")


def _state_after(length: int, layer: SequenceLayer, x: Tensor) -> Any:
    """The state after so many tokens like x `[B, 1, D]`; run through them only if it grows."""
    state = layer.initial_state(len(x))
    if length == 0 or _shapes(layer(x, state)[1]) == _shapes(state):
        return state
    return layer(x.expand(-1, length, -1), state)[1]


def _shapes(state: Any) -> list[torch.Size]:
    return [part.shape for part in tree_leaves(state)]


# --- counting ------------------------------------------------------------------------------------


def _each(flops: int) -> Callable[..., int]:
    """So many for each number of the result."""
    return lambda *_, out_shape, **__: flops * math.prod(out_shape)


def _of_sum(shape: Iterable[int], *_: Any, **__: Any) -> int:
    return math.prod(shape)


def _of_routes(
    rows: Sequence[int], weight: Sequence[int], order: Sequence[int], *_: Any, **__: Any
) -> int:
    """A matrix product with the weights `[E, F, D]` of one expert for every route `[R]`."""
    return 2 * order[0] * weight[1] * weight[2]


def _of_weighted_rows(rows: Sequence[int], chosen: Iterable[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(chosen) * rows[-1]


_aten = torch.ops.aten
FORMULAS: dict[Any, Callable[..., int]] = {
    **{getattr(_aten, name): _each(1) for name in ("add", "sub", "mul", "div")},
    **{getattr(_aten, f"{name}_"): _each(1) for name in ("add", "sub", "mul", "div")},
    _aten.addcmul: _each(2),
    _aten.lerp: _each(3),
    _aten.sum: _of_sum,
    _aten._embedding_bag: _of_weighted_rows,
    _aten._embedding_bag_forward_only: _of_weighted_rows,
    torch.ops.fastweights.expert_up: _of_routes,
    torch.ops.fastweights.expert_down: _of_routes,
}
"""FLOPs of what torch does not count."""


class _OneStep(TorchFunctionMode):
    """What one token of each sequence needs; only the shapes of results are right.

    Attention as its two matrix products: what it is made of depends on the device, and on the meta
    device there is more. A linear map of everything seen so far, `[B, S, D]`, as that of the newest
    input: the others were mapped when they came.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            query, key, value, *_ = args
            return query @ key.mT @ value
        if func is F.linear and args[0].dim() == 3:
            seen, *rest = args
            return func(seen[:, -1:], *rest).expand(-1, seen.shape[1], -1)
        return func(*args, **(kwargs or {}))


def _flops(function: Callable[..., Any], *inputs: Any) -> int:
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    with counter, _OneStep(), chosen_rows_alone():
        function(*inputs)
    return counter.get_total_flops()


# --- sizes ---------------------------------------------------------------------------------------


def _size(settings: SequenceModelConfig, name: str | None) -> tuple[str, int]:
    """The name of the size that may change, and its present value."""
    layer = settings.feed_forward
    options = feed_forward_options(layer, settings.feed_forward_options)
    sizes = {"ff_dim": settings.ff_dim, **options} if has_ff_dim(layer) else options
    name = name or next((size for size in ("ff_dim", *SIZES) if size in sizes), None)
    if name is None:
        raise ValueError(f"size: feed-forward layer {layer} has none of {', '.join(SIZES)}")
    check_name(name, sizes, f"size of feed-forward layer {layer}")
    value = sizes[name]
    if type(value) is not int:
        raise ValueError(f"size: {name} of feed-forward layer {layer} is no size, it is {value!r}")
    return name, value


def _with_size(settings: SequenceModelConfig, name: str, value: int) -> SequenceModelConfig:
    if name == "ff_dim":
        return settings.model_copy(update={"ff_dim": value})
    options = {**settings.feed_forward_options, name: value}
    return settings.model_copy(update={"feed_forward_options": options})
