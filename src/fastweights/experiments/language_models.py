"""Which fast weights model text? The sequence layers of Schlag, Irie, Schmidhuber (2021) and of
Irie, Schlag, Csordas, Schmidhuber (2021), and the feed-forward layers of Csordas, Irie, Schmidhuber
(2023), in language models of bytes that two CPU cores train in minutes.

All models have two blocks of width 128 with a norm before every layer and before the output, four
heads and as many parameters as `lm_delta_net`: within 0.1 %, the width of the feed-forward layer
makes up for the sequence layer. Softmax attention and the sum rule have sinusoidal positions, as
published, Transformer-XL has relative ones, the others none. Not equal are the memories. Heads are
32 wide, but those of `lm_delta_lstm`, which has six memories a head, 16. So a layer holds 4,096
numbers (DeltaNet), 6,272 (Delta LSTM), 8,320 (Delta RNN), 12,800 (SRWM), and with DPFP-1 twice as
many as with elu + 1. The mixtures use a quarter of their experts.

In the tasks `..._carried` the state at the end of a segment is where the next one begins: for
layers whose state has a constant size, and Transformer-XL, which remembers one segment (without
carried state it sees none). There the sum rule has no positions either, as in the published runs
with carried state.

The learning rate is that of 1e-3 and 3e-3 with which softmax attention and DeltaNet were ahead
after 500 steps; the other models have it untried.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastweights.experiments.experiment import Experiment, Quick
from fastweights.train.config import RunConfig, merge, parse_config

CONTEXT_LENGTH = 256

TASKS: dict[str, dict[str, Any]] = {
    "debian_english": {"text": "data/debian-english/text"},
    "debian_english_carried": {"text": "data/debian-english/text", "carry_state": True},
    "python_stdlib": {"text": "python_stdlib"},
    "python_stdlib_carried": {"text": "python_stdlib", "carry_state": True},
}

_POSITIONS = {"positions": "sinusoidal"}
_DPFP = {"feature_map": "dpfp", "dpfp_nu": 1}
_SEQUENCE_LAYERS: dict[str, dict[str, Any]] = {
    "lm_softmax": {"layer": "softmax_attention", "ff_dim": 519, **_POSITIONS},
    "lm_transformer_xl": {
        "layer": "transformer_xl",
        "layer_options": {"memory_length": CONTEXT_LENGTH},
        "ff_dim": 456,
    },
    "lm_linear": {
        "layer": "linear_transformer",
        "layer_options": {"attention_normalizer": True},
        "ff_dim": 521,
        **_POSITIONS,
    },
    "lm_linear_dpfp": {
        "layer": "linear_transformer",
        "layer_options": {"attention_normalizer": True, **_DPFP},
        "ff_dim": 521,
        **_POSITIONS,
    },
    "lm_delta_net": {"layer": "delta_net", "ff_dim": 519},
    "lm_delta_net_dpfp": {"layer": "delta_net", "layer_options": _DPFP, "ff_dim": 519},
    "lm_recurrent_delta": {"layer": "recurrent_delta_net", "ff_dim": 471},
    "lm_srwm": {"layer": "srwm", "ff_dim": 662},
    "lm_delta_rnn": {"layer": "delta_rnn", "ff_dim": 390},
    "lm_delta_lstm": {"layer": "delta_lstm", "layer_options": {"head_dim": 16}, "ff_dim": 254},
}
_EXPERTS = {"num_experts": 12, "expert_dim": 43, "top_k": 3}
_FEED_FORWARDS: dict[str, dict[str, Any]] = {
    "lm_delta_net_top_k": {
        "feed_forward": "top_k",
        "ff_dim": 519,
        "feed_forward_options": {"top_k": 64},
    },
    "lm_delta_net_pkm": {
        "feed_forward": "product_key_memory",
        "feed_forward_options": {
            "num_subkeys": 31,
            "num_heads": 3,
            "top_k": 32,
            "key_dim": 22,
            "initialization": "num_values",
        },
    },
    "lm_delta_net_switch": {
        "feed_forward": "switch",
        "feed_forward_options": {"num_experts": 4, "expert_dim": 130},
    },
    "lm_delta_net_s_base": {"feed_forward": "s_base", "feed_forward_options": _EXPERTS},
    "lm_delta_net_sigma_moe": {"feed_forward": "sigma_moe", "feed_forward_options": _EXPERTS},
}
MODELS: dict[str, dict[str, Any]] = {
    **_SEQUENCE_LAYERS,
    **{name: {"layer": "delta_net", **model} for name, model in _FEED_FORWARDS.items()},
}
CARRIED = tuple(name for name in _SEQUENCE_LAYERS if name != "lm_softmax")
"""Models of the tasks with carried state: all sequence layers but softmax attention, whose state
grows without end."""

DEFAULTS: dict[str, Any] = {
    "task": {"kind": "text", "context_length": CONTEXT_LENGTH, "held_out_tokens": 2**18},
    "model": {
        "layer_options": {"num_heads": 4},
        "dim": 128,
        "num_layers": 2,
        "block": "pre_norm",
        "final_norm": True,
    },
    "training": {
        "lr": 3e-3,
        "lr_decay": "cosine",
        "warmup_steps": 100,
        "clip_norm": 0.25,
        "batch_size": 8,
        "max_steps": 800,
        "evaluate_every": 400,
    },
}


def config(task: str, model: str, seed: int, overrides: Mapping[str, Any]) -> RunConfig:
    """One run of the grid."""
    values = merge(DEFAULTS, {"task": TASKS[task], "model": MODELS[model], "seed": seed})
    if values["task"].get("carry_state"):
        values = merge(values, {"model": {"positions": "none"}})
    return parse_config(merge(values, overrides)).resolved()


def _belongs(task: str, model: str) -> bool:
    return model in CARRIED or not task.endswith("_carried")


LANGUAGE_MODELS = Experiment(
    "Language models of bytes at equal parameters: fast weight programmers, attention, sparse "
    "feed-forward layers, with and without carried state",
    config,
    tuple(TASKS),
    tuple(MODELS),
    belongs=_belongs,
    quick=Quick(
        ("python_stdlib",), ("lm_softmax", "lm_delta_net"), {"training": {"max_steps": 200}}
    ),
)
