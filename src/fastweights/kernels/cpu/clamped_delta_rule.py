"""The delta rule with a bounded memory, a loop over steps that passes once over the memory.

Schlag, Munkhdalai, Schmidhuber (2021); see `fastweights.ops.clamped_delta_rule`. The norm couples
all columns, so a head is one item. A pass writes, reads, predicts for the next step and adds up
the squares; the division by the norm, known only then, is left to the next pass.

Taking back a division by n would multiply rounding errors by n. The backward pass therefore starts
from memories kept every sqrt(T) steps and repeats the steps between them. It passes once a step
over the memory before it, S_{t-1}, and its gradient: it ends what came from step t and begins with
the read of step t - 1. Beyond its inputs it keeps V + 1 numbers a step and head (the errors
v_t - k_t S_{t-1}, 1 / n) and sqrt(T) + 1 memories; where no gradient is asked for, nothing.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor

from fastweights.kernels.cpu.columns import column_lanes, pad_columns
from fastweights.kernels.cpu.groups import counted_steps
from fastweights.kernels.cpu.kernel import Kernel
from fastweights.kernels.cpu.vectors import load, muladd, store, total, zeros


def clamped_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """q, k [B, T, H, K], v [B, T, H, V], beta [B, T, H], memory [B, H, K, V], of one dtype,
    float32 or float64, and 0 where mask [B, T] is False -> y [B, T, H, V] and the last memory."""
    V = v.shape[-1]
    lanes = column_lanes(V, v.dtype)
    v, memory = pad_columns(v, lanes), pad_columns(memory, lanes)
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, beta, memory))
    y, memory, *_ = _forward(q, k, v, beta, memory, mask, lanes, keep)
    return y[..., :V], memory[..., :V]


@torch.library.custom_op("fastweights::clamped_delta_rule", mutates_args=(), device_types="cpu")
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    memory: Tensor,
    mask: Tensor | None,
    lanes: int,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """keep: also give the errors, 1 / norm (0 where nothing was divided) and the memories before
    every `_steps_between(T)`-th step, for the backward pass."""
    y, last, error, scale, memories = _forward_shapes(q, k, v, beta, memory, mask, lanes, keep)
    B, _, H, V = v.shape
    K = q.shape[-1]
    _forward_kernel(K, lanes, v.dtype, keep).run(
        B * H,
        5 * K * v.numel(),
        [q, k, v, beta, memory, counted_steps(mask, v), y, last, error, scale, memories],
        scratch=(K + 1, V),
    )
    return y, last, error, scale, memories


@_forward.register_fake
def _forward_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    memory: Tensor,
    mask: Tensor | None,
    lanes: int,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    B, T, H, V = v.shape
    error = v.new_empty(v.shape if keep else (0, 0, 0, 0))
    scale = v.new_empty((B, T, H) if keep else (0, 0, 0))
    kept = -(-T // _steps_between(T))
    memories = v.new_empty((B, H, kept, k.shape[-1], V) if keep else (0, 0, 0, 0, 0))
    return v.new_empty(v.shape), memory.new_empty(memory.shape), error, scale, memories


def _steps_between(T: int) -> int:
    """ceil(T / n) for n memories kept, n about sqrt(T): what the kernels find from T and n."""
    kept = -(-T // math.ceil(math.sqrt(T)))
    return -(-T // kept)


@torch.library.custom_op(
    "fastweights::clamped_delta_rule_backward", mutates_args=(), device_types="cpu"
)
def _backward(
    q: Tensor,
    k: Tensor,
    beta: Tensor,
    last: Tensor,
    error: Tensor,
    scale: Tensor,
    memories: Tensor,
    dy: Tensor,
    d_last: Tensor,
    lanes: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    B, T, H, V = error.shape
    K = q.shape[-1]
    gradients = _backward_shapes(q, k, beta, last, error)
    _backward_kernel(K, lanes, q.dtype).run(
        B * H,
        14 * K * error.numel(),
        [
            q, k, beta, last, error, scale, memories,
            pad_columns(dy, lanes), pad_columns(d_last, lanes), *gradients,
        ],
        scratch=((_steps_between(T) + 1) * K + 2, V),
    )  # fmt: skip
    return gradients


@_backward.register_fake
def _backward_shapes(
    q: Tensor, k: Tensor, beta: Tensor, last: Tensor, error: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = q, k, error, beta, last
    return tuple(x.new_empty(x.shape) for x in inputs)  # type: ignore[return-value]


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    q, k, _, beta, _, _, ctx.lanes, _ = inputs
    ctx.save_for_backward(q, k, beta, *output[1:])
    ctx.set_materialize_grads(False)  # no zeros for what is kept


def _differentiate(ctx: Any, dy: Tensor | None, d_last: Tensor | None, *_: None) -> tuple[Any, ...]:
    saved = ctx.saved_tensors  # once, as activation checkpointing wants it
    *_, last, error, _, _ = saved
    dy = torch.zeros_like(error) if dy is None else dy
    d_last = torch.zeros_like(last) if d_last is None else d_last
    return *_backward(*saved, dy, d_last, ctx.lanes), None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)


@functools.cache
def _forward_kernel(K: int, W: int, dtype: torch.dtype, keep: bool) -> Kernel:
    """For keys of K numbers and blocks of W columns. An item is one memory."""

    def loop(
        q: Any, k: Any, v: Any, beta: Any, initial: Any, counted: Any, y: Any, last: Any,
        error: Any, scale: Any, memories: Any,
        scratch: Any, start: int, stop: int,
    ) -> None:  # fmt: skip
        _, T, H, V = v.shape
        between = -(-T // memories.shape[2]) if keep else 0
        one = beta.dtype.type(1)
        for item in range(start, stop):
            b, h = divmod(item, H)
            factor = one  # S_{t-1} = factor * the rows below K, k_t S_{t-1} = factor * row K
            for c in range(0, V, W):
                prediction = zeros(v, W)
                for a in range(K):
                    s = load(initial, (b, h, a, c), W)
                    store(scratch, (a, c), s)
                    prediction = muladd(k[b, 0, h, a], s, prediction)
                store(scratch, (K, c), prediction)
            for t in range(T):
                if keep and t % between == 0:
                    for a in range(K):
                        for c in range(0, V, W):
                            s = load(scratch, (a, c), W) * factor
                            store(memories, (b, h, t // between, a, c), s)
                following = min(t + 1, T - 1)
                squares = zeros(v, W)
                for c in range(0, V, W):
                    e = load(v, (b, t, h, c), W) - load(scratch, (K, c), W) * factor
                    if keep:
                        store(error, (b, t, h, c), e)
                    u = e * beta[b, t, h]
                    read = zeros(v, W)
                    prediction = zeros(v, W)
                    for a in range(K):
                        s = muladd(k[b, t, h, a], u, load(scratch, (a, c), W) * factor)
                        store(scratch, (a, c), s)
                        read = muladd(q[b, t, h, a], s, read)
                        prediction = muladd(k[b, following, h, a], s, prediction)
                        squares = muladd(s, s, squares)
                    store(y, (b, t, h, c), read)
                    store(scratch, (K, c), prediction)
                norm = math.sqrt(total(squares))
                divided = counted[b, h, t] != 0 and not norm < 1  # NaN divides
                factor = one / norm if divided else one
                if keep:
                    scale[b, t, h] = factor if divided else 0
                for c in range(0, V, W):
                    store(y, (b, t, h, c), load(y, (b, t, h, c), W) * factor)
            for a in range(K):
                for c in range(0, V, W):
                    store(last, (b, h, a, c), load(scratch, (a, c), W) * factor)

    return Kernel(loop, f"clamped_delta_rule ({_sizes(K, W, dtype)})")


@functools.cache
def _backward_kernel(K: int, W: int, dtype: torch.dtype) -> Kernel:
    """For keys of K numbers and blocks of W columns. An item is one memory."""

    def loop(
        q: Any, k: Any, beta: Any, last: Any, error: Any, scale: Any, memories: Any,
        dy: Any, d_last: Any, dq: Any, dk: Any, dv: Any, d_beta: Any, d_initial: Any,
        scratch: Any, start: int, stop: int,
    ) -> None:  # fmt: skip
        _, T, H, V = error.shape
        between = -(-T // memories.shape[2])
        one = beta.dtype.type(1)
        # Of step t, from its read on: k_t S_t, k_t dS_t; dS; the memories before each step.
        products, dS, S = scratch[:2], scratch[2 : K + 2], scratch[K + 2 :]
        for item in range(start, stop):
            b, h = divmod(item, H)
            along = zeros(error, W)  # S_t . dS_t
            for c in range(0, V, W):
                dr = load(dy, (b, T - 1, h, c), W)
                kS = zeros(error, W)
                kdS = zeros(error, W)
                for a in range(K):
                    s = load(last, (b, h, a, c), W)
                    g = muladd(q[b, T - 1, h, a], dr, load(d_last, (b, h, a, c), W))
                    store(dS, (a, c), g)
                    part = total(s * dr)
                    dq[b, T - 1, h, a] = part if c == 0 else dq[b, T - 1, h, a] + part
                    kS = muladd(k[b, T - 1, h, a], s, kS)
                    kdS = muladd(k[b, T - 1, h, a], g, kdS)
                    along = muladd(s, g, along)
                store(products, (0, c), kS)
                store(products, (1, c), kdS)
            for t in range(T - 1, -1, -1):
                chunk, row = t // between, t % between * K
                if t == T - 1 or row == (between - 1) * K:  # another chunk: its memories
                    for a in range(K):
                        for c in range(0, V, W):
                            s = load(memories, (b, h, chunk, a, c), W)
                            store(S, (a, c), s)
                            for i in range(chunk * between, t):
                                strength = k[b, i, h, a] * beta[b, i, h]
                                s = muladd(strength, load(error, (b, i, h, c), W), s)
                                if scale[b, i, h] != 0:
                                    s = s * scale[b, i, h]
                                store(S, ((i + 1 - chunk * between) * K + a, c), s)
                divided = scale[b, t, h] != 0
                factor = scale[b, t, h] if divided else one
                lost = total(along) if divided else one - one  # the part that no norm lets through
                d_strength = one - one
                along = zeros(error, W)
                for c in range(0, V, W):
                    e = load(error, (b, t, h, c), W)
                    u = e * beta[b, t, h]
                    du = muladd(-lost, load(products, (0, c), W), load(products, (1, c), W))
                    du = du * factor
                    de = du * beta[b, t, h]
                    d_strength += total(du * e)
                    store(dv, (b, t, h, c), de)
                    dr = load(dy, (b, max(t - 1, 0), h, c), W)
                    kS = zeros(error, W)
                    kdS = zeros(error, W)
                    for a in range(K):
                        s = load(S, (row + a, c), W)
                        after = muladd(k[b, t, h, a], u, s) * factor
                        g = muladd(-lost, after, load(dS, (a, c), W)) * factor
                        part = total(g * u - s * de)
                        dk[b, t, h, a] = part if c == 0 else dk[b, t, h, a] + part
                        g = muladd(-k[b, t, h, a], de, g)
                        if t > 0:
                            g = muladd(q[b, t - 1, h, a], dr, g)
                            part = total(s * dr)
                            dq[b, t - 1, h, a] = part if c == 0 else dq[b, t - 1, h, a] + part
                            kS = muladd(k[b, t - 1, h, a], s, kS)
                            kdS = muladd(k[b, t - 1, h, a], g, kdS)
                            along = muladd(s, g, along)
                        store(dS, (a, c), g)
                    store(products, (0, c), kS)
                    store(products, (1, c), kdS)
                d_beta[b, t, h] = d_strength
            for a in range(K):
                for c in range(0, V, W):
                    store(d_initial, (b, h, a, c), load(dS, (a, c), W))

    return Kernel(loop, f"clamped_delta_rule's backward pass ({_sizes(K, W, dtype)})")


def _sizes(K: int, W: int, dtype: torch.dtype) -> str:
    return f"key_dim {K}, {W} columns, {dtype}"
