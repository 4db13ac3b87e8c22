"""Exact parameter counts of the published models (Csordas, Irie, Schmidhuber, 2023), for the layers
that are built here."""

from typing import NamedTuple

import pytest
from torch import nn

from fastweights.layers.dense import Dense
from fastweights.layers.layer import FeedForward
from fastweights.layers.moe import MoE
from fastweights.layers.product_key_memory import DenseProductKeyMemory
from fastweights.layers.top_k import TopK
from fastweights.layers.transformer_xl import TransformerXL
from fastweights.models.block import PreNormBlock
from fastweights.models.sequence_model import SequenceModel

UNUSED_SCALARS = 1
"""In every layer of the published code, a parameter that nothing reads; ours have none."""


class Size(NamedTuple):
    vocab_size: int
    dim: int
    num_heads: int
    head_dim: int
    num_layers: int


SMALL = Size(8000, 412, 10, 41, 16)
LARGE = Size(8000, 1024, 16, 64, 18)
CHARACTERS = Size(205, 512, 8, 64, 12)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def published_count(size: Size, feed_forward: FeedForward) -> int:
    """Of the whole model, from one with a single block."""
    layer = TransformerXL(size.dim, size.num_heads, size.head_dim)
    block = PreNormBlock(size.dim, layer, feed_forward)
    model = SequenceModel(size.dim, size.vocab_size, size.vocab_size, [block], final_norm=True)
    per_layer = count(block) + UNUSED_SCALARS
    return count(model) - count(block) + size.num_layers * per_layer


@pytest.mark.parametrize(
    ("size", "ff_dim", "want"),
    [(SMALL, 2053, 47_260_136), (LARGE, 4110, 262_479_968), (CHARACTERS, 2053, 41_234_721)],
)
def test_dense_and_top_k(size, ff_dim, want):
    assert published_count(size, Dense(size.dim, ff_dim)) == want
    assert published_count(size, TopK(size.dim, ff_dim, top_k=128)) == want


@pytest.mark.parametrize(
    ("size", "num_experts", "want"),
    [(SMALL, 16, 47_260_248), (LARGE, 32, 262_461_284), (CHARACTERS, 16, 41_240_805)],
)
def test_mixture_of_experts(size, num_experts, want):
    assert published_count(size, MoE(size.dim, num_experts, expert_dim=128)) == want


def test_the_large_mixture_of_the_small_model():
    assert published_count(SMALL, MoE(SMALL.dim, 128, expert_dim=128)) == 237_004_376
    assert published_count(SMALL, Dense(SMALL.dim, 16480)) == 237_696_536


@pytest.mark.parametrize(
    ("size", "num_subkeys", "want"),
    [
        (SMALL, 46, 35_315_544),
        (SMALL, 62, 47_128_408),
        (LARGE, 64, 191_092_580),
        (LARGE, 89, 263_438_180),
        (CHARACTERS, 62, 41_117_925),
    ],
)
def test_product_key_memory(size, num_subkeys, want):
    assert published_count(size, DenseProductKeyMemory(size.dim, num_subkeys)) == want
