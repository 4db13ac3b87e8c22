"""The delta rule with a bounded memory, four steps at each pass over the memory.

Schlag, Munkhdalai, Schmidhuber (2021); see `fastweights.ops.clamped_delta_rule`. The norm couples
all columns, so a head is one item. Between two passes the memory is kept as

    S_t = F S_0 + sum_i k_i w_i^T,

S_0 before the four steps, F the divisions since, w_i the writes of the steps up to t, divided
with the memory. What a step finds, k_t S_{t-1}, takes k_t S_0, made for the four at once, and the
products of the keys with each other; so does the square of the norm, |S_{t-1} + k u^T|^2 =
|S_{t-1}|^2 + 2 (k S_{t-1}) . u + |k|^2 |u|^2. From a norm of about 1 on that is as exact as it has
to be: what a write takes away leaves a norm below 1, which is not looked at. A longer initial
memory is written at every step, until one divides it. Norms whose square is beyond the dtype count
as infinite: the memory is 0 after them, and its gradients are not finite.

Taking back a division by n would multiply rounding errors by n. The backward pass therefore starts
from memories kept now and then and repeats the passes between them. Its gradient has the form

    dS_t = A dS_4 + B S_t + sum_{j > t} k_j x_j^T + sum_{j >= t} q_j r_j^T

within four steps (r_j: the gradients of the reads), with B and the x_j from the derivative of the
divisions, (dS - (S . dS) S) / n. Nothing else is as large as the memory. Beyond its inputs it keeps
2 V + 1 numbers a step and head (what was read, the errors v_t - k_t S_{t-1}, 1 / n) and about
sqrt(T) / 2 memories; where no gradient is asked for, nothing.
"""

import functools
import math
from typing import Any

import torch
from numba.extending import overload
from torch import Tensor

from fastweights.kernels.backend import REGISTER_BLOCK_BYTES
from fastweights.kernels.cpu.columns import column_lanes, pad_columns
from fastweights.kernels.cpu.groups import counted_steps
from fastweights.kernels.cpu.kernel import Kernel
from fastweights.kernels.cpu.vectors import INLINED, load, muladd, store, total, zeros

STEPS = 4
"""Of a pass. The passes below are written for four."""
FORWARD_ROWS, BACKWARD_ROWS = 7, 11
"""What a kernel keeps of four steps besides memories."""
LONG_SQUARE = 2
"""From here on the norm of a memory is not taken from that of the one before."""
NOT_DIVIDED = -1
BLOCK_BYTES = REGISTER_BLOCK_BYTES // 2
"""Widest block of columns: four of them, and what they take, stay in the registers."""


def clamped_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """q, k [B, T, H, K], v [B, T, H, V], beta [B, T, H], memory [B, H, K, V], of one dtype,
    float32 or float64, and 0 where mask [B, T] is False -> y [B, T, H, V] and the last memory."""
    V = v.shape[-1]
    lanes = column_lanes(min(V, BLOCK_BYTES // v.dtype.itemsize), v.dtype)
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
    """keep: also give the errors, 1 / norm (-1 where nothing was divided) and the memories before
    every `_passes_between(T)`-th pass, for the backward pass."""
    y, last, error, scale, memories = _forward_shapes(q, k, v, beta, memory, mask, lanes, keep)
    B, _, H, V = v.shape
    K = q.shape[-1]
    _forward_kernel(K, lanes, v.dtype, keep).run(
        B * H,
        3 * K * v.numel(),
        [q, k, v, beta, memory, counted_steps(mask, v), y, last, error, scale, memories],
        scratch=(FORWARD_ROWS * STEPS + K, _scratch_width(K, V, lanes)),
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
    kept = -(-T // (STEPS * _passes_between(T)))
    memories = v.new_empty((B, H, kept, k.shape[-1], V) if keep else (0, 0, 0, 0, 0))
    return v.new_empty(v.shape), memory.new_empty(memory.shape), error, scale, memories


def _passes_between(T: int) -> int:
    """ceil(P / n) of P passes for n memories kept, n about sqrt(P): what the kernels find from T
    and n."""
    P = -(-T // STEPS)
    kept = -(-P // math.ceil(math.sqrt(P)))
    return -(-P // kept)


def _scratch_width(K: int, V: int, lanes: int) -> int:
    """A row holds V columns, or a key and zeros after it, or the products of four steps."""
    return max(V, -(-K // lanes) * lanes)


@torch.library.custom_op(
    "fastweights::clamped_delta_rule_backward", mutates_args=(), device_types="cpu"
)
def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    y: Tensor,
    last: Tensor,
    error: Tensor,
    scale: Tensor,
    memories: Tensor,
    dy: Tensor | None,
    d_last: Tensor,
    lanes: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """dy None: nothing came from what was read."""
    B, T, H, V = v.shape
    K = q.shape[-1]
    reads = dy is not None
    dq, dk, dv, d_beta, d_initial = _backward_shapes(q, k, v, beta, y, last)
    _backward_kernel(K, lanes, q.dtype, reads).run(
        B * H,
        (9 if reads else 6) * K * v.numel(),
        [
            q, k, v, beta, y, last, error, scale, memories,
            y if dy is None else pad_columns(dy, lanes), pad_columns(d_last, lanes),
            dq, dk, dv, d_beta, d_initial,
        ],
        scratch=(
            BACKWARD_ROWS * STEPS + (_passes_between(T) + 1) * K,
            _scratch_width(K, V, lanes),
        ),
    )  # fmt: skip
    return dq, dk, dv, d_beta, d_initial


@_backward.register_fake
def _backward_shapes(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, y: Tensor, last: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return tuple(x.new_empty(x.shape) for x in (q, k, v, beta, last))  # type: ignore[return-value]


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    q, k, v, beta, _, _, ctx.lanes, _ = inputs
    ctx.save_for_backward(q, k, v, beta, *output)
    ctx.set_materialize_grads(False)  # no zeros for what is kept


def _differentiate(ctx: Any, dy: Tensor | None, d_last: Tensor | None, *_: None) -> tuple[Any, ...]:
    saved = ctx.saved_tensors  # once, as activation checkpointing wants it
    *_, last, _, _, _ = saved
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
        passes = -(-T // STEPS)
        between = -(-passes // memories.shape[2]) if keep else 0
        one = beta.dtype.type(1)
        rows = scratch[: FORWARD_ROWS * STEPS].reshape(FORWARD_ROWS, STEPS, scratch.shape[1])
        ks, qs, kk, qk = rows[0], rows[1], rows[2], rows[3]
        found, read, w = rows[4, :, :V], rows[5, :, :V], rows[6, :, :V]
        S = scratch[FORWARD_ROWS * STEPS :, :V]
        for item in range(start, stop):
            b, h = divmod(item, H)
            for a in range(K):
                for c in range(0, V, W):
                    store(S, (a, c), load(initial, (b, h, a, c), W))
            for number in range(passes):
                first = number * STEPS
                count = min(STEPS, T - first)
                if keep and number % between == 0:
                    for a in range(K):
                        for c in range(0, V, W):
                            store(memories, (b, h, number // between, a, c), load(S, (a, c), W))
                gather(k, (b, first, h), K, W, ks)
                gather(q, (b, first, h), K, W, qs)
                products(ks, ks, K, W, kk)
                products(qs, ks, K, W, qk)
                times_memory(ks, S, K, W, found)
                times_memory(qs, S, K, W, read)
                square = squared_norm(S, K, W)
                F = one
                for i in range(STEPS):
                    for c in range(0, V, W):
                        store(w, (i, c), zeros(v, W))
                for i in range(count):
                    t = first + i
                    if counted[b, h, t] == 0:
                        for c in range(0, V, W):
                            store(y, (b, t, h, c), zeros(v, W))
                            if keep:
                                store(error, (b, t, h, c), zeros(v, W))
                        if keep:
                            scale[b, t, h] = NOT_DIVIDED
                        continue
                    along = zeros(v, W)
                    squares = zeros(v, W)
                    for c in range(0, V, W):
                        p = load(found, (i, c), W) * F  # k_t S_{t-1}
                        for j in range(i):
                            p = muladd(kk[i, j], load(w, (j, c), W), p)
                        e = load(v, (b, t, h, c), W) - p
                        if keep:
                            store(error, (b, t, h, c), e)
                        u = e * beta[b, t, h]
                        store(w, (i, c), u)
                        along = muladd(p, u, along)
                        squares = muladd(u, u, squares)
                    if square < LONG_SQUARE:
                        step = total(along)
                        square += step + step + kk[i, i] * total(squares)
                    else:
                        write(S, F, ks, w, K, W, S)
                        times_memory(ks, S, K, W, found)
                        times_memory(qs, S, K, W, read)
                        square = squared_norm(S, K, W)
                        F = one
                        for j in range(i + 1):
                            for c in range(0, V, W):
                                store(w, (j, c), zeros(v, W))
                    divided = not square < 1  # NaN divides
                    factor = one / math.sqrt(square) if divided else one
                    if divided:
                        F *= factor
                        square = one
                        for j in range(i + 1):
                            for c in range(0, V, W):
                                store(w, (j, c), load(w, (j, c), W) * factor)
                    if keep:
                        scale[b, t, h] = factor if divided else NOT_DIVIDED
                    for c in range(0, V, W):
                        r = load(read, (i, c), W) * F
                        for j in range(i + 1):
                            r = muladd(qk[i, j], load(w, (j, c), W), r)
                        store(y, (b, t, h, c), r)
                write(S, F, ks, w, K, W, S)
            for a in range(K):
                for c in range(0, V, W):
                    store(last, (b, h, a, c), load(S, (a, c), W))

    return Kernel(loop, f"clamped_delta_rule ({_sizes(K, W, dtype)})")


@functools.cache
def _backward_kernel(K: int, W: int, dtype: torch.dtype, reads: bool) -> Kernel:
    """For keys of K numbers and blocks of W columns. An item is one memory."""

    def loop(
        q: Any, k: Any, v: Any, beta: Any, y: Any, last: Any, error: Any, scale: Any,
        memories: Any, dy: Any, d_last: Any, dq: Any, dk: Any, dv: Any, d_beta: Any, d_initial: Any,
        scratch: Any, start: int, stop: int,
    ) -> None:  # fmt: skip
        _, T, H, V = v.shape
        passes = -(-T // STEPS)
        between = -(-passes // memories.shape[2])
        one = beta.dtype.type(1)
        rows = scratch[: BACKWARD_ROWS * STEPS].reshape(BACKWARD_ROWS, STEPS, scratch.shape[1])
        ks, qs, kk, kq, xu, ru = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5]
        found, u, w = rows[6, :, :V], rows[7, :, :V], rows[8, :, :V]
        x, r = rows[9, :, :V], rows[10, :, :V]
        memory = scratch[BACKWARD_ROWS * STEPS :, :V]
        dS, S = memory[:K], memory[K:]  # S before each pass between two memories kept
        for item in range(start, stop):
            b, h = divmod(item, H)
            along = zeros(v, W)
            for a in range(K):
                for c in range(0, V, W):
                    g = load(d_last, (b, h, a, c), W)
                    store(dS, (a, c), g)
                    along = muladd(load(last, (b, h, a, c), W), g, along)
            inner = total(along)  # S_t . dS_t
            for number in range(passes - 1, -1, -1):
                first = number * STEPS
                count = min(STEPS, T - first)
                segment, row = number // between, number % between * K
                if number == passes - 1 or row == (between - 1) * K:
                    for a in range(K):
                        for c in range(0, V, W):
                            store(S, (a, c), load(memories, (b, h, segment, a, c), W))
                    for i in range(segment * between, number):
                        at = (i - segment * between) * K
                        F = repeat_writes(error, beta, scale, (b, i * STEPS, h), W, u, w)
                        gather(k, (b, i * STEPS, h), K, W, ks)
                        write(S[at : at + K], F, ks, w, K, W, S[at + K : at + 2 * K])
                before = S[row : row + K]
                repeat_writes(error, beta, scale, (b, first, h), W, u, w)
                gather(k, (b, first, h), K, W, ks)
                products(ks, ks, K, W, kk)
                times_memory(ks, dS, K, W, found)
                if reads:
                    gather(q, (b, first, h), K, W, qs)
                    products(ks, qs, K, W, kq)
                for i in range(STEPS):
                    for c in range(0, V, W):
                        store(x, (i, c), zeros(v, W))
                        store(r, (i, c), zeros(v, W))
                    for j in range(STEPS):
                        xu[i, j] = 0
                        ru[i, j] = 0
                A = one
                B = one - one
                for i in range(count - 1, -1, -1):
                    t = first + i
                    if reads:
                        along = zeros(v, W)
                        for c in range(0, V, W):
                            d_read = load(dy, (b, t, h, c), W)
                            store(r, (i, c), d_read)
                            along = muladd(load(y, (b, t, h, c), W), d_read, along)
                        inner += total(along)
                    divided = not scale[b, t, h] < 0
                    factor = scale[b, t, h] if divided else one
                    lost = inner if divided else one - one  # the part that no norm lets through
                    d_strength = zeros(v, W)
                    gone = zeros(v, W)
                    squares = zeros(v, W)
                    for c in range(0, V, W):
                        e = load(error, (b, t, h, c), W)
                        p = load(v, (b, t, h, c), W) - e
                        u_t = load(u, (i, c), W)
                        kS = muladd(kk[i, i], u_t, p) * factor
                        g = muladd(B - lost, kS, load(found, (i, c), W) * A)
                        for j in range(i + 1, count):
                            g = muladd(kk[i, j], load(x, (j, c), W), g)
                        if reads:
                            for j in range(i, count):
                                g = muladd(kq[i, j], load(r, (j, c), W), g)
                        du = g * factor
                        de = du * beta[b, t, h]
                        store(dv, (b, t, h, c), de)
                        d_strength = muladd(du, e, d_strength)
                        gone = muladd(u_t, du, muladd(p, de, gone))
                        squares = muladd(u_t, u_t, squares)
                    d_beta[b, t, h] = total(d_strength)
                    inner = inner - lost - total(gone)
                    A *= factor
                    B = (B - lost) * factor * factor
                    for j in range(i + 1, count):
                        xu[i, j] = xu[j, i] = scaled_product(x, j, factor, u, i, W)
                    if reads:
                        for j in range(i, count):
                            ru[i, j] = scaled_product(r, j, factor, u, i, W)
                    xu[i, i] = B * total(squares)
                    for c in range(0, V, W):
                        de = load(dv, (b, t, h, c), W)
                        store(x, (i, c), load(u, (i, c), W) * B - de)
                along = zeros(v, W)
                for a in range(K):
                    dk0 = dk1 = dk2 = dk3 = zeros(v, W)
                    dq0 = dq1 = dq2 = dq3 = zeros(v, W)
                    for c in range(0, V, W):
                        s = load(before, (a, c), W)
                        g = load(dS, (a, c), W)
                        x0, x1 = load(x, (0, c), W), load(x, (1, c), W)
                        x2, x3 = load(x, (2, c), W), load(x, (3, c), W)
                        dk0 = muladd(s, x0, muladd(g, load(w, (0, c), W), dk0))
                        dk1 = muladd(s, x1, muladd(g, load(w, (1, c), W), dk1))
                        dk2 = muladd(s, x2, muladd(g, load(w, (2, c), W), dk2))
                        dk3 = muladd(s, x3, muladd(g, load(w, (3, c), W), dk3))
                        g = muladd(B, s, g * A)
                        g = muladd(ks[0, a], x0, muladd(ks[1, a], x1, g))
                        g = muladd(ks[2, a], x2, muladd(ks[3, a], x3, g))
                        if reads:
                            r0, r1 = load(r, (0, c), W), load(r, (1, c), W)
                            r2, r3 = load(r, (2, c), W), load(r, (3, c), W)
                            dq0, dq1 = muladd(s, r0, dq0), muladd(s, r1, dq1)
                            dq2, dq3 = muladd(s, r2, dq2), muladd(s, r3, dq3)
                            g = muladd(qs[0, a], r0, muladd(qs[1, a], r1, g))
                            g = muladd(qs[2, a], r2, muladd(qs[3, a], r3, g))
                        store(dS, (a, c), g)
                        along = muladd(s, g, along)
                    put(dk, (b, first, h, a), count, dk0, dk1, dk2, dk3)
                    if reads:
                        put(dq, (b, first, h, a), count, dq0, dq1, dq2, dq3)
                inner = total(along)
                for i in range(count):
                    for a in range(K):
                        d_key = dk[b, first + i, h, a]
                        for j in range(count):
                            d_key += xu[i, j] * ks[j, a]
                            if reads:
                                d_key += ru[i, j] * qs[j, a]
                        dk[b, first + i, h, a] = d_key
                        if reads:
                            d_query = dq[b, first + i, h, a]
                            for j in range(i + 1):
                                d_query += ru[j, i] * ks[j, a]
                            dq[b, first + i, h, a] = d_query
                        else:
                            dq[b, first + i, h, a] = 0
            for a in range(K):
                for c in range(0, V, W):
                    store(d_initial, (b, h, a, c), load(dS, (a, c), W))

    return Kernel(loop, f"clamped_delta_rule's backward pass ({_sizes(K, W, dtype)})")


def _sizes(K: int, W: int, dtype: torch.dtype) -> str:
    return f"key_dim {K}, {W} columns, {dtype}"


def gather(x: Any, at: Any, K: Any, W: Any, rows: Any) -> Any:
    """gather(x, (b, first, h), K, W, rows): x [B, T, H, K] of the four steps from `first` on, with
    zeros after the last step and up to a multiple of W numbers."""


def products(left: Any, right: Any, K: Any, W: Any, out: Any) -> Any:
    """products(left, right, K, W, out): out[i, j] = left[i] . right[j], of what `gather` gave."""


def times_memory(rows: Any, S: Any, K: Any, W: Any, out: Any) -> Any:
    """times_memory(rows, S, K, W, out): out[i] = rows[i] S for four keys."""


def squared_norm(S: Any, K: Any, W: Any) -> Any:
    """squared_norm(S, K, W): the sum of the squares of the memory."""


def write(S: Any, F: Any, ks: Any, w: Any, K: Any, W: Any, out: Any) -> Any:
    """write(S, F, ks, w, K, W, out): out = F S + sum_i ks[i] w[i]^T."""


def repeat_writes(error: Any, beta: Any, scale: Any, at: Any, W: Any, u: Any, w: Any) -> Any:
    """repeat_writes(error, beta, scale, (b, first, h), W, u, w): u = beta error of four steps, and
    w, which is u after all their divisions; 0 after the last step. Gives F, the divisions of the
    memory."""


def scaled_product(x: Any, j: Any, factor: Any, u: Any, i: Any, W: Any) -> Any:
    """scaled_product(x, j, factor, u, i, W): x[j] . u[i], after x[j] *= factor."""


def put(out: Any, at: Any, count: Any, x0: Any, x1: Any, x2: Any, x3: Any) -> Any:
    """put(out, (b, first, h, a), count, x0, x1, x2, x3): the totals of the first `count` vectors,
    one a step."""


@overload(gather, prefer_literal=True, jit_options=INLINED)
def _gather(x: Any, at: Any, K: Any, W: Any, rows: Any) -> Any:
    def code(x: Any, at: Any, K: Any, W: Any, rows: Any) -> Any:
        b, first, h = at
        for i in range(STEPS):
            counted = first + i < x.shape[1]
            for a in range(-(-K // W) * W):
                rows[i, a] = x[b, first + i, h, a] if counted and a < K else 0

    return code


@overload(products, prefer_literal=True, jit_options=INLINED)
def _products(left: Any, right: Any, K: Any, W: Any, out: Any) -> Any:
    lanes = W.literal_value

    def code(left: Any, right: Any, K: Any, W: Any, out: Any) -> Any:
        for i in range(STEPS):
            for j in range(STEPS):
                product = zeros(left, lanes)
                for a in range(0, K, W):
                    x, y = load(left, (i, a), lanes), load(right, (j, a), lanes)
                    product = muladd(x, y, product)
                out[i, j] = total(product)

    return code


@overload(times_memory, prefer_literal=True, jit_options=INLINED)
def _times_memory(rows: Any, S: Any, K: Any, W: Any, out: Any) -> Any:
    lanes = W.literal_value

    def code(rows: Any, S: Any, K: Any, W: Any, out: Any) -> Any:
        for c in range(0, S.shape[1], W):
            x0 = x1 = x2 = x3 = zeros(S, lanes)
            for a in range(K):
                s = load(S, (a, c), lanes)
                x0, x1 = muladd(rows[0, a], s, x0), muladd(rows[1, a], s, x1)
                x2, x3 = muladd(rows[2, a], s, x2), muladd(rows[3, a], s, x3)
            store(out, (0, c), x0)
            store(out, (1, c), x1)
            store(out, (2, c), x2)
            store(out, (3, c), x3)

    return code


@overload(squared_norm, prefer_literal=True, jit_options=INLINED)
def _squared_norm(S: Any, K: Any, W: Any) -> Any:
    lanes = W.literal_value

    def code(S: Any, K: Any, W: Any) -> Any:
        squares = zeros(S, lanes)
        for a in range(K):
            for c in range(0, S.shape[1], W):
                s = load(S, (a, c), lanes)
                squares = muladd(s, s, squares)
        return total(squares)

    return code


@overload(write, prefer_literal=True, jit_options=INLINED)
def _write(S: Any, F: Any, ks: Any, w: Any, K: Any, W: Any, out: Any) -> Any:
    lanes = W.literal_value

    def code(S: Any, F: Any, ks: Any, w: Any, K: Any, W: Any, out: Any) -> Any:
        for a in range(K):
            for c in range(0, S.shape[1], W):
                s = load(S, (a, c), lanes) * F
                s = muladd(ks[0, a], load(w, (0, c), lanes), s)
                s = muladd(ks[1, a], load(w, (1, c), lanes), s)
                s = muladd(ks[2, a], load(w, (2, c), lanes), s)
                s = muladd(ks[3, a], load(w, (3, c), lanes), s)
                store(out, (a, c), s)

    return code


@overload(repeat_writes, prefer_literal=True, jit_options=INLINED)
def _repeat_writes(error: Any, beta: Any, scale: Any, at: Any, W: Any, u: Any, w: Any) -> Any:
    lanes = W.literal_value

    def code(error: Any, beta: Any, scale: Any, at: Any, W: Any, u: Any, w: Any) -> Any:
        b, first, h = at
        T = error.shape[1]
        F = beta.dtype.type(1)
        for i in range(STEPS - 1, -1, -1):
            t = first + i
            if t < T and not scale[b, t, h] < 0:
                F *= scale[b, t, h]
            for c in range(0, error.shape[3], W):
                u_t = zeros(error, lanes)
                if t < T:
                    u_t = load(error, (b, t, h, c), lanes) * beta[b, t, h]
                store(u, (i, c), u_t)
                store(w, (i, c), u_t * F)
        return F

    return code


@overload(scaled_product, prefer_literal=True, jit_options=INLINED)
def _scaled_product(x: Any, j: Any, factor: Any, u: Any, i: Any, W: Any) -> Any:
    lanes = W.literal_value

    def code(x: Any, j: Any, factor: Any, u: Any, i: Any, W: Any) -> Any:
        product = zeros(x, lanes)
        for c in range(0, x.shape[1], W):
            scaled = load(x, (j, c), lanes) * factor
            store(x, (j, c), scaled)
            product = muladd(scaled, load(u, (i, c), lanes), product)
        return total(product)

    return code


@overload(put, prefer_literal=True, jit_options=INLINED)
def _put(out: Any, at: Any, count: Any, x0: Any, x1: Any, x2: Any, x3: Any) -> Any:
    def code(out: Any, at: Any, count: Any, x0: Any, x1: Any, x2: Any, x3: Any) -> Any:
        b, first, h, a = at
        out[b, first, h, a] = total(x0)
        if count > 1:
            out[b, first + 1, h, a] = total(x1)
        if count > 2:
            out[b, first + 2, h, a] = total(x2)
        if count > 3:
            out[b, first + 3, h, a] = total(x3)

    return code
