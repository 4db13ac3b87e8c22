"""The feature map of queries and keys, chosen by name."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from fastweights.layers.arguments import check_choice
from fastweights.ops import feature_maps

FeatureMapName = Literal["elu_plus_one", "dpfp", "favor", "softmax", "silu", "tanh", "identity"]
Normalization = Literal["none", "sum", "l2"]
SIGNED_FEATURES = ("silu", "tanh", "identity")
"""Maps whose features may be negative."""


class FeatureMap(nn.Module):
    """A map of `[..., head_dim]` to `[..., key_dim]`, followed by a normalisation of the result.

    Args:
        head_dim: width of one head.
        name: `elu_plus_one`, `dpfp`, `favor`, `softmax`, `silu`, `tanh` or `identity`.
        normalization: `none`; `sum`, so that the features add up to 1; `l2`, so that their length
            is 1.
        dpfp_nu: capacity factor of `dpfp`; the others ignore it.
        num_random_features: of `favor`; the others ignore it. They are drawn once, from
            `generator`, and stored with the weights.
        favor_temperature: factor on the inputs of `favor`; None: head_dim^-0.25, with which it
            estimates softmax attention.
        favor_redraw: whether `redraw_directions` draws the directions of `favor` anew, from
            PyTorch's default generator.
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
        favor_temperature: float | None = None,
        favor_redraw: bool = False,
    ) -> None:
        super().__init__()
        check_choice("feature_map", name, FeatureMapName)
        check_choice("normalization", normalization, Normalization)
        if normalization == "sum" and name in SIGNED_FEATURES:
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
            self.temperature = favor_temperature or 1 / math.sqrt(math.sqrt(head_dim))
            self.redraw = favor_redraw
            self.key_dim = 2 * num_random_features

    def map(self, x: Tensor) -> Tensor:
        match self.name:
            case "elu_plus_one":
                return feature_maps.elu_plus_one(x)
            case "dpfp":
                return feature_maps.dpfp(x, self.dpfp_nu)
            case "favor":
                return feature_maps.favor_features(x, self.projection.to(x.dtype), self.temperature)
            case "tanh":
                return x.tanh()
            case "softmax":
                return feature_maps.softmax_features(x)
            case "silu":
                return silu(x)
            case _:
                return x

    def redraw_directions(self) -> None:
        """New directions of `favor` where they are to be drawn anew; else nothing.

        Queries and keys of a pass need the same ones, so who maps them both calls this first.
        """
        if self.name == "favor" and self.redraw:
            directions, dim = self.projection.shape
            self.projection.copy_(feature_maps.favor_projection(dim, directions, generator=None))

    def forward(self, x: Tensor) -> Tensor:
        x = self.map(x)
        match self.normalization:
            case "sum":
                return feature_maps.sum_normalize(x)
            case "l2":
                return feature_maps.l2_normalize(x)
            case _:
                return x
