"""Softmax attention equals its loop over steps, in one piece and in several."""

import pytest
import torch
from torch import Tensor

from fastweights.ops.softmax_attention import (
    SoftmaxAttentionState,
    softmax_attention,
    softmax_attention_recurrent,
)


def make_inputs(B=2, T=5, H=3, K=4, V=6) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    sizes = [(B, T, H, K), (B, T, H, K), (B, T, H, V)]
    return [torch.randn(s, generator=g, dtype=torch.float64).requires_grad_() for s in sizes]


@pytest.mark.parametrize("T", [1, 2, 33])
@pytest.mark.parametrize("seen", [0, 3])
def test_fused_equals_recurrent(T, seen):
    inputs = make_inputs(T=T)
    _, k, v = make_inputs(T=seen)
    state = SoftmaxAttentionState(k, v)
    got = softmax_attention(*inputs, state)
    want = softmax_attention_recurrent(*inputs, state)
    torch.testing.assert_close(got, want)
    leaves = [*inputs, *([k, v] if seen else [])]
    torch.testing.assert_close(
        torch.autograd.grad(got[0].square().sum(), leaves),
        torch.autograd.grad(want[0].square().sum(), leaves),
    )


def test_gradcheck():
    assert torch.autograd.gradcheck(
        lambda *x: softmax_attention_recurrent(*x)[0], make_inputs(B=1, T=3, H=1, K=2, V=2)
    )


def test_pieces_equal_the_whole():
    inputs = make_inputs(T=9)
    state, ys = None, []
    for piece in (slice(0, 4), slice(4, 5), slice(5, 9)):
        y, state = softmax_attention(*(x[:, piece] for x in inputs), state)
        ys.append(y)
    torch.testing.assert_close((torch.cat(ys, 1), state), softmax_attention(*inputs))


def test_message_names_the_shapes():
    q, k, v = make_inputs()
    with pytest.raises(ValueError, match=r"got \[2, 5, 3, 4\], \[2, 4, 3, 4\], \[2, 5, 3, 6\]"):
        softmax_attention(q, k[:, :4], v)
