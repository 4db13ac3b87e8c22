"""DeltaNet's mixing layer: a fast weight memory that corrects what it holds."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastweights.layers.feature_map import FeatureMap, FeatureMapName, Normalization
from fastweights.layers.initialization import linear, split_heads
from fastweights.layers.layer import AssociativeLayer
from fastweights.layers.scale import Scale
from fastweights.ops.delta_rule import delta_rule
from fastweights.ops.precision import widest_dtype


class DeltaNetState(NamedTuple):
    memory: Tensor  # [B, H, K, V]


class DeltaNet(AssociativeLayer):
    """The delta rule (Schlag et al., 2021, Eqs. 23-24), with a write strength from a sigmoid.

    The defaults are those of Irie et al. (2023): queries and keys through elu + 1, then divided by
    their sum; write strength in (0, 1). No biases, no positions. With
    `feature_map="silu", normalization="l2", max_write_strength=2.0` it is the DeltaNet of Grazzi et
    al. (2025), whose state transition has eigenvalues in (-1, 1) and which can therefore compute
    parity; the sum-normalised keys cannot reach -1, as their length is below 1.

    Args:
        dim: D.
        num_heads: H; `head_dim` defaults to dim / num_heads.
        feature_map, normalization, dpfp_nu, num_random_features: see `FeatureMap`.
        max_write_strength: the sigmoid of the write strength is multiplied by this; in (0, 2].
        scale_output: multiply what is read by head_dim^-0.5, as the official language models do.
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        head_dim: int | None = None,
        feature_map: FeatureMapName = "elu_plus_one",
        normalization: Normalization = "sum",
        dpfp_nu: int = 3,
        num_random_features: int = 64,
        max_write_strength: float = 1.0,
        scale_output: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not 0 < max_write_strength <= 2:
            raise ValueError(f"max_write_strength must be in (0, 2], got {max_write_strength}")
        self.num_heads = num_heads
        self.head_dim = split_heads(dim, num_heads, head_dim)
        self.scale = Scale.of_heads(self.head_dim, scale_output)
        self.max_write_strength = max_write_strength
        self.feature_map = FeatureMap(
            self.head_dim, feature_map, normalization, dpfp_nu, num_random_features, generator
        )
        width = num_heads * self.head_dim
        self.input_projection = linear(dim, 3 * width + num_heads, bias=False, generator=generator)
        self.output_projection = linear(width, dim, bias=False, generator=generator)

    def initial_state(self, batch_size: int) -> Any:
        weight = self.output_projection.weight
        shape = batch_size, self.num_heads, self.feature_map.key_dim, self.head_dim
        return DeltaNetState(weight.new_zeros(shape, dtype=widest_dtype(weight)))

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        memory = None if state is None else state.memory
        y, memory = delta_rule(*self.rule_inputs(x), memory)
        return self.output_projection(self.scale(y.flatten(-2))), DeltaNetState(memory)

    def rule_inputs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`x [B, T, D]` -> q, k `[B, T, H, K]`, v `[B, T, H, V]`, write strength `[B, T, H]`."""
        heads = self.input_projection(x).unflatten(-1, (self.num_heads, -1))
        q, k, v, beta = heads.split([self.head_dim] * 3 + [1], -1)
        beta = self.max_write_strength * beta.squeeze(-1).sigmoid()
        return self.feature_map(q), self.feature_map(k), v, beta

    def association(self, x: Tensor, state: Any) -> tuple[Tensor, Tensor]:
        _, k, v, _ = self.rule_inputs(x[:, None])
        return k[:, 0], v[:, 0]

    def read(self, keys: Tensor, state: Any) -> Tensor:
        return torch.einsum("bmhk,bhkv->bmhv", keys, state.memory)
