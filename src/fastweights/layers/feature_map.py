"""The feature map of queries and keys, chosen by name."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from fastweights.ops import feature_maps

FeatureMapName = Literal["elu_plus_one", "dpfp", "favor", "softmax", "silu", "identity"]
Normalization = Literal["none", "sum", "l2"]


class FeatureMap(nn.Module):
    """A map of `[..., head_dim]` to `[..., key_dim]`, followed by a normalisation of the result.

    Args:
        head_dim: width of one head.
        name: `elu_plus_one`, `dpfp`, `favor`, `softmax`, `silu` or `identity`.
        normalization: `none`; `sum`, so that the features add up to 1; `l2`, so that their length
            is 1.
        dpfp_nu: capacity factor of `dpfp`; the others ignore it.
        num_random_features: of `favor`; the others ignore it. They are drawn once, from
            `generator`, and stored with the weights.
    """

    projection: Tensor

    def __init__(
        self,
        head_dim: int,
        name: FeatureMapName,
        normalization: Normalization,
        dpfp_nu: int,
        num_random_features: int,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        for value, allowed, what in (
            (name, get_args(FeatureMapName), "feature_map"),
            (normalization, get_args(Normalization), "normalization"),
        ):
            if value not in allowed:
                raise ValueError(f"{what} must be one of {', '.join(allowed)}, got {value!r}")
        if normalization == "sum" and name in ("silu", "identity"):
            raise ValueError(
                f"normalization='sum' needs features >= 0; those of {name!r} have both signs"
            )
        self.name, self.normalization, self.dpfp_nu = name, normalization, dpfp_nu
        self.key_dim = head_dim
        if name == "dpfp":
            if not 1 <= dpfp_nu < 2 * head_dim:
                raise ValueError(
                    f"dpfp_nu must be in 1 .. 2 head_dim - 1 = {2 * head_dim - 1}, got {dpfp_nu}"
                )
            self.key_dim = 2 * head_dim * dpfp_nu
        if name == "favor":
            projection = feature_maps.favor_projection(
                head_dim, num_random_features, generator=generator
            )
            self.register_buffer("projection", projection)
            self.temperature = 1 / math.sqrt(math.sqrt(head_dim))
            self.key_dim = self.map(torch.zeros(1, head_dim)).shape[-1]

    def map(self, x: Tensor) -> Tensor:
        match self.name:
            case "elu_plus_one":
                return feature_maps.elu_plus_one(x)
            case "dpfp":
                return feature_maps.dpfp(x, self.dpfp_nu)
            case "favor":
                return feature_maps.favor_features(x, self.projection, self.temperature)
            case "softmax":
                return feature_maps.softmax_features(x)
            case "silu":
                return silu(x)
            case _:
                return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.map(x)
        match self.normalization:
            case "sum":
                return feature_maps.sum_normalize(x)
            case "l2":
                return feature_maps.l2_normalize(x)
            case _:
                return x
