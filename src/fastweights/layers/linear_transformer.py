"""The linear Transformer's mixing layer: a fast weight memory written by the sum rule."""

import torch
from torch import Tensor

from fastweights.layers.feature_map import FeatureMap, FeatureMapName, Normalization
from fastweights.layers.initialization import linear, split_heads
from fastweights.layers.layer import AssociativeLayer
from fastweights.layers.scale import Scale
from fastweights.ops.linear_attention import (
    NORMALIZER_EPS,
    LinearAttentionState,
    linear_attention,
)
from fastweights.ops.precision import widest_dtype


class LinearTransformer(AssociativeLayer):
    """Linear attention (Katharopoulos et al., 2020; Schlag et al., 2021, Eqs. 4-9).

    The defaults are those of Irie et al. (2023): elu + 1, no attention normaliser (so outputs grow
    with the number of steps), no scale by the head width, no biases, no positions.

    Args:
        dim: D.
        num_heads: H; `head_dim` defaults to dim / num_heads.
        feature_map, normalization, dpfp_nu, num_random_features: see `FeatureMap`.
        attention_normalizer: divide each output by the sum of its attention weights.
        scale_output: multiply what is read by head_dim^-0.5, as the official language models do.
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        head_dim: int | None = None,
        feature_map: FeatureMapName = "elu_plus_one",
        normalization: Normalization = "none",
        dpfp_nu: int = 3,
        num_random_features: int = 64,
        attention_normalizer: bool = False,
        scale_output: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = split_heads(dim, num_heads, head_dim)
        self.scale = Scale.of_heads(self.head_dim, scale_output)
        self.attention_normalizer = attention_normalizer
        self.feature_map = FeatureMap(
            self.head_dim, feature_map, normalization, dpfp_nu, num_random_features, generator
        )
        width = num_heads * self.head_dim
        self.input_projection = linear(dim, 3 * width, bias=False, generator=generator)
        self.output_projection = linear(width, dim, bias=False, generator=generator)

    def initial_state(self, batch_size: int) -> LinearAttentionState:
        shape = batch_size, self.num_heads, self.feature_map.key_dim
        weight = self.output_projection.weight
        key_sum = weight.new_zeros(shape, dtype=widest_dtype(weight))
        return LinearAttentionState(key_sum.new_zeros(*shape, self.head_dim), key_sum)

    def forward(
        self, x: Tensor, state: LinearAttentionState | None = None
    ) -> tuple[Tensor, LinearAttentionState]:
        q, k, v = self.input_projection(x).unflatten(-1, (self.num_heads, -1)).chunk(3, -1)
        y, state = linear_attention(
            self.feature_map(q), self.feature_map(k), v, state, normalize=self.attention_normalizer
        )
        return self.output_projection(self.scale(y.flatten(-2))), state

    def association(self, x: Tensor, state: LinearAttentionState) -> tuple[Tensor, Tensor]:
        _, k, v = self.input_projection(x).unflatten(-1, (self.num_heads, -1)).chunk(3, -1)
        return self.feature_map(k), v

    def read(self, keys: Tensor, state: LinearAttentionState) -> Tensor:
        values = torch.einsum("bmhk,bhkv->bmhv", keys, state.memory)
        if self.attention_normalizer:
            total = torch.einsum("bmhk,bhk->bmh", keys, state.key_sum)
            values = values / (total[..., None] + NORMALIZER_EPS)
        return values
