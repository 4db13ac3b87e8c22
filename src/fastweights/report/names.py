"""How languages and models are written in tables (Markdown), figures (mathtext) and terminals
(plain), and the order in which they appear."""

import re
from collections.abc import Iterable
from typing import NamedTuple


class Name(NamedTuple):
    """One name in three spellings."""

    plain: str
    markdown: str
    figure: str


LANGUAGE_NAMES: dict[str, Name] = {
    "parity": Name("parity", "parity", "parity"),
    "aa_star": Name("(aa)*", r"(aa)\*", r"$(aa)^{*}$"),
    "abab_star": Name("(abab)*", r"(abab)\*", r"$(abab)^{*}$"),
    "counter_2": Name("aⁿbⁿ", "aⁿbⁿ", r"$a^{n}b^{n}$"),
    "counter_3": Name("aⁿbⁿcⁿ", "aⁿbⁿcⁿ", r"$a^{n}b^{n}c^{n}$"),
    "shuffle_2": Name("Shuffle-2", "Shuffle-2", "Shuffle-2"),
    "dyck_1": Name("Dyck-1", "Dyck-1", "Dyck-1"),
    "reset_dyck_1": Name("reset Dyck-1", "reset Dyck-1", "reset Dyck-1"),
}

MODEL_NAMES: dict[str, str] = {
    "lstm": "LSTM",
    "e_lstm": "e-LSTM",
    "transformer": "Transformer",
    "linear_transformer": "Linear Transformer",
    "delta_net": "DeltaNet",
    "delta_net_0_2": "DeltaNet (0, 2)",
    "recurrent_delta_net": "Recurrent Delta",
    "srwm": "SRWM",
}

RECALL_MODEL_NAMES: dict[str, str] = {
    "softmax_attention_conv": "softmax attention",
    "linear_transformer_conv": "linear Transformer",
    "linear_transformer_dpfp_conv": "linear Transformer, DPFP-1",
    "delta_net_conv": "DeltaNet",
    "delta_net_dpfp_conv": "DeltaNet, DPFP-1",
}
"""Those of study recall, where every model has a short convolution."""

FEED_FORWARD_MODEL_NAMES: dict[str, str] = {
    "dense": "dense",
    "top_k": "Top-K",
    "pkm": "PKM",
    "pkm_dense": "PKM, dense",
    "switch": "Switch",
    "s_base": "S-BASE",
    "sigma_moe": "σ-MoE",
}
"""Those of study sparse_feed_forward."""

LANGUAGE_MODEL_NAMES: dict[str, str] = {
    "lm_softmax": "softmax attention",
    "lm_transformer_xl": "Transformer-XL",
    "lm_linear": "linear Transformer",
    "lm_linear_dpfp": "linear Transformer, DPFP-1",
    "lm_delta_net": "DeltaNet",
    "lm_delta_net_dpfp": "DeltaNet, DPFP-1",
    "lm_recurrent_delta": "Recurrent Delta",
    "lm_srwm": "SRWM",
    "lm_delta_rnn": "Delta RNN",
    "lm_delta_lstm": "Delta LSTM",
    "lm_delta_net_top_k": "DeltaNet, Top-K",
    "lm_delta_net_pkm": "DeltaNet, PKM",
    "lm_delta_net_switch": "DeltaNet, Switch",
    "lm_delta_net_s_base": "DeltaNet, S-BASE",
    "lm_delta_net_sigma_moe": "DeltaNet, σ-MoE",
}
"""Those of study language_models."""

ALL_MODEL_NAMES = MODEL_NAMES | RECALL_MODEL_NAMES | FEED_FORWARD_MODEL_NAMES | LANGUAGE_MODEL_NAMES
"""In the order of the tables."""


def escape_markdown(text: str) -> str:
    """`text` on one line, with the characters that Markdown reads as marks escaped."""
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", " ".join(text.split()))


def as_it_is(key: str) -> Name:
    """A name without marks of its own."""
    return Name(key, escape_markdown(key), key.replace("\\", r"\\").replace("$", r"\$"))


def language_name(key: str) -> Name:
    """The name of a language; a key that is not one of the eight is shown as it is."""
    return LANGUAGE_NAMES.get(key) or as_it_is(key)


def model_name(key: str) -> Name:
    """The name of a model; a key that is not known is shown as it is."""
    return as_it_is(ALL_MODEL_NAMES.get(key, key))


def in_order(keys: Iterable[str], known: Iterable[str]) -> list[str]:
    """The distinct `keys`: those in `known` first, in its order, then the others by name."""
    order = list(known)
    found = set(keys)
    return [key for key in order if key in found] + sorted(found - set(order))
