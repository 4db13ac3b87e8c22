"""Relative attention equals its own loop over queries, and the formula entry by entry."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fastweights.ops.relative_attention import (
    distance_sinusoids,
    relative_attention,
    relative_attention_recurrent,
)
from tests.ops.compare import with_gradients


def make_inputs(B=2, T=5, M=3, H=3, K=4, V=2) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    S = M + T
    shapes = (B, T, H, K), (B, T, H, K), (B, S, H, K), (B, S, H, V), (S, H, K)
    return [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]


def entry_by_entry(c: Tensor, p: Tensor, k: Tensor, v: Tensor, r: Tensor) -> Tensor:
    B, T, H, _ = c.shape
    M = k.shape[1] - T
    y = torch.empty(B, T, H, v.shape[-1], dtype=c.dtype)
    for b, t, h in torch.cartesian_prod(*map(torch.arange, (B, T, H))).tolist():
        score = torch.stack(
            [c[b, t, h] @ k[b, s, h] + p[b, t, h] @ r[M + t - s, h] for s in range(M + t + 1)]
        )
        y[b, t, h] = score.softmax(0) @ v[b, : M + t + 1, h]
    return y


@pytest.mark.parametrize("H", [1, 3])
@pytest.mark.parametrize("M", [0, 1, 7])
@pytest.mark.parametrize("T", [1, 2, 5, 65])
def test_parallel_equals_recurrent(T, M, H):
    inputs = make_inputs(T=T, M=M, H=H)
    got, want = (
        with_gradients(lambda *xs, form=form: [form(*xs)], inputs)
        for form in (relative_attention, relative_attention_recurrent)
    )
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize(("T", "M"), [(1, 0), (4, 0), (1, 3), (3, 5)])
def test_equals_the_formula(T, M):
    inputs = make_inputs(T=T, M=M)
    torch.testing.assert_close(relative_attention(*inputs), entry_by_entry(*inputs))


def test_without_positions_it_is_softmax_attention():
    c, p, k, v, r = make_inputs(T=6, M=0, V=4)
    query, key, value = (x.transpose(1, 2) for x in (c, k, v))
    want = scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0)
    got = relative_attention(c, p, k, v, torch.zeros_like(r))
    torch.testing.assert_close(got, want.transpose(1, 2))


@pytest.mark.parametrize("form", [relative_attention, relative_attention_recurrent])
def test_gradcheck(form):
    inputs = [x.requires_grad_() for x in make_inputs(B=1, T=3, M=2, H=2, K=2)]
    assert torch.autograd.gradcheck(form, inputs)


@pytest.mark.parametrize("dim", [1, 5, 6])
def test_sinusoids_equal_the_formula(dim):
    got = distance_sinusoids(50, dim, like=torch.zeros((), dtype=torch.float64))
    half = (dim + 1) // 2
    for d in range(50):
        for i in range(dim):
            angle = d / 10000 ** (2 * (i % half) / dim)
            want = math.sin(angle) if i < half else math.cos(angle)
            assert got[d, i].item() == pytest.approx(want, abs=1e-12)
    for dtype in (torch.float32, torch.bfloat16):
        low = distance_sinusoids(50, dim, like=torch.zeros((), dtype=dtype))
        torch.testing.assert_close(low, got.to(dtype))


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (1, lambda p: p[:, :4]),
        (2, lambda k: k[:, :4]),
        (3, lambda v: v[:, :, :2]),
        (4, lambda r: r[:-1]),
        (0, lambda c: c[0]),
    ],
)
def test_message_names_the_shapes(number, change):
    inputs = make_inputs()
    inputs[number] = change(inputs[number])
    shapes = ", ".join(str(list(x.shape)) for x in inputs)
    with pytest.raises(ValueError, match="1 <= T <= S, got " + shapes.replace("[", r"\[")):
        relative_attention(*inputs)
