"""The model of the retrieval experiments: one memory, and the maps that make keys and queries."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastweights.layers.feature_map import FeatureMap, FeatureMapName
from fastweights.layers.initialization import linear, normal
from fastweights.ops.clamped_delta_rule import clamped_delta_rule
from fastweights.ops.delta_rule_weights import delta_rule_weights
from fastweights.ops.dpfp_similarity import dpfp_similarity
from fastweights.ops.favor_similarity import favor_similarity
from fastweights.ops.linear_attention import linear_attention_weights, normalize_weights
from fastweights.ops.normalized_delta_rule import normalized_delta_rule_weights

SMALLEST_SUM = 1e-12
"""Features that add up to less are divided by this, as in `fastweights.ops.sum_normalize`."""

Rule = Literal["softmax", "sum", "delta", "clamped_delta"]


class AssociativeMemory(nn.Module):
    """Pairs of a key and a value are stored; a key reads a mixture of the values.

    Schlag, Irie, Schmidhuber (2021), section 6.1 and official code: S keys with learned embeddings
    of width 2.2 S, S values that are the unit vectors of R^S. With e the embedding of a key and v
    its value, k = W_k [v; e] + b_k, beta = sigmoid(W_beta [v; e] + b_beta), and a query is
    q = W_q e + b_q; one head. Differences: the embeddings of the values, which nothing reads, are
    left out, and a normaliser is what `fastweights.ops` has (sums below 1e-12 count as that; the
    code divides keys by their sum as it is, and adds 1e-6 to that of queries).

    The embeddings are projected once for all S keys, not at every position.

    Args:
        num_keys: S.
        rule: `softmax` attention (scale 1/sqrt(head_dim), no feature map), `sum`, `delta` or
            `clamped_delta` (see `fastweights.ops`). What the last one reads goes through a
            LayerNorm without parameters, as in the official code: so it cannot be a unit vector.
        feature_map, feature_normalization, dpfp_nu, num_random_features, favor_temperature,
            favor_redraw: see `fastweights.layers.feature_map.FeatureMap`.
        attention_normalizer: divide what is read by the sum of its weights; `sum` and `delta`.
        head_dim: width of keys and queries before the feature map.
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(
        self,
        num_keys: int,
        rule: Rule,
        feature_map: FeatureMapName,
        feature_normalization: Literal["none", "sum"] | None,
        attention_normalizer: bool | None,
        dpfp_nu: int,
        num_random_features: int,
        favor_temperature: float | None,
        favor_redraw: bool,
        head_dim: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if rule == "clamped_delta" and attention_normalizer:
            raise ValueError("attention_normalizer: the clamped delta rule has none")
        self.num_keys, self.rule, self.head_dim = num_keys, rule, head_dim
        self.attention_normalizer = bool(attention_normalizer)
        width = int(2.2 * num_keys)
        self.key_embedding = normal(num_keys, width, std=1.0, generator=generator)
        self.to_key = linear(num_keys + width, head_dim, bias=True, generator=generator)
        self.to_query = linear(width, head_dim, bias=True, generator=generator)
        for layer in (self.to_key, self.to_query):
            if rule == "softmax":
                nn.init.xavier_uniform_(layer.weight, generator=generator)
            else:
                bound = 1 / math.sqrt(head_dim)
                nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        if rule in ("delta", "clamped_delta"):
            self.to_beta = linear(num_keys + width, 1, bias=True, generator=generator)
        if rule != "softmax":
            self.feature_map = FeatureMap(
                head_dim,
                feature_map,
                feature_normalization or "none",
                dpfp_nu,
                num_random_features,
                generator,
                favor_temperature,
                favor_redraw,
            )

    def weights(self, keys: Tensor, values: Tensor, queries: Tensor) -> Tensor:
        """How much of each stored value each query reads: keys, values [B, T] and queries [B, M],
        numbers in 0 .. S - 1, -> [B, M, T]. Not for the clamped delta rule, whose weights depend on
        the values."""
        q = F.embedding(queries, self.to_query(self.key_embedding))
        k = self._stored(keys, values, self.to_key)
        if self.rule == "softmax":
            return (q @ k.mT / math.sqrt(self.head_dim)).softmax(-1)
        self.feature_map.redraw_directions()
        if self.rule == "sum":
            weights = self._similarity(q, k)
            return normalize_weights(weights) if self.attention_normalizer else weights
        beta = self._stored(keys, values, self.to_beta).sigmoid()
        if not self.attention_normalizer:
            return self._delta_weights(q, k, beta)
        q, k = self.feature_map(q)[:, :, None], self.feature_map(k)[:, :, None]
        return normalized_delta_rule_weights(q, k, beta)[:, 0]

    def forward(self, keys: Tensor, values: Tensor, queries: Tensor) -> Tensor:
        """What each query reads, a mixture of unit vectors: [B, M, S]."""
        if self.rule == "clamped_delta":
            return self._read_clamped(keys, values, queries)
        weights = self.weights(keys, values, queries)
        read = weights.new_zeros(*queries.shape, self.num_keys)
        return read.scatter_add(-1, values[:, None].expand_as(weights), weights)

    def _similarity(self, q: Tensor, k: Tensor) -> Tensor:
        """phi(q_m) . phi(k_t): [B, M, T]."""
        phi = self.feature_map
        match phi.name, phi.normalization:
            case "dpfp", "none":
                return dpfp_similarity(q, k, phi.dpfp_nu)
            case "favor", "none":
                return favor_similarity(q, k, phi.projection, phi.temperature)
            case _:
                return linear_attention_weights(phi(q)[:, :, None], phi(k)[:, :, None])[:, 0]

    def _delta_weights(self, q: Tensor, k: Tensor, beta: Tensor) -> Tensor:
        """Keys divided by their sum s at strength beta are keys at strength beta / s^2 whose values
        are multiplied by s: the features themselves need not be divided.

        Divided by s twice: the gradient of beta / s^2 has s^4, which underflows for s below 1e-10.
        """
        phi = self.feature_map
        q, k = phi.map(q), phi.map(k)
        if phi.normalization == "none":
            return delta_rule_weights(q[:, :, None], k[:, :, None], beta)[:, 0]
        of_query, of_key = (x.sum(-1).clamp(min=SMALLEST_SUM) for x in (q, k))
        strength = beta / of_key[..., None] / of_key[..., None]
        weights = delta_rule_weights(q[:, :, None], k[:, :, None], strength)[:, 0]
        return weights * of_key[:, None] / of_query[..., None]

    def _read_clamped(self, keys: Tensor, values: Tensor, queries: Tensor) -> Tensor:
        self.feature_map.redraw_directions()
        k = self.feature_map(self._stored(keys, values, self.to_key))[:, :, None]
        beta = self._stored(keys, values, self.to_beta).sigmoid()
        v = F.one_hot(values, self.num_keys).to(k.dtype)[:, :, None]
        _, memory = clamped_delta_rule(k, k, v, beta)
        q = self.feature_map(F.embedding(queries, self.to_query(self.key_embedding)))
        return F.layer_norm(q @ memory[:, 0].to(q.dtype), (self.num_keys,))

    def _stored(self, keys: Tensor, values: Tensor, layer: nn.Linear) -> Tensor:
        """layer([v; e]) at every position: a sum of one row for the value and one for the key."""
        of_value = layer.weight[:, : self.num_keys].mT
        of_key = F.linear(self.key_embedding, layer.weight[:, self.num_keys :], layer.bias)
        return F.embedding(values, of_value) + F.embedding(keys, of_key)
