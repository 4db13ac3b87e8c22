"""Initialisation and messages of single layers."""

import math

import pytest
import torch
from torch import nn

from fastweights.layers.delta_net import DeltaNet
from fastweights.layers.dense import Dense
from fastweights.layers.e_lstm import ELSTM
from fastweights.layers.linear_transformer import LinearTransformer
from fastweights.layers.lstm import LSTM
from fastweights.layers.normalized_delta_net import NormalizedDeltaNet
from fastweights.layers.recurrent_delta_net import RecurrentDeltaNet
from fastweights.layers.softmax_attention import SoftmaxAttention
from fastweights.layers.srwm import SRWM


def test_srwm_starts_with_the_published_distributions(generator):
    layer = SRWM(256, num_heads=1, generator=generator)
    std = 1 / math.sqrt(256)
    for weight, want in ((layer.output, std), (layer.key, std), (layer.query, 0.01 * std)):
        assert weight.std().item() == pytest.approx(want, rel=0.05)
        assert abs(weight.mean().item()) < want / 50
    assert layer.write_strength.mean().item() == pytest.approx(-1, abs=0.01)
    assert layer.write_strength.std().item() == pytest.approx(std, rel=0.1)


def test_recurrent_delta_starts_with_the_published_distributions(generator):
    layer = RecurrentDeltaNet(256, num_heads=1, generator=generator)
    for weight in (layer.recurrent_q, layer.recurrent_k, layer.recurrent_v):
        assert weight.std().item() == pytest.approx(1 / 16, rel=0.05)
    assert layer.recurrent_beta.std().item() == pytest.approx(1 / 16, rel=0.2)


def test_e_lstm_starts_with_the_published_distributions(generator):
    layer = ELSTM(128, generator=generator)
    assert layer.input_weight.std().item() == pytest.approx(0.1, rel=0.05)
    assert layer.output_gate.weight.abs().max().item() <= 1 / 16


def test_e_lstm_equals_the_published_equations(generator):
    layer = ELSTM(4, generator=generator).double()
    x = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    (w_z, w_f), (b_z, b_f) = layer.input_weight.chunk(2), layer.input_bias.chunk(2)
    cell, ys = torch.zeros(2, 4, dtype=torch.float64), []
    for x_t in x.unbind(1):
        z = torch.tanh(x_t @ w_z.T + layer.peephole_z * cell + b_z)
        f = torch.sigmoid(x_t @ w_f.T + layer.peephole_f * cell + b_f)
        cell = f * cell + (1 - f) * z
        o = torch.sigmoid(
            torch.cat([x_t, cell], -1) @ layer.output_gate.weight.T + layer.output_gate.bias
        )
        ys.append(cell * o)
    torch.testing.assert_close(layer(x)[0], torch.stack(ys, 1))


def test_attention_equals_multihead_attention(generator):
    layer = SoftmaxAttention(8, num_heads=2, generator=generator)
    oracle = nn.MultiheadAttention(8, 2, batch_first=True)
    for parameter in layer.parameters():  # so that the biases count as well
        nn.init.normal_(parameter, generator=generator)
    oracle.in_proj_weight.data = layer.input_projection.weight.data
    oracle.in_proj_bias.data = layer.input_projection.bias.data
    oracle.out_proj.load_state_dict(layer.output_projection.state_dict())
    x = torch.randn(3, 5, 8, generator=generator)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    want = oracle(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)[0]
    torch.testing.assert_close(layer(x)[0], want)


@pytest.mark.parametrize("memory_length", [0, 1, 3, 9])
def test_attention_with_a_short_memory(generator, memory_length):
    """A piece sees what it would with those inputs before it alone."""
    layer = SoftmaxAttention(8, num_heads=2, memory_length=memory_length, generator=generator)
    x = torch.randn(3, 9, 8, generator=generator)
    _, state = layer(x[:, :5])
    y, state = layer(x[:, 5:7], state)
    start = max(5 - memory_length, 0)
    torch.testing.assert_close(y, layer(x[:, start:7])[0][:, 5 - start :])
    assert state.key.shape[1] == state.value.shape[1] == min(memory_length, 7)


def test_lstm_equals_nn_lstm(generator):
    layer, oracle = LSTM(5, generator=generator), nn.LSTM(5, 5, batch_first=True)
    for parameter, weight in zip(oracle.parameters(), layer.parameters(), strict=True):
        parameter.data = weight.data
    x = torch.randn(2, 7, 5, generator=generator)
    torch.testing.assert_close(layer(x)[0], oracle(x)[0])


def test_dense_returns_no_balance_loss(generator):
    layer = Dense(4, 8, generator=generator)
    x = torch.randn(2, 3, 4, generator=generator)
    y, balance_loss = layer(x)
    torch.testing.assert_close(y, layer.down(torch.relu(layer.up(x))))
    assert balance_loss.item() == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DeltaNet(8, num_heads=3), "got dim=8, num_heads=3"),
        (lambda: SRWM(8, num_heads=0), "num_heads must be >= 1, got 0"),
        (lambda: SoftmaxAttention(8, memory_length=-1), "memory_length must be >= 0, got -1"),
        (lambda: LinearTransformer(8, head_dim=0), "head_dim must be >= 1, got 0"),
        (lambda: DeltaNet(8, max_write_strength=2.5), r"in \(0, 2\], got 2.5"),
        (lambda: DeltaNet(8, feature_map="relu"), "feature_map must be one of .*got 'relu'"),
        (lambda: DeltaNet(8, normalization="l1"), "normalization must be one of .*got 'l1'"),
        (lambda: DeltaNet(8, feature_map="dpfp", dpfp_nu=4), r"dpfp_nu must be in 1 .* 3, got 4"),
        (lambda: DeltaNet(8, feature_map="silu"), "'sum' needs features >= 0; those of 'silu'"),
        (
            lambda: NormalizedDeltaNet(8, feature_map="silu", normalization="l2"),
            "attention normalisation needs features >= 0; those of 'silu'",
        ),
        (
            lambda: Dense(8, 8, initialization="normal"),
            "initialization must be uniform or scaled, got 'normal'",
        ),
        (lambda: Dense(8, 8, num_layers=0), "num_layers must be >= 1, got 0"),
        (lambda: Dense(8, 0), "ff_dim must be >= 1, got 0"),
    ],
)
def test_bad_values_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_published_dense_initialisation(generator):
    layer = Dense(64, 200, initialization="scaled", num_layers=4, generator=generator)
    for part, fan_in in ((layer.up, 64), (layer.down, 200)):
        std = math.sqrt(2 / (fan_in * 4))
        assert part.weight.std().item() == pytest.approx(std, rel=1e-5)
        assert part.weight.abs().max() < 2.5 * std
        assert part.bias.eq(0).all()
