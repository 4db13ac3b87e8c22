"""The self-referential weight matrix, a loop over steps with the weights of a few heads in the
first-level cache.

Irie, Schlag, Csordas, Schmidhuber (2022), Eqs. 5-8; see `fastweights.ops.self_reference`. A group
of small heads shares a vector (`fastweights.kernels.cpu.groups`). The first pass of a step over the
weights applies the write of the step before and reads with x; the second reads with q - k.

The backward pass keeps no weights of a step: it starts from the last ones and takes back each
write. Beyond its inputs it keeps 5 D + 8 numbers a step and head (q and k after the softmax, the
write strengths, what q - k reads from each part; D is rounded up to a power of two, 4 at least,
and the heads to whole groups) and the last weights.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from fastweights.kernels.cpu.columns import unit_stride
from fastweights.kernels.cpu.groups import (
    Group,
    by_head,
    counted_steps,
    group_softmax,
    group_totals,
    load_group,
    repeat,
    store_group,
)
from fastweights.kernels.cpu.kernel import Kernel
from fastweights.kernels.cpu.vectors import exp, load, muladd, store, zeros


def self_reference(
    x: Tensor, output: Tensor, query: Tensor, key: Tensor, strength: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x [B, T, H, D], the weights output, query, key [B, H, D, D] and strength [B, H, D, 4], of one
    dtype, float32 or float64; mask [B, T] -> y [B, T, H, D] and the last weights. Where the mask is
    False, nothing is written; y is not masked."""
    y, output, query, key, strength, _ = _forward(x, output, query, key, strength, mask)
    return y, output, query, key, strength


@torch.library.custom_op("fastweights::self_reference", mutates_args=(), device_types="cpu")
def _forward(
    x: Tensor, output: Tensor, query: Tensor, key: Tensor, strength: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    B, _, H, D = x.shape
    group = Group.of(H, D, x.dtype)
    y, *last, kept = _forward_shapes(x, output, query, key, strength)
    forward, _ = _kernels(D, group, x.dtype)
    forward.run(
        group.num_groups(B, H),
        _work(x),
        [
            by_head(x), counted_steps(mask, x),
            *(unit_stride(part) for part in (output, query, key, strength)),
            by_head(y), *last, kept,
        ],
        scratch=(4 * D + 10, _widest(group)),
    )  # fmt: skip
    return y, *last, kept


@_forward.register_fake
def _forward_shapes(
    x: Tensor, output: Tensor, query: Tensor, key: Tensor, strength: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    B, T, H, D = x.shape
    group = Group.of(H, D, x.dtype)
    kept = x.new_empty(group.num_groups(B, H), T, 5 * group.lanes + 8 * group.size)
    parts = x, output, query, key, strength
    return *(part.new_empty(part.shape) for part in parts), kept  # type: ignore[return-value]


@torch.library.custom_op(
    "fastweights::self_reference_backward", mutates_args=(), device_types="cpu"
)
def _backward(
    x: Tensor,
    output: Tensor,
    query: Tensor,
    key: Tensor,
    strength: Tensor,
    kept: Tensor,
    dy: Tensor,
    d_output: Tensor,
    d_query: Tensor,
    d_key: Tensor,
    d_strength: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    B, _, H, D = x.shape
    group = Group.of(H, D, x.dtype)
    last, d_last = (output, query, key, strength), (d_output, d_query, d_key, d_strength)
    dx, *d_first = _backward_shapes(x, *last)
    _, backward = _kernels(D, group, x.dtype)
    backward.run(
        group.num_groups(B, H),
        2 * _work(x),
        [
            by_head(x), kept, *last, by_head(dy), *(unit_stride(part) for part in d_last),
            by_head(dx), *d_first,
        ],
        scratch=(8 * D + 7, _widest(group)),
    )  # fmt: skip
    return dx, *d_first


@_backward.register_fake
def _backward_shapes(
    x: Tensor, output: Tensor, query: Tensor, key: Tensor, strength: Tensor, *_: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    parts = x, output, query, key, strength
    return tuple(part.new_empty(part.shape) for part in parts)  # type: ignore[return-value]


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    _, *last_and_kept = output
    ctx.save_for_backward(inputs[0], *last_and_kept)
    ctx.set_materialize_grads(False)  # no zeros for what is kept


def _differentiate(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
    saved = ctx.saved_tensors  # once, as activation checkpointing wants it
    *results, _ = saved  # x, which has the shape of y, and the last weights
    given = [
        torch.zeros_like(x) if gradient is None else gradient
        for x, gradient in zip(results, gradients[:-1], strict=True)
    ]
    return *_backward(*saved, *given), None


_forward.register_autograd(_differentiate, setup_context=_save)


def _work(x: Tensor) -> int:
    """Of the forward pass; the exponentials of a number cost as much as 50 multiply-adds."""
    return (9 * x.shape[-1] + 50) * x.numel()


def _widest(group: Group) -> int:
    """Lanes of the widest vector: a row of a part, or the four write strengths of each head."""
    return max(group.lanes, 4 * group.size)


@functools.cache
def _kernels(D: int, group: Group, dtype: torch.dtype) -> tuple[Kernel, Kernel]:
    """Forward and backward for heads of D numbers. An item is a group of heads."""
    N, M, W = group
    P = N * M
    F = 4 * P  # the write strengths of a group
    used = D * P

    def forward(
        x: Any, counted: Any, output: Any, query: Any, key: Any, strength: Any,
        y: Any, last_output: Any, last_query: Any, last_key: Any, last_strength: Any, kept: Any,
        scratch: Any, start: int, stop: int,
    ) -> None:  # fmt: skip
        _, H, T, _ = x.shape
        # Output, query and key part; the write strengths; what is read from each part by x or by
        # q - k, the writes of the three parts, and vectors of which single numbers are needed.
        S, B, rows = scratch[: 3 * D], scratch[3 * D : 4 * D], scratch[4 * D :]
        reads, writes = rows[:3], rows[3:6]
        x_t, keys, difference, beta = rows[6], rows[7], rows[8], rows[9]
        for item in range(start, stop):
            block, heads = divmod(item, H // M)
            b, h = block * N, heads * M
            for a in range(D):
                store(S, (a, 0), load_group(output, (b, h, a, 0), D, N, M, W))
                store(S, (D + a, 0), load_group(query, (b, h, a, 0), D, N, M, W))
                store(S, (2 * D + a, 0), load_group(key, (b, h, a, 0), D, N, M, W))
                store(B, (a, 0), load_group(strength, (b, h, a, 0), 4, N, M, F))
            for part in range(3):
                store(writes, (part, 0), zeros(x, W))
            write_b = zeros(x, F)
            store(keys, (0,), zeros(x, W))
            for t in range(T):
                store(x_t, (0,), load_group(x, (b, h, t, 0), D, N, M, W))
                for part in range(3):
                    write = load(writes, (part, 0), W)
                    read = zeros(x, W)
                    for a in range(D):
                        s = load(S, (part * D + a, 0), W)
                        s = muladd(repeat(load(keys, (a * P,), P), W), write, s)
                        store(S, (part * D + a, 0), s)
                        read = muladd(repeat(load(x_t, (a * P,), P), W), s, read)
                    store(reads, (part, 0), read)
                read_b = zeros(x, F)
                for a in range(D):
                    s = load(B, (a, 0), F)
                    s = muladd(repeat(load(keys, (a * P,), P), F), write_b, s)
                    store(B, (a, 0), s)
                    read_b = muladd(repeat(load(x_t, (a * P,), P), F), s, read_b)
                store_group(y, (b, h, t, 0), D, N, M, load(reads, (0, 0), W))
                q_t = group_softmax(load(reads, (1, 0), W), used, P)
                k_t = group_softmax(load(reads, (2, 0), W), used, P)
                # A step that does not count writes with strength 0.
                counts = repeat(load_group(counted, (b, h, t), 1, N, M, P), F)
                beta_t = counts / (1 + exp(-read_b))
                store(keys, (0,), k_t)
                store(difference, (0,), q_t - k_t)
                store(beta, (0,), beta_t)
                store(kept, (item, t, 0), q_t)
                store(kept, (item, t, W), k_t)
                for part in range(3):
                    read = zeros(x, W)
                    for a in range(D):
                        s = load(S, (part * D + a, 0), W)
                        read = muladd(repeat(load(difference, (a * P,), P), W), s, read)
                    store(kept, (item, t, (2 + part) * W), read)
                    store(writes, (part, 0), repeat(load(beta, (part * P,), P), W) * read)
                read_b = zeros(x, F)
                for a in range(D):
                    s = load(B, (a, 0), F)
                    read_b = muladd(repeat(load(difference, (a * P,), P), F), s, read_b)
                write_b = repeat(load(beta, (3 * P,), P), F) * read_b
                store(kept, (item, t, 5 * W), read_b)
                store(kept, (item, t, 5 * W + F), beta_t)
            for a in range(D):
                k_a = load(keys, (a * P,), P)
                for part in range(3):
                    write = load(writes, (part, 0), W)
                    s = muladd(repeat(k_a, W), write, load(S, (part * D + a, 0), W))
                    store(S, (part * D + a, 0), s)
                store_group(last_output, (b, h, a, 0), D, N, M, load(S, (a, 0), W))
                store_group(last_query, (b, h, a, 0), D, N, M, load(S, (D + a, 0), W))
                store_group(last_key, (b, h, a, 0), D, N, M, load(S, (2 * D + a, 0), W))
                s = muladd(repeat(k_a, F), write_b, load(B, (a, 0), F))
                store_group(last_strength, (b, h, a, 0), 4, N, M, s)

    def backward(
        x: Any, kept: Any, output: Any, query: Any, key: Any, strength: Any,
        dy: Any, d_output: Any, d_query: Any, d_key: Any, d_strength: Any,
        dx: Any, d_first_output: Any, d_first_query: Any, d_first_key: Any, d_first_strength: Any,
        scratch: Any, start: int, stop: int,
    ) -> None:  # fmt: skip
        _, H, T, _ = x.shape
        # The four parts, their gradients, and vectors of which single numbers are needed.
        Y, Q, K, B = scratch[:D], scratch[D : 2 * D], scratch[2 * D : 3 * D], scratch[3 * D : 4 * D]
        rows = scratch[4 * D :]
        dY, dQ, dK, dB = rows[:D], rows[D : 2 * D], rows[2 * D : 3 * D], rows[3 * D : 4 * D]
        x_t, keys, difference = rows[4 * D], rows[4 * D + 1], rows[4 * D + 2]
        beta, d_keys = rows[4 * D + 3], rows[4 * D + 4]
        d_beta, d_vector = rows[4 * D + 5], rows[4 * D + 6]
        for item in range(start, stop):
            block, heads = divmod(item, H // M)
            b, h = block * N, heads * M
            # Also the lanes beyond the D numbers of each head, which nothing writes.
            store(d_keys, (0,), zeros(x, W))
            store(d_vector, (0,), zeros(x, W))
            for a in range(D):
                store(Y, (a, 0), load_group(output, (b, h, a, 0), D, N, M, W))
                store(Q, (a, 0), load_group(query, (b, h, a, 0), D, N, M, W))
                store(K, (a, 0), load_group(key, (b, h, a, 0), D, N, M, W))
                store(B, (a, 0), load_group(strength, (b, h, a, 0), 4, N, M, F))
                store(dY, (a, 0), load_group(d_output, (b, h, a, 0), D, N, M, W))
                store(dQ, (a, 0), load_group(d_query, (b, h, a, 0), D, N, M, W))
                store(dK, (a, 0), load_group(d_key, (b, h, a, 0), D, N, M, W))
                store(dB, (a, 0), load_group(d_strength, (b, h, a, 0), 4, N, M, F))
            for t in range(T - 1, -1, -1):
                q_t = load(kept, (item, t, 0), W)
                k_t = load(kept, (item, t, W), W)
                ry = load(kept, (item, t, 2 * W), W)
                rq = load(kept, (item, t, 3 * W), W)
                rk = load(kept, (item, t, 4 * W), W)
                rb = load(kept, (item, t, 5 * W), F)
                beta_t = load(kept, (item, t, 5 * W + F), F)
                store(x_t, (0,), load_group(x, (b, h, t, 0), D, N, M, W))
                store(keys, (0,), k_t)
                store(difference, (0,), q_t - k_t)
                store(beta, (0,), beta_t)
                by = repeat(load(beta, (0,), P), W)
                bq = repeat(load(beta, (P,), P), W)
                bk = repeat(load(beta, (2 * P,), P), W)
                bb = repeat(load(beta, (3 * P,), P), F)
                # The write: gradients of what was written and of k, and the weights before it.
                gy = zeros(x, W)
                gq = zeros(x, W)
                gk = zeros(x, W)
                gb = zeros(x, F)
                uy = by * ry
                uq = bq * rq
                uk = bk * rk
                ub = bb * rb
                for a in range(D):
                    k_a = repeat(load(keys, (a * P,), P), W)
                    g = load(dY, (a, 0), W)
                    gy = muladd(k_a, g, gy)
                    product = g * uy
                    store(Y, (a, 0), muladd(-k_a, uy, load(Y, (a, 0), W)))
                    g = load(dQ, (a, 0), W)
                    gq = muladd(k_a, g, gq)
                    product = muladd(g, uq, product)
                    store(Q, (a, 0), muladd(-k_a, uq, load(Q, (a, 0), W)))
                    g = load(dK, (a, 0), W)
                    gk = muladd(k_a, g, gk)
                    product = muladd(g, uk, product)
                    store(K, (a, 0), muladd(-k_a, uk, load(K, (a, 0), W)))
                    k_f = repeat(load(keys, (a * P,), P), F)
                    f = load(dB, (a, 0), F)
                    gb = muladd(k_f, f, gb)
                    store(B, (a, 0), muladd(-k_f, ub, load(B, (a, 0), F)))
                    d = group_totals(product, P) + group_totals(f * ub, P)
                    store(d_keys, (a * P,), d)
                store(d_beta, (0,), group_totals(gy * ry, P))
                store(d_beta, (P,), group_totals(gq * rq, P))
                store(d_beta, (2 * P,), group_totals(gk * rk, P))
                store(d_beta, (3 * P,), group_totals(gb * rb, P))
                # The read with q - k.
                gy = by * gy
                gq = bq * gq
                gk = bk * gk
                gb = bb * gb
                for a in range(D):
                    d_a = repeat(load(difference, (a * P,), P), W)
                    product = load(Y, (a, 0), W) * gy
                    store(dY, (a, 0), muladd(d_a, gy, load(dY, (a, 0), W)))
                    product = muladd(load(Q, (a, 0), W), gq, product)
                    store(dQ, (a, 0), muladd(d_a, gq, load(dQ, (a, 0), W)))
                    product = muladd(load(K, (a, 0), W), gk, product)
                    store(dK, (a, 0), muladd(d_a, gk, load(dK, (a, 0), W)))
                    d_f = repeat(load(difference, (a * P,), P), F)
                    d = group_totals(product, P) + group_totals(load(B, (a, 0), F) * gb, P)
                    store(dB, (a, 0), muladd(d_f, gb, load(dB, (a, 0), F)))
                    store(d_vector, (a * P,), d)
                dq = load(d_vector, (0,), W)
                dk = load(d_keys, (0,), W) - dq
                # The softmax, the sigmoid, and the read with x.
                gq = q_t * (dq - repeat(group_totals(q_t * dq, P), W))
                gk = k_t * (dk - repeat(group_totals(k_t * dk, P), W))
                gb = load(d_beta, (0,), F) * beta_t * (1 - beta_t)
                gy = load_group(dy, (b, h, t, 0), D, N, M, W)
                for a in range(D):
                    x_a = repeat(load(x_t, (a * P,), P), W)
                    product = load(Y, (a, 0), W) * gy
                    store(dY, (a, 0), muladd(x_a, gy, load(dY, (a, 0), W)))
                    product = muladd(load(Q, (a, 0), W), gq, product)
                    store(dQ, (a, 0), muladd(x_a, gq, load(dQ, (a, 0), W)))
                    product = muladd(load(K, (a, 0), W), gk, product)
                    store(dK, (a, 0), muladd(x_a, gk, load(dK, (a, 0), W)))
                    x_f = repeat(load(x_t, (a * P,), P), F)
                    d = group_totals(product, P) + group_totals(load(B, (a, 0), F) * gb, P)
                    store(dB, (a, 0), muladd(x_f, gb, load(dB, (a, 0), F)))
                    store(d_vector, (a * P,), d)
                store_group(dx, (b, h, t, 0), D, N, M, load(d_vector, (0,), W))
            for a in range(D):
                store_group(d_first_output, (b, h, a, 0), D, N, M, load(dY, (a, 0), W))
                store_group(d_first_query, (b, h, a, 0), D, N, M, load(dQ, (a, 0), W))
                store_group(d_first_key, (b, h, a, 0), D, N, M, load(dK, (a, 0), W))
                store_group(d_first_strength, (b, h, a, 0), 4, N, M, load(dB, (a, 0), F))

    sizes = f"head_dim {D}, {P} heads at a time, {dtype}"
    return (
        Kernel(forward, f"self_reference ({sizes})"),
        Kernel(backward, f"self_reference's backward pass ({sizes})"),
    )
