"""The delta rule, a loop over steps with a block of the memory in the first-level cache.

Schlag, Irie, Schmidhuber (2021), Eq. 20-25; see `fastweights.ops.delta_rule`. The backward pass
keeps no memory of a step: it starts from the last one and takes back each write,
S_{t-1} = S_t - k_t u_t^T. Beyond its inputs it keeps V numbers a step and head (the errors
v_t - k_t S_{t-1}; V rounded up to whole blocks) and the last memory; where no gradient is asked
for, nothing.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from fastweights.kernels.cpu.columns import column_lanes, pad_columns
from fastweights.kernels.cpu.kernel import Kernel
from fastweights.kernels.cpu.vectors import load, muladd, store, total, zeros


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """q, k [B, T, H, K], v [B, T, H, V], beta [B, T, H], memory [B, H, K, V], of one dtype,
    float32 or float64 -> y [B, T, H, V] and the last memory."""
    V = v.shape[-1]
    lanes = column_lanes(V, v.dtype)
    v, memory = pad_columns(v, lanes), pad_columns(memory, lanes)
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, beta, memory))
    y, memory, _ = _forward(q, k, v, beta, memory, lanes, keep)
    return y[..., :V], memory[..., :V]


@torch.library.custom_op("fastweights::delta_rule", mutates_args=(), device_types="cpu")
def _forward(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor, lanes: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """keep: also give the errors, for the backward pass."""
    y, last, error = _forward_shapes(q, k, v, beta, memory, lanes, keep)
    B, _, H, V = v.shape
    K = q.shape[-1]
    _forward_kernel(K, lanes, v.dtype, keep).run(
        B * H * (V // lanes),
        3 * K * v.numel(),
        [q, k, v, beta, memory, y, last, error],
        scratch=(K, lanes),
    )
    return y, last, error


@_forward.register_fake
def _forward_shapes(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor, lanes: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    error = v.new_empty(v.shape if keep else (0, 0, 0, 0))
    return v.new_empty(v.shape), memory.new_empty(memory.shape), error


@torch.library.custom_op("fastweights::delta_rule_backward", mutates_args=(), device_types="cpu")
def _backward(
    q: Tensor,
    k: Tensor,
    beta: Tensor,
    last: Tensor,
    error: Tensor,
    dy: Tensor,
    d_last: Tensor,
    lanes: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    B, T, H, V = error.shape
    K = q.shape[-1]
    blocks = V // lanes
    dv, d_memory = error.new_empty(error.shape), last.new_empty(last.shape)
    # One part a block of columns, added up below.
    dq, dk = q.new_empty(blocks, B, T, H, K), q.new_empty(blocks, B, T, H, K)
    d_beta = q.new_empty(blocks, B, T, H)
    _backward_kernel(K, lanes, q.dtype).run(
        B * H * blocks,
        7 * K * error.numel(),
        [
            q, k, beta, last, error, pad_columns(dy, lanes), pad_columns(d_last, lanes),
            dq, dk, dv, d_beta, d_memory,
        ],
        scratch=(2, K, lanes),
    )  # fmt: skip
    return _sum_blocks(dq), _sum_blocks(dk), dv, _sum_blocks(d_beta), d_memory


@_backward.register_fake
def _backward_shapes(
    q: Tensor, k: Tensor, beta: Tensor, last: Tensor, error: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = q, k, error, beta, last
    return tuple(x.new_empty(x.shape) for x in inputs)  # type: ignore[return-value]


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    q, k, _, beta, _, ctx.lanes, _ = inputs
    _, last, error = output
    ctx.save_for_backward(q, k, beta, last, error)
    ctx.set_materialize_grads(False)  # no zeros for the errors


def _differentiate(
    ctx: Any, dy: Tensor | None, d_last: Tensor | None, d_error: None
) -> tuple[Any, ...]:
    saved = ctx.saved_tensors  # once, as activation checkpointing wants it
    *_, last, error = saved
    dy = torch.zeros_like(error) if dy is None else dy
    d_last = torch.zeros_like(last) if d_last is None else d_last
    return *_backward(*saved, dy, d_last, ctx.lanes), None, None


_forward.register_autograd(_differentiate, setup_context=_save)


def _sum_blocks(parts: Tensor) -> Tensor:
    return parts[0] if len(parts) == 1 else parts.sum(0)


@functools.cache
def _forward_kernel(K: int, W: int, dtype: torch.dtype, keep: bool) -> Kernel:
    """For keys of K numbers and blocks of W columns. An item is one block of one memory."""

    def loop(
        q: Any, k: Any, v: Any, beta: Any, initial: Any, y: Any, last: Any, error: Any,
        S: Any, start: int, stop: int,
    ) -> None:  # fmt: skip
        _, T, H, V = v.shape
        for item in range(start, stop):
            head, c = divmod(item, V // W)
            b, h = divmod(head, H)
            c *= W
            prediction = zeros(v, W)  # k_t S_{t-1}
            for a in range(K):
                s = load(initial, (b, h, a, c), W)
                store(S, (a, 0), s)
                prediction = muladd(k[b, 0, h, a], s, prediction)
            for t in range(T):
                e = load(v, (b, t, h, c), W) - prediction
                if keep:
                    store(error, (b, t, h, c), e)
                u = e * beta[b, t, h]
                read = zeros(v, W)
                prediction = zeros(v, W)
                following = min(t + 1, T - 1)
                for a in range(K):
                    s = muladd(k[b, t, h, a], u, load(S, (a, 0), W))
                    store(S, (a, 0), s)
                    read = muladd(q[b, t, h, a], s, read)
                    prediction = muladd(k[b, following, h, a], s, prediction)
                store(y, (b, t, h, c), read)
            for a in range(K):
                store(last, (b, h, a, c), load(S, (a, 0), W))

    return Kernel(loop, f"delta_rule ({_sizes(K, W, dtype)})")


@functools.cache
def _backward_kernel(K: int, W: int, dtype: torch.dtype) -> Kernel:
    """For keys of K numbers and blocks of W columns. An item is one block of one memory."""

    def loop(
        q: Any, k: Any, beta: Any, last: Any, error: Any, dy: Any, d_last: Any,
        dq: Any, dk: Any, dv: Any, d_beta: Any, d_initial: Any,
        scratch: Any, start: int, stop: int,
    ) -> None:  # fmt: skip
        _, T, H, V = error.shape
        S, dS = scratch[0], scratch[1]
        for item in range(start, stop):
            head, block = divmod(item, V // W)
            b, h = divmod(head, H)
            c = block * W
            for a in range(K):
                store(S, (a, 0), load(last, (b, h, a, c), W))
                store(dS, (a, 0), load(d_last, (b, h, a, c), W))
            for t in range(T - 1, -1, -1):
                e = load(error, (b, t, h, c), W)
                u = e * beta[b, t, h]
                dr = load(dy, (b, t, h, c), W)
                du = zeros(error, W)
                for a in range(K):
                    s = load(S, (a, 0), W)
                    g = muladd(q[b, t, h, a], dr, load(dS, (a, 0), W))
                    dq[block, b, t, h, a] = total(s * dr)
                    dk[block, b, t, h, a] = total(g * u)
                    du = muladd(k[b, t, h, a], g, du)
                    store(S, (a, 0), muladd(-k[b, t, h, a], u, s))
                    store(dS, (a, 0), g)
                de = du * beta[b, t, h]
                d_beta[block, b, t, h] = total(du * e)
                store(dv, (b, t, h, c), de)
                for a in range(K):
                    dk[block, b, t, h, a] -= total(load(S, (a, 0), W) * de)
                    store(dS, (a, 0), muladd(-k[b, t, h, a], de, load(dS, (a, 0), W)))
            for a in range(K):
                store(d_initial, (b, h, a, c), load(dS, (a, 0), W))

    return Kernel(loop, f"delta_rule's backward pass ({_sizes(K, W, dtype)})")


def _sizes(K: int, W: int, dtype: torch.dtype) -> str:
    return f"key_dim {K}, {W} columns, {dtype}"
