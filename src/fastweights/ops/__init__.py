"""The mathematics: pure functions on tensors, one rule a file."""

from fastweights.ops.delta_rule import (
    delta_rule,
    delta_rule_chunk,
    delta_rule_recurrent,
    delta_rule_step,
)
from fastweights.ops.feature_maps import (
    dpfp,
    elu_plus_one,
    favor_features,
    favor_projection,
    l2_normalize,
    silu_l2,
    softmax_features,
    sum_normalize,
)
from fastweights.ops.linear_attention import (
    LinearAttentionState,
    linear_attention,
    linear_attention_chunk,
    linear_attention_recurrent,
    linear_attention_step,
)

__all__ = [
    "LinearAttentionState",
    "delta_rule",
    "delta_rule_chunk",
    "delta_rule_recurrent",
    "delta_rule_step",
    "dpfp",
    "elu_plus_one",
    "favor_features",
    "favor_projection",
    "l2_normalize",
    "linear_attention",
    "linear_attention_chunk",
    "linear_attention_recurrent",
    "linear_attention_step",
    "silu_l2",
    "softmax_features",
    "sum_normalize",
]
