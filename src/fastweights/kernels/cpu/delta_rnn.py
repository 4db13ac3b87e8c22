"""The Delta RNN, a loop over steps with the memory in the first-level cache.

Irie, Schlag, Csordas, Schmidhuber (2021); see `fastweights.ops.delta_rnn`. A group of small heads
shares a vector (`fastweights.kernels.cpu.groups`), and a step passes once over the memory
(`fastweights.kernels.cpu.group_memory`).

The backward pass keeps no memory of a step: it starts from the last one and takes back each write.
It makes the queries again, from y. Beyond its inputs and y it keeps D numbers a step and head (the
errors v_t - k_t R_{t-1}) and the last memory.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from fastweights.kernels.cpu.columns import unit_stride
from fastweights.kernels.cpu.group_memory import take_back, write_and_read
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
from fastweights.kernels.cpu.vectors import load, muladd, select, store, zeros


def delta_rnn(
    z: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    memory: Tensor,
    output: Tensor,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """z, k, v [B, T, H, D], beta [B, T, H], memory [B, H, D, D], output [B, H, D], of one dtype,
    float32 or float64; mask [B, T] -> y [B, T, H, D] and the last memory. Where the mask is False,
    y is that of the step before."""
    y, memory, _ = _forward(z, k, v, beta, memory, output, mask)
    return y, memory


@torch.library.custom_op("fastweights::delta_rnn", mutates_args=(), device_types="cpu")
def _forward(
    z: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    memory: Tensor,
    output: Tensor,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    B, _, H, D = z.shape
    group = Group.of(H, D, z.dtype)
    y, last, error = _forward_shapes(z, k, v, beta, memory)
    forward, _ = _kernels(D, group, z.dtype)
    forward.run(
        group.num_groups(B, H),
        _work(y),
        [
            *(by_head(x) for x in (z, k, v)), beta.mT, counted_steps(mask, y),
            unit_stride(memory), unit_stride(output), by_head(y), last, by_head(error),
        ],
        scratch=(D + 3, group.lanes),
    )  # fmt: skip
    return y, last, error


@_forward.register_fake
def _forward_shapes(
    z: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return z.new_empty(z.shape), memory.new_empty(memory.shape), z.new_empty(z.shape)


@torch.library.custom_op("fastweights::delta_rnn_backward", mutates_args=(), device_types="cpu")
def _backward(
    k: Tensor,
    beta: Tensor,
    output: Tensor,
    mask: Tensor | None,
    y: Tensor,
    last: Tensor,
    error: Tensor,
    dy: Tensor,
    d_last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    B, _, H, D = y.shape
    group = Group.of(H, D, y.dtype)
    dz, dk, dv, d_beta, d_memory, d_output = _backward_shapes(k, beta, output, mask, y, last)
    _, backward = _kernels(D, group, y.dtype)
    backward.run(
        group.num_groups(B, H),
        2 * _work(y),
        [
            by_head(k), beta.mT, counted_steps(mask, y), unit_stride(output), by_head(y),
            unit_stride(last.mT), by_head(error), by_head(dy), unit_stride(d_last.mT),
            *(by_head(x) for x in (dz, dk, dv)), d_beta.mT, d_memory, d_output,
        ],
        scratch=(2 * D + 4, group.lanes),
    )  # fmt: skip
    return dz, dk, dv, d_beta, d_memory.mT.contiguous(), d_output


@_backward.register_fake
def _backward_shapes(
    k: Tensor, beta: Tensor, output: Tensor, mask: Any, y: Tensor, last: Tensor, *_: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = y, k, y, beta, last, output
    return tuple(x.new_empty(x.shape) for x in inputs)  # type: ignore[return-value]


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    _, k, _, beta, _, initial, mask = inputs
    ctx.save_for_backward(k, beta, initial, mask, *output)
    ctx.set_materialize_grads(False)  # no zeros for the errors


def _differentiate(
    ctx: Any, dy: Tensor | None, d_last: Tensor | None, d_error: None
) -> tuple[Any, ...]:
    saved = ctx.saved_tensors  # once, as activation checkpointing wants it
    *_, y, last, _ = saved
    dy = torch.zeros_like(y) if dy is None else dy
    d_last = torch.zeros_like(last) if d_last is None else d_last
    return *_backward(*saved, dy, d_last), None


_forward.register_autograd(_differentiate, setup_context=_save)


def _work(y: Tensor) -> int:
    """Of the forward pass; the exponential of a number costs as much as 20 multiply-adds."""
    return (3 * y.shape[-1] + 20) * y.numel()


@functools.cache
def _kernels(D: int, group: Group, dtype: torch.dtype) -> tuple[Kernel, Kernel]:
    """Forward and backward for heads of D numbers. An item is a group of heads."""
    N, M, W = group
    P = N * M
    used = D * P

    def forward(
        z: Any, k: Any, v: Any, beta: Any, counted: Any, memory: Any, initial: Any,
        y: Any, last: Any, error: Any,
        scratch: Any, start: int, stop: int,
    ) -> None:  # fmt: skip
        _, H, T, _ = y.shape
        S, rows = scratch[:D], scratch[D:]
        nothing = zeros(y, W)
        for item in range(start, stop):
            block, heads = divmod(item, H // M)
            b, h = block * N, heads * M
            for a in range(D):
                store(S, (a, 0), load_group(memory, (b, h, a, 0), D, N, M, W))
            output = load_group(initial, (b, h, 0), D, N, M, W)
            u = nothing
            store(rows, (0, 0), nothing)  # the key of the step before
            for t in range(T):
                q_t = group_softmax(output, used, P)
                z_t = load_group(z, (b, h, t, 0), D, N, M, W)
                k_t = load_group(k, (b, h, t, 0), D, N, M, W)
                v_t = load_group(v, (b, h, t, 0), D, N, M, W)
                beta_t = load_group(beta, (b, h, t), 1, N, M, P)
                counts = repeat(load_group(counted, (b, h, t), 1, N, M, P), W)
                k_t = select(counts, k_t, nothing)
                read, prediction = write_and_read(S, D, P, rows, u, q_t, k_t)
                e = select(counts, v_t - prediction, nothing)
                u = select(counts, repeat(beta_t, W) * e, nothing)
                read = muladd(repeat(group_totals(q_t * k_t, P), W), u, read)
                output = select(counts, z_t + read, output)
                store_group(y, (b, h, t, 0), D, N, M, output)
                store_group(error, (b, h, t, 0), D, N, M, e)
            for a in range(D):
                s = muladd(repeat(load(rows, (0, a * P), P), W), u, load(S, (a, 0), W))
                store_group(last, (b, h, a, 0), D, N, M, s)

    def backward(
        k: Any, beta: Any, counted: Any, initial: Any, y: Any, last: Any, error: Any,
        dy: Any, d_last: Any, dz: Any, dk: Any, dv: Any, d_beta: Any, d_memory: Any, d_initial: Any,
        scratch: Any, start: int, stop: int,
    ) -> None:  # fmt: skip
        _, H, T, _ = y.shape
        S, dS, rows = scratch[:D], scratch[D : 2 * D], scratch[2 * D :]
        nothing = zeros(y, W)
        for item in range(start, stop):
            block, heads = divmod(item, H // M)
            b, h = block * N, heads * M
            for j in range(D):
                store(S, (j, 0), load_group(last, (b, h, j, 0), D, N, M, W))
                store(dS, (j, 0), load_group(d_last, (b, h, j, 0), D, N, M, W))
            d_output = nothing
            for t in range(T - 1, -1, -1):
                if t:
                    before = load_group(y, (b, h, t - 1, 0), D, N, M, W)
                else:
                    before = load_group(initial, (b, h, 0), D, N, M, W)
                q_t = group_softmax(before, used, P)
                count = load_group(counted, (b, h, t), 1, N, M, P)
                counts = repeat(count, W)
                k_t = select(counts, load_group(k, (b, h, t, 0), D, N, M, W), nothing)
                beta_t = load_group(beta, (b, h, t), 1, N, M, P)
                beta_t = select(count, beta_t, zeros(y, P))
                e = load_group(error, (b, h, t, 0), D, N, M, W)
                d_output = load_group(dy, (b, h, t, 0), D, N, M, W) + d_output
                d_read = select(counts, d_output, nothing)
                dq, dk_t, dv_t, d_beta_t = take_back(S, dS, D, P, rows, q_t, k_t, e, beta_t, d_read)
                dq = q_t * (dq - repeat(group_totals(q_t * dq, P), W))
                d_output = select(counts, dq, d_output)
                store_group(dz, (b, h, t, 0), D, N, M, d_read)
                store_group(dk, (b, h, t, 0), D, N, M, dk_t)
                store_group(dv, (b, h, t, 0), D, N, M, dv_t)
                store_group(d_beta, (b, h, t), 1, N, M, d_beta_t)
            for j in range(D):
                store_group(d_memory, (b, h, j, 0), D, N, M, load(dS, (j, 0), W))
            store_group(d_initial, (b, h, 0), D, N, M, d_output)

    sizes = f"head_dim {D}, {P} heads at a time, {dtype}"
    return (
        Kernel(forward, f"delta_rnn ({sizes})"),
        Kernel(backward, f"delta_rnn's backward pass ({sizes})"),
    )
