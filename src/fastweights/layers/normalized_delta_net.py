"""DeltaNet with attention normalisation: what is found and what is read, per sum of keys."""

from typing import Any

import torch
from torch import Tensor

from fastweights.layers.delta_net import DeltaNet
from fastweights.layers.feature_map import SIGNED_FEATURES, FeatureMapName, Normalization
from fastweights.ops.normalized_delta_rule import (
    NORMALIZER_EPS,
    NormalizedDeltaRuleState,
    normalized_delta_rule,
)


class NormalizedDeltaNet(DeltaNet):
    """The delta rule per sum of keys (Schlag et al., 2021, Eqs. 26-28; their Table 3 compares it
    with the rule without).

    `fastweights.ops.normalized_delta_rule` says where the official code differs. The sum of the
    keys grows with the sequence: of no use where a state is carried on for long.

    Args:
        feature_map: one whose features are not negative, or the sum may vanish.
        others: see `DeltaNet`.
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
        scale_output: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        if feature_map in SIGNED_FEATURES:
            raise ValueError(
                f"attention normalisation needs features >= 0; those of {feature_map!r} have both "
                "signs"
            )
        super().__init__(
            dim,
            num_heads,
            head_dim,
            feature_map,
            normalization,
            dpfp_nu,
            num_random_features,
            scale_output=scale_output,
            generator=generator,
        )

    def initial_state(self, batch_size: int) -> NormalizedDeltaRuleState:
        memory = super().initial_state(batch_size).memory
        return NormalizedDeltaRuleState(memory, memory.new_zeros(memory.shape[:-1]))

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, NormalizedDeltaRuleState]:
        y, state = normalized_delta_rule(*self.rule_inputs(x), state)
        return self.output_projection(self.scale(y.flatten(-2))), state

    def read(self, keys: Tensor, state: NormalizedDeltaRuleState) -> Tensor:
        total = torch.einsum("bmhk,bhk->bmh", keys, state.key_sum)
        return super().read(keys, state) / (total[..., None] + NORMALIZER_EPS)
