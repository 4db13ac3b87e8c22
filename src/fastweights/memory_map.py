"""What is left of a memory: how well each stored key is retrieved after every further write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, one_hot

from fastweights.layers.layer import AssociativeLayer, SequenceLayer
from fastweights.layers.short_convolution import ShortConvolution, ShortConvolutionState
from fastweights.models.block import Block
from fastweights.models.sequence_model import SequenceModel


class MemoryMap(NamedTuple):
    """retrieved [T, T]: row i, column t: how well the value that step i wrote is retrieved after
    step t, 1 at best; NaN for t < i. `title`: whose memory it is, or how that is measured."""

    title: str
    retrieved: Tensor


@torch.inference_mode()
def map_of_model(model: SequenceModel, inputs: Tensor) -> list[MemoryMap]:
    """A map for each block and head, for one sequence of token numbers [T]: the cosine of the value
    and what its key reads.

    Raises ValueError where a layer keeps no associations (LSTM and e-LSTM).
    """
    layers = [_memory_of(cast(Block, block).layer) for block in model.blocks]
    writes: list[list[_Write]] = [[] for _ in layers]
    taken = [layer.register_forward_pre_hook(_note(writes[n])) for n, layer in enumerate(layers)]
    state: Any = None
    states = []
    try:
        for t in range(len(inputs)):
            if state is None:
                state = model.initial_state(1)
            state = model(inputs[None, t : t + 1], state).state
            states.append(state)
    finally:
        for hook in taken:
            hook.remove()
    maps = []
    for number, layer in enumerate(layers):
        keys = torch.stack([write.key for write in writes[number]], 1)
        values = torch.stack([write.value for write in writes[number]], 1)
        read = torch.cat([layer.read(keys, _memory_state(after[number])) for after in states])
        maps += [
            MemoryMap(f"block {number + 1}, head {head + 1}", cosine)
            for head, cosine in enumerate(_cosine(read, values[0]).unbind(-1))
        ]
    return maps


@torch.inference_mode()
def maps_of_pairs(
    model: nn.Module, keys: Tensor, values: Tensor, num_values: int
) -> list[MemoryMap]:
    """Two maps of an `AssociativeMemory` for one sequence of keys and values [T]: the cosine of the
    unit vector of the value and what its key reads, and that vector's part in what is read, which
    the loss wants to be 1. A key that is written again with another value is no longer meant to
    read its first one."""
    read = torch.cat(
        [model(keys[None, :t], values[None, :t], keys[None]) for t in range(1, len(keys) + 1)]
    )
    wanted = one_hot(values, num_values).to(read)
    return [
        MemoryMap("cosine of the value and what is read", _cosine(read, wanted)),
        MemoryMap("part of the value in what is read", _once_written((read * wanted).sum(-1).mT)),
    ]


class _Write(NamedTuple):
    key: Tensor
    value: Tensor


def _memory_of(layer: SequenceLayer) -> AssociativeLayer:
    """The layer itself, or the one behind a convolution."""
    inner = layer.layer if isinstance(layer, ShortConvolution) else layer
    if not isinstance(inner, AssociativeLayer):
        raise ValueError(f"{type(inner).__name__} keeps no associations: no memory to show")
    return inner


def _memory_state(state: Any) -> Any:
    return state.layer if isinstance(state, ShortConvolutionState) else state


def _note(writes: list[_Write]) -> Any:
    """A hook that asks a layer, before each step, what it is about to write."""

    def before(layer: AssociativeLayer, arguments: Sequence[Any]) -> None:
        x, state = arguments
        writes.append(_Write(*layer.association(x[:, 0], state)))

    return before


def _cosine(read: Tensor, values: Tensor) -> Tensor:
    """read [T after, T written, ..., V], values [T written, ..., V] -> [T written, T after, ...]"""
    return _once_written(cosine_similarity(read, values.expand_as(read), dim=-1).transpose(0, 1))


def _once_written(x: Tensor) -> Tensor:
    """x [T written, T after, ...] with NaN where nothing has been written yet."""
    T = len(x)
    later = torch.ones(T, T, dtype=torch.bool, device=x.device).triu()
    return x.masked_fill(~later.view(T, T, *[1] * (x.dim() - 2)), torch.nan)
