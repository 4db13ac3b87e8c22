"""Language models with sparse feed-forward layers: Tables 1 to 6 of Csordas, Irie, Schmidhuber
(2023), at their published sizes.

The texts are prepared folders: WikiText-103, C4 and peS2o as 8,000 sentence pieces, enwik8 as
bytes (256 tokens, of which it has 205: the published vocabulary); `data/...` unless `--text` says
otherwise. One run takes days on a GPU. The short form has the rows of WT-S with two layers, on the
bytes of Python's sources, for minutes a run on two CPU cores; study `sparse_feed_forward` compares
these layers for longer.

Parameters are those of the published code, but for one number in every layer that nothing reads
there. What is different here: Top-K drops units after it has chosen them; the balance loss of
Switch is the paper's (the code's is smaller by the square of the number of experts), the Sinkhorn
iteration of S-BASE balances, over all tokens of a batch (the code's has a sign error, and balances
one sequence at a time); attention and embedding start as our layers do; the weights of the lowest
validation loss are evaluated, not the last. Where paper and code disagree about a number, it is the
paper's: expert dropout 0.2 in WT-B, none in S-BASE, gradients clipped at 0.25. Only sigma-MoE on C4
and peS2o has the code's balance weight and expert dropout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fastweights.experiments.experiment import Experiment, Quick
from fastweights.experiments.wikitext103 import QUICK
from fastweights.train.config import RunConfig, merge, parse_config


class Size(NamedTuple):
    """Of the models of one table column; `head_dim` times `num_heads` may differ from `dim`."""

    vocab_size: int
    dim: int
    num_heads: int
    head_dim: int
    num_layers: int
    ff_dim: int
    num_experts: int  # of 128 hidden units
    context_length: int
    batch_size: int
    dropout: float
    warmup_steps: int
    expert_dropout: float
    balance_weight: float
    subkeys: tuple[int, ...]  # of PKM: with as many values as hidden units, with as many parameters
    top_k: tuple[int, ...]


SIZES: dict[str, Size] = {
    "wt_s": Size(
        8000, 412, 10, 41, 16, 2053, 16, 256, 64, 0.1, 0, 0.0, 1e-3, (46, 62), (64, 128, 256, 512)
    ),
    "wt_s_star": Size(8000, 412, 10, 41, 16, 16480, 128, 256, 64, 0.1, 0, 0.05, 1e-3, (), ()),
    "wt_b": Size(
        8000, 1024, 16, 64, 18, 4110, 32, 512, 64, 0.2, 4000, 0.2, 1e-3, (64, 89), (128, 256, 512)
    ),
    "e8": Size(
        205, 512, 8, 64, 12, 2053, 16, 512, 32, 0.1, 0, 0.05, 1e-4, (46, 62), (128, 256, 512)
    ),
}

TASKS: dict[str, tuple[str, ...]] = {
    "wikitext103_pieces": ("wt_s", "wt_s_star", "wt_b"),
    "enwik8": ("e8",),
    "c4": ("wt_s", "wt_b"),
    "pes2o": ("wt_s", "wt_b"),
}
"""The sizes of the models of every text."""
TEXTS = {
    "wikitext103_pieces": "data/wikitext-103-pieces",
    "enwik8": "data/enwik8",
    "c4": "data/c4",
    "pes2o": "data/pes2o",
}


def _dense(size: Size, layer: str = "dense", **options: Any) -> dict[str, Any]:
    options = {"initialization": "scaled", **options}
    return {"feed_forward": layer, "ff_dim": size.ff_dim, "feed_forward_options": options}


def _memory(num_subkeys: int, activation: str, initialization: str) -> dict[str, Any]:
    options = {
        "num_subkeys": num_subkeys,
        "activation": activation,
        "initialization": initialization,
    }
    return {"feed_forward": "dense_product_key_memory", "feed_forward_options": options}


def _experts(
    size: Size, layer: str = "sigma_moe", expert_dim: int = 128, top_k: int = 4, **options: Any
) -> dict[str, Any]:
    """As many hidden units in all, whatever an expert has."""
    if layer in ("sigma_moe", "moe"):
        options = {"expert_dropout": size.expert_dropout, **options}
    if layer != "switch":
        options = {"balance_weight": size.balance_weight, **options}
    sizes = {
        "num_experts": size.num_experts * 128 // expert_dim,
        "expert_dim": expert_dim,
        "top_k": top_k,
    }
    return {"feed_forward": layer, "feed_forward_options": {**sizes, **options}}


def _switch(size: Size, expert_dim: int, top_k: int, dropout: float) -> dict[str, Any]:
    options = {
        "router": "switch",
        "initialization": "switch",
        "balance_weight": 0.01,
        "expert_dropout": 0.0,
        "hidden_dropout": dropout,
    }
    return _experts(size, "moe", expert_dim, top_k, **options)


def feed_forwards(size: Size) -> dict[str, dict[str, Any]]:
    """The feed-forward layers of the tables, by name, for models of a size."""
    dropout = size.dropout
    layers = {"dense": _dense(size)}
    for top_k in size.top_k:
        layers[f"top_{top_k}"] = _dense(size, "top_k", top_k=top_k)
    for name, num_subkeys in zip(("values", "parameters"), size.subkeys, strict=False):
        for activation in ("softmax", "relu"):
            layers[f"pkm_{name}_{activation}"] = _memory(num_subkeys, activation, "dim")
    if size.subkeys:
        layers["pkm_parameters_relu_init"] = _memory(size.subkeys[-1], "relu", "num_values")
    return layers | {
        "sigma_moe": _experts(size),
        "sigma_moe_standard_dropout": _experts(size, expert_dropout=0.0, hidden_dropout=dropout),
        "softmax_after_top_k": _experts(size, "moe", router="softmax_after_top_k"),
        "softmax_before_top_k": _experts(size, "moe", router="softmax_before_top_k"),
        "sigma_moe_standard_init": _experts(size, initialization="expert_dim"),
        "sigma_moe_no_regularization": _experts(size, balance_weight=0.0, expert_dropout=0.0),
        "sigma_moe_k8_g64": _experts(size, expert_dim=64, top_k=8),
        "sigma_moe_k2_g256": _experts(size, expert_dim=256, top_k=2),
        "sigma_moe_k1_g512": _experts(size, expert_dim=512, top_k=1),
        "sigma_moe_k4_g64": _experts(size, expert_dim=64),
        "sigma_moe_k1_g128": _experts(size, top_k=1),
        "sigma_moe_k2_g128": _experts(size, top_k=2),
        "sigma_moe_k8_g128": _experts(size, top_k=8),
        "switch": _switch(size, 512, 1, dropout),
        "switch_no_dropout": _switch(size, 512, 1, 0.0),
        "switch_k4_g128": _switch(size, 128, 4, dropout),
        "switch_k1_g128": _switch(size, 128, 1, dropout),
        "switch_k1_g128_no_dropout": _switch(size, 128, 1, 0.0),
        "s_base": _experts(size, "s_base"),
        "s_base_k1_g512": _experts(size, "s_base", 512, 1),
    }


# Perplexity of a sub-word, or bits a character (e8), as published, where there is one (Tables 1, 2,
# 3, 4, 6, 10): wt_s, wt_s_star, wt_b, e8. For sigma_moe in wt_s, Table 3 has 11.71.
PUBLISHED: dict[str, tuple[float | None, float | None, float | None, float | None]] = {
    "dense": (11.81, 10.03, 9.46, 1.08),
    "top_64": (11.86, None, None, None),
    "top_128": (11.74, None, 9.26, 1.07),
    "top_256": (11.74, None, 9.34, 1.08),
    "top_512": (11.68, None, 9.36, 1.08),
    "pkm_values_softmax": (14.11, None, 11.29, 1.20),
    "pkm_values_relu": (13.32, None, 10.16, 1.12),
    "pkm_parameters_softmax": (13.96, None, 11.10, 1.16),
    "pkm_parameters_relu": (12.77, None, 9.98, 1.11),
    "pkm_parameters_relu_init": (12.75, None, 9.96, 1.11),
    "sigma_moe": (11.59, 10.37, 9.44, 1.08),
    "sigma_moe_standard_dropout": (12.01, 10.27, 9.53, 1.08),
    "softmax_after_top_k": (11.89, 11.27, 9.58, 1.09),
    "softmax_before_top_k": (12.05, 10.54, 9.62, 1.09),
    "sigma_moe_standard_init": (11.80, 10.59, 9.67, 1.08),
    "sigma_moe_no_regularization": (11.83, 10.41, 9.51, 1.08),
    "sigma_moe_k8_g64": (11.63, 10.30, 9.58, 1.08),
    "sigma_moe_k2_g256": (11.84, 10.44, 9.56, 1.09),
    "sigma_moe_k1_g512": (11.90, 10.83, 9.58, 1.09),
    "sigma_moe_k4_g64": (11.81, 10.53, None, 1.08),
    "sigma_moe_k1_g128": (12.26, 11.30, None, 1.09),
    "sigma_moe_k2_g128": (11.90, 10.66, None, 1.09),
    "sigma_moe_k8_g128": (11.58, 10.22, None, 1.08),
    "switch": (12.27, 11.24, 9.68, 1.08),
    "switch_no_dropout": (11.88, 11.10, 9.77, 1.10),
    "switch_k4_g128": (12.05, 11.37, None, 1.10),
    "switch_k1_g128": (12.61, 11.89, None, 1.11),
    "switch_k1_g128_no_dropout": (12.35, 11.78, None, 1.10),
    "s_base": (13.01, 10.96, 10.50, 1.17),
    "s_base_k1_g512": (12.32, 11.31, 9.77, 1.32),
}
# Table 5: C4 with wt_s and wt_b, peS2o with wt_s and wt_b.
PUBLISHED_LARGE_TEXT: dict[str, tuple[float, float, float, float]] = {
    "dense": (23.76, 17.79, 14.34, 10.91),
    "sigma_moe": (23.25, 17.46, 14.12, 10.91),
    "switch": (24.47, 18.29, 14.74, 11.56),
    "s_base": (35.48, 18.53, 16.61, 11.72),
}

MODELS: dict[str, tuple[Size, dict[str, Any]]] = {
    f"{size}_{name}": (sizes, layer)
    for column, (size, sizes) in enumerate(SIZES.items())
    for name, layer in feed_forwards(sizes).items()
    if PUBLISHED[name][column] is not None
}
# The official runs of the small sigma-MoE on large texts had neither, those of the big one less.
LARGE_TEXT_OPTIONS: dict[str, dict[str, float]] = {
    "wt_s_sigma_moe": {"balance_weight": 0.0, "expert_dropout": 0.0},
    "wt_b_sigma_moe": {"expert_dropout": 0.1},
}


def config(task: str, model: str, seed: int, overrides: Mapping[str, Any]) -> RunConfig:
    """One run of the grid."""
    size, layer = MODELS[model]
    values: dict[str, Any] = {
        "task": {
            "kind": "text",
            "text": TEXTS[task],
            "context_length": size.context_length,
            "carry_state": True,
        },
        "model": {
            "layer": "transformer_xl",
            "layer_options": {
                "num_heads": size.num_heads,
                "head_dim": size.head_dim,
                "memory_length": size.context_length,
            },
            "dim": size.dim,
            "num_layers": size.num_layers,
            "block": "pre_norm",
            "final_norm": True,
            "dropout": size.dropout,
            "embedding_dropout": size.dropout,
            **layer,
        },
        "training": {
            "lr": 2.5e-4,
            "lr_decay": "cosine",
            "warmup_steps": size.warmup_steps,
            "clip_norm": 0.25,
            "batch_size": size.batch_size,
            "max_steps": 100_000,
            "evaluate_every": 2000,
            "checkpoint_every": 10_000,
        },
        "seed": seed,
    }
    if task in ("c4", "pes2o") and model in LARGE_TEXT_OPTIONS:
        values = merge(values, {"model": {"feed_forward_options": LARGE_TEXT_OPTIONS[model]}})
    return parse_config(merge(values, overrides)).resolved()


def _belongs(task: str, model: str) -> bool:
    large_text = [f"{size}_{name}" for size in TASKS[task] for name in PUBLISHED_LARGE_TEXT]
    if task in ("c4", "pes2o"):
        return model in large_text
    return MODELS[model][0] in [SIZES[size] for size in TASKS[task]]


SPARSE_LANGUAGE_MODELS = Experiment(
    "Language models with sparse feed-forward layers at the published sizes: WikiText-103, enwik8, "
    "C4, peS2o (Csordas et al., 2023)",
    config,
    tuple(TASKS),
    tuple(MODELS),
    seeds=(1,),
    belongs=_belongs,
    quick=Quick(
        ("wikitext103_pieces",),
        tuple(name for name in MODELS if MODELS[name][0] is SIZES["wt_s"]),
        QUICK,
    ),
)
