"""The convolution before a layer, beside a loop and beside torch.nn.Conv1d."""

import pytest
import torch
from torch import nn

from fastweights.layers.layer import SequenceLayer
from fastweights.layers.short_convolution import ShortConvolution

D = 6


class Nothing(SequenceLayer):
    """y = x, and a count of the steps as its state."""

    def initial_state(self, batch_size):
        return torch.zeros(batch_size)

    def forward(self, x, state=None):
        return x, (self.initial_state(len(x)) if state is None else state) + x.shape[1]


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("T", [1, 3, 7])
def test_every_channel_is_a_weighted_sum_of_its_last_inputs(size, T, generator):
    layer = ShortConvolution(Nothing(), D, size, generator)
    x = torch.randn(2, T, D, generator=generator)
    y, state = layer(x)
    weight = layer.weight[:, 0].flip(1)  # the last column is that of the present input
    for t in range(T):
        want = layer.bias + sum(weight[:, j] * x[:, t - j] for j in range(size) if j <= t)
        torch.testing.assert_close(y[:, t], want)
    assert state.recent.shape == (2, size - 1, D)
    kept = min(size - 1, T)
    assert torch.equal(state.recent[:, size - 1 - kept :], x[:, T - kept :])
    assert not state.recent[:, : size - 1 - kept].any()
    assert state.layer.tolist() == [T, T]


def test_weights_are_distributed_as_pytorchs():
    """Uniform within 1/sqrt(size)."""
    ours = ShortConvolution(Nothing(), 4000, 4, torch.Generator().manual_seed(1))
    theirs = nn.Conv1d(4000, 4000, 4, groups=4000)
    for got, want in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        assert got.shape == want.shape
        assert 0.49 < got.abs().max() <= 0.5
        torch.testing.assert_close(got.std(), want.std(), rtol=0.05, atol=0)


def test_size_must_be_positive():
    with pytest.raises(ValueError, match="size must be >= 1, got 0"):
        ShortConvolution(Nothing(), D, 0)
