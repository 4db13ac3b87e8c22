"""How much of each value a query reads from a delta-rule memory, without the memory.

See `fastweights.ops.delta_rule_weights`: a read vector goes back through the steps. The
backward pass goes forward through them and puts back what each step took away, r_t = r_{t-1} +
w_t k_t. Beyond its inputs and its output it keeps one vector a query.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from fastweights.kernels.cpu.columns import column_lanes, pad_columns
from fastweights.kernels.cpu.kernel import Kernel
from fastweights.kernels.cpu.vectors import load, muladd, store, total, zeros


def delta_rule_weights(q: Tensor, k: Tensor, beta: Tensor) -> Tensor:
    """q [B, M, H, K], k [B, T, H, K], beta [B, T, H], of one dtype, float32 or float64 ->
    [B, H, M, T]."""
    lanes = column_lanes(k.shape[-1], k.dtype)
    weights, _ = _forward(pad_columns(q, lanes), pad_columns(k, lanes), beta, lanes)
    return weights


@torch.library.custom_op("fastweights::delta_rule_weights", mutates_args=(), device_types="cpu")
def _forward(q: Tensor, k: Tensor, beta: Tensor, lanes: int) -> tuple[Tensor, Tensor]:
    """The weights, and the read vectors [B, H, M, K] before the first step."""
    weights, first = _forward_shapes(q, k, beta, lanes)
    first.copy_(q.transpose(1, 2))
    forward, _ = _kernels(lanes, k.dtype)
    B, H, _, K = first.shape
    forward.run(B * H, 2 * K * weights.numel(), [k, beta, first, weights])
    return weights, first


@_forward.register_fake
def _forward_shapes(q: Tensor, k: Tensor, beta: Tensor, lanes: int) -> tuple[Tensor, Tensor]:
    B, M, H, K = q.shape
    return q.new_empty(B, H, M, k.shape[1]), q.new_empty(B, H, M, K)


@torch.library.custom_op(
    "fastweights::delta_rule_weights_backward", mutates_args=(), device_types="cpu"
)
def _backward(
    k: Tensor, beta: Tensor, weights: Tensor, first: Tensor, gradient: Tensor, lanes: int
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, d_beta = (torch.zeros_like(x) for x in (first, k, beta))
    _, backward = _kernels(lanes, k.dtype)
    B, H, _, K = first.shape
    backward.run(
        B * H,
        5 * K * weights.numel(),
        [k, beta, weights, first.clone(), gradient, dq, dk, d_beta],
    )
    return dq.transpose(1, 2).contiguous(), dk, d_beta


@_backward.register_fake
def _backward_shapes(
    k: Tensor, beta: Tensor, weights: Tensor, first: Tensor, gradient: Tensor, lanes: int
) -> tuple[Tensor, Tensor, Tensor]:
    B, H, M, K = first.shape
    return k.new_empty(B, M, H, K), torch.empty_like(k), torch.empty_like(beta)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    _, k, beta, ctx.lanes = inputs
    ctx.save_for_backward(k, beta, *output)


def _differentiate(ctx: Any, gradient: Tensor, d_first: Any) -> tuple[Any, ...]:
    return *_backward(*ctx.saved_tensors, gradient, ctx.lanes), None


_forward.register_autograd(_differentiate, setup_context=_save)


@functools.cache
def _kernels(W: int, dtype: torch.dtype) -> tuple[Kernel, Kernel]:
    """Forward and backward for keys of a multiple of W numbers. An item is a head of a sequence."""

    def forward(
        k: Any, beta: Any, r: Any, weights: Any, scratch: Any, start: int, stop: int
    ) -> None:
        _, T, H, K = k.shape
        for item in range(start, stop):
            b, h = divmod(item, H)
            for m in range(r.shape[2]):
                for t in range(T - 1, -1, -1):
                    read = zeros(k, W)
                    for a in range(0, K, W):
                        read = muladd(load(k, (b, t, h, a), W), load(r, (b, h, m, a), W), read)
                    w = beta[b, t, h] * total(read)
                    weights[b, h, m, t] = w
                    for a in range(0, K, W):
                        kept = muladd(-w, load(k, (b, t, h, a), W), load(r, (b, h, m, a), W))
                        store(r, (b, h, m, a), kept)

    def backward(
        k: Any, beta: Any, weights: Any, r: Any, gradient: Any, dr: Any, dk: Any, d_beta: Any,
        scratch: Any, start: int, stop: int,
    ) -> None:  # fmt: skip
        _, T, H, K = k.shape
        for item in range(start, stop):
            b, h = divmod(item, H)
            for m in range(r.shape[2]):
                for t in range(T):
                    w = weights[b, h, m, t]
                    read, taken = zeros(k, W), zeros(k, W)
                    for a in range(0, K, W):
                        k_a = load(k, (b, t, h, a), W)
                        r_a = muladd(w, k_a, load(r, (b, h, m, a), W))
                        store(r, (b, h, m, a), r_a)
                        read = muladd(k_a, r_a, read)
                        taken = muladd(k_a, load(dr, (b, h, m, a), W), taken)
                    dw = gradient[b, h, m, t] - total(taken)
                    d_beta[b, t, h] += dw * total(read)
                    d_read = beta[b, t, h] * dw
                    for a in range(0, K, W):
                        dr_a = load(dr, (b, h, m, a), W)
                        dk_a = muladd(-w, dr_a, load(dk, (b, t, h, a), W))
                        store(dk, (b, t, h, a), muladd(d_read, load(r, (b, h, m, a), W), dk_a))
                        store(dr, (b, h, m, a), muladd(d_read, load(k, (b, t, h, a), W), dr_a))

    sizes = f"{W} numbers at a time, {dtype}"
    return Kernel(forward, f"delta_rule_weights ({sizes})"), Kernel(
        backward, f"delta_rule_weights' backward pass ({sizes})"
    )
