"""A short convolution in front of any sequence layer."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastweights.layers.arguments import check_sizes
from fastweights.layers.layer import SequenceLayer


class ShortConvolutionState(NamedTuple):
    recent: Tensor  # [B, size - 1, D], the last inputs, zeros before the first
    layer: Any  # the state of the layer behind it


class ShortConvolution(SequenceLayer):
    """`layer(c)` with `c_t = b + sum_j w_j x_{t - j}`, j = 0 .. size - 1, every channel by itself.

    With it a layer sees a token beside the one before, which associative recall needs. The short
    convolutions of Arora et al. (2023), section 5, and Yang et al. (2024), here one of the layer's
    input in place of one each of queries, keys and values; initialised as `torch.nn.Conv1d`.

    Args:
        layer: any sequence layer of width `dim`.
        dim: D.
        size: number of inputs that one output sees.
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(
        self, layer: SequenceLayer, dim: int, size: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        check_sizes(size=size)
        self.layer = layer
        self.size = size
        bound = 1 / math.sqrt(size)
        draw = torch.empty(dim, size + 1).uniform_(-bound, bound, generator=generator)
        self.weight = nn.Parameter(draw[:, None, :size].clone())
        self.bias = nn.Parameter(draw[:, size].clone())

    def initial_state(self, batch_size: int) -> ShortConvolutionState:
        dim = len(self.weight)
        recent = self.weight.new_zeros(batch_size, self.size - 1, dim)
        return ShortConvolutionState(recent, self.layer.initial_state(batch_size))

    def forward(
        self, x: Tensor, state: ShortConvolutionState | None = None
    ) -> tuple[Tensor, ShortConvolutionState]:
        if state is None:
            state = self.initial_state(len(x))
        seen = torch.cat([state.recent.to(x.dtype), x], 1)
        mixed = F.conv1d(seen.mT, self.weight, self.bias, groups=len(self.weight)).mT
        y, layer_state = self.layer(mixed, state.layer)
        return y, ShortConvolutionState(seen[:, x.shape[1] :], layer_state)
