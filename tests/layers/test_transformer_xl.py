"""Transformer-XL's attention beside its formula, and what its memory forgets."""

import math

import pytest
import torch
from torch import Tensor

from fastweights.layers.transformer_xl import TransformerXL
from fastweights.ops.relative_attention import distance_sinusoids

D, H, K = 6, 2, 5


@pytest.fixture
def layer(generator: torch.Generator) -> TransformerXL:
    """With biases that count: they start at 0."""
    layer = TransformerXL(D, H, K, generator=generator).double()
    for bias in (layer.content_bias, layer.position_bias):
        torch.nn.init.normal_(bias, generator=generator)
    return layer


def inputs(T: int, B: int = 2) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randn(B, T, D, generator=g, dtype=torch.float64)


def formula(layer: TransformerXL, x: Tensor, memory_length: int) -> Tensor:
    """The last `x.shape[1] - memory_length` outputs, one query, key and head at a time."""
    w_k, w_v = layer.key_value_projection.weight.view(H, 2, K, D).unbind(1)
    w_q = layer.query_projection.weight.view(H, K, D)
    w_r = layer.distance_projection.weight.view(H, K, D)
    R = distance_sinusoids(x.shape[1], D, like=x)
    rows = []
    for sequence in x:
        for i in range(memory_length, x.shape[1]):
            heads = []
            for h in range(H):
                q = w_q[h] @ sequence[i]
                scores = [
                    (q + layer.content_bias[h]) @ w_k[h] @ sequence[j]
                    + (q + layer.position_bias[h]) @ w_r[h] @ R[i - j]
                    for j in range(i + 1)
                ]
                weight = (layer.scale * torch.stack(scores)).softmax(0)
                heads.append(weight @ (sequence[: i + 1] @ w_v[h].T))
            rows.append(layer.output_projection(torch.cat(heads)))
    return torch.stack(rows).view(len(x), -1, D)


@pytest.mark.parametrize(("M", "T"), [(0, 1), (0, 4), (3, 1), (2, 4)])
def test_equals_the_formula(layer, M, T):
    x = inputs(M + T).requires_grad_()
    state = layer.initial_state(2)._replace(memory=x[:, :M])
    got, want = layer(x[:, M:], state)[0], formula(layer, x, M)
    torch.testing.assert_close(got, want)
    leaves = [x, *layer.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(got.square().sum(), leaves),
        torch.autograd.grad(want.square().sum(), leaves),
    )


@pytest.mark.parametrize("memory_length", [0, 1, 4, 5, 20])
def test_the_state_holds_the_last_inputs(layer, memory_length):
    layer.memory_length = memory_length
    x, state = inputs(9), None
    for end, piece in ((2, x[:, :2]), (8, x[:, 2:8]), (9, x[:, 8:])):
        _, state = layer(piece, state)
        assert torch.equal(state.memory, x[:, max(end - memory_length, 0) : end])


def test_a_short_memory_forgets(layer):
    """Beyond it nothing is seen, and positions count from the query, not from the start."""
    layer.memory_length = 3
    x = inputs(9)
    _, state = layer(x[:, :7])
    y, _ = layer(x[:, 7:], state)
    torch.testing.assert_close(y, layer(x[:, 4:])[0][:, 3:])
    assert not torch.allclose(y, layer(x)[0][:, 7:])


def test_weights_start_as_published(generator):
    layer = TransformerXL(12, 4, generator=generator)
    assert layer.scale.item() == pytest.approx(1 / math.sqrt(3))
    assert not layer.content_bias.any() and not layer.position_bias.any()
    assert [name for name, _ in layer.named_parameters() if name.endswith("projection.bias")] == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(layer, dtype):
    x = inputs(5)
    want = layer(x, layer(x)[1])[0].to(dtype)
    layer.float()
    with torch.autocast("cpu", dtype):
        mixed = layer(x.float(), layer(x.float())[1])[0]
    layer.to(dtype)
    for got in (mixed, layer(x.to(dtype), layer(x.to(dtype))[1])[0]):
        torch.testing.assert_close(got, want, rtol=0.05, atol=0.05)


def test_bad_values_are_named():
    with pytest.raises(ValueError, match="memory_length must be >= 0, got -1"):
        TransformerXL(8, memory_length=-1)
    with pytest.raises(ValueError, match="got dim=8, num_heads=3"):
        TransformerXL(8, num_heads=3)
