"""The mathematics: pure functions on tensors, one rule a file."""

from fastweights.ops.clamped_delta_rule import (
    clamped_delta_rule,
    clamped_delta_rule_recurrent,
    clamped_delta_rule_step,
)
from fastweights.ops.delta_lstm import (
    DeltaLSTMState,
    delta_lstm,
    delta_lstm_recurrent,
    delta_lstm_step,
)
from fastweights.ops.delta_rnn import (
    DeltaRNNState,
    delta_rnn,
    delta_rnn_recurrent,
    delta_rnn_step,
)
from fastweights.ops.delta_rule import (
    delta_rule,
    delta_rule_chunk,
    delta_rule_recurrent,
    delta_rule_step,
)
from fastweights.ops.delta_rule_weights import delta_rule_weights
from fastweights.ops.dpfp_similarity import dpfp_similarity
from fastweights.ops.e_lstm import e_lstm, e_lstm_recurrent, e_lstm_step
from fastweights.ops.expert_matmul import Routes, expert_down, expert_up, sort_routes
from fastweights.ops.favor_similarity import favor_similarity
from fastweights.ops.feature_maps import (
    dpfp,
    elu_features,
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
    linear_attention_weights,
)
from fastweights.ops.lstm import LSTMState, LSTMWeights, lstm, lstm_recurrent, lstm_step
from fastweights.ops.normalized_delta_rule import (
    NormalizedDeltaRuleState,
    normalized_delta_rule,
    normalized_delta_rule_recurrent,
    normalized_delta_rule_step,
    normalized_delta_rule_weights,
)
from fastweights.ops.product_keys import product_key_top_k
from fastweights.ops.recurrent_delta import (
    RecurrentDeltaState,
    recurrent_delta,
    recurrent_delta_recurrent,
    recurrent_delta_step,
)
from fastweights.ops.relative_attention import (
    distance_sinusoids,
    relative_attention,
    relative_attention_recurrent,
    relative_attention_step,
)
from fastweights.ops.self_reference import (
    SelfReferenceState,
    self_reference,
    self_reference_recurrent,
    self_reference_step,
)
from fastweights.ops.softmax_attention import (
    SoftmaxAttentionState,
    softmax_attention,
    softmax_attention_recurrent,
    softmax_attention_step,
)
from fastweights.ops.sparse_read import sparse_read

__all__ = [
    "DeltaLSTMState",
    "DeltaRNNState",
    "LSTMState",
    "LSTMWeights",
    "LinearAttentionState",
    "NormalizedDeltaRuleState",
    "RecurrentDeltaState",
    "Routes",
    "SelfReferenceState",
    "SoftmaxAttentionState",
    "clamped_delta_rule",
    "clamped_delta_rule_recurrent",
    "clamped_delta_rule_step",
    "delta_lstm",
    "delta_lstm_recurrent",
    "delta_lstm_step",
    "delta_rnn",
    "delta_rnn_recurrent",
    "delta_rnn_step",
    "delta_rule",
    "delta_rule_chunk",
    "delta_rule_recurrent",
    "delta_rule_step",
    "delta_rule_weights",
    "distance_sinusoids",
    "dpfp",
    "dpfp_similarity",
    "e_lstm",
    "e_lstm_recurrent",
    "e_lstm_step",
    "elu_features",
    "elu_plus_one",
    "expert_down",
    "expert_up",
    "favor_features",
    "favor_projection",
    "favor_similarity",
    "l2_normalize",
    "linear_attention",
    "linear_attention_chunk",
    "linear_attention_recurrent",
    "linear_attention_step",
    "linear_attention_weights",
    "lstm",
    "lstm_recurrent",
    "lstm_step",
    "normalized_delta_rule",
    "normalized_delta_rule_recurrent",
    "normalized_delta_rule_step",
    "normalized_delta_rule_weights",
    "product_key_top_k",
    "recurrent_delta",
    "recurrent_delta_recurrent",
    "recurrent_delta_step",
    "relative_attention",
    "relative_attention_recurrent",
    "relative_attention_step",
    "self_reference",
    "self_reference_recurrent",
    "self_reference_step",
    "silu_l2",
    "softmax_attention",
    "softmax_attention_recurrent",
    "softmax_attention_step",
    "softmax_features",
    "sort_routes",
    "sparse_read",
    "sum_normalize",
]
