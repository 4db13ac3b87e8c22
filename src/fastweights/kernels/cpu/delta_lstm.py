"""The Delta LSTM, a loop over steps with the three memories in the first-level cache.

Irie, Schlag, Csordas, Schmidhuber (2021), appendix; see `fastweights.ops.delta_lstm`. A group of
small heads shares a vector (`fastweights.kernels.cpu.groups`), and a step passes once over each
memory (`fastweights.kernels.cpu.group_memory`).

The backward pass keeps no memory of a step: it starts from the last ones and takes back each write.
It makes the queries again, from y. Beyond its inputs and y it keeps 7 D numbers a step and head
(the cell, and of each gate its value after the sigmoid and the error v_t - k_t R_{t-1}) and the
last memories.
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
from fastweights.kernels.cpu.vectors import exp, load, muladd, select, store, zeros


def delta_lstm(
    z: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    memory: Tensor,
    output: Tensor,
    cell: Tensor,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """z, k, v [B, T, 3, H, D], beta [B, T, 3, H], memory [B, 3, H, D, D], output, cell [B, H, D],
    of one dtype, float32 or float64; mask [B, T] -> y [B, T, H, D], the last memories and the last
    cell. Where the mask is False, y is that of the step before."""
    y, memory, cell, _ = _forward(z, k, v, beta, memory, output, cell, mask)
    return y, memory, cell


def _by_head(x: Tensor) -> Tensor:
    """[B, T, 3, H, D] -> [B, H, T, 3, D], the last axis with stride 1."""
    return unit_stride(x).permute(0, 3, 1, 2, 4)


def _memory_by_head(x: Tensor) -> Tensor:
    """[B, 3, H, D, D] -> [B, H, 3, D, D], the last axis with stride 1."""
    return unit_stride(x).transpose(1, 2)


@torch.library.custom_op("fastweights::delta_lstm", mutates_args=(), device_types="cpu")
def _forward(
    z: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    memory: Tensor,
    output: Tensor,
    cell: Tensor,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B, _, _, H, D = z.shape
    group = Group.of(H, D, z.dtype)
    y, last, last_cell, kept = _forward_shapes(z, k, v, beta, memory, output, cell)
    forward, _ = _kernels(D, group, z.dtype)
    forward.run(
        group.num_groups(B, H),
        _work(y),
        [
            *(_by_head(x) for x in (z, k, v)), beta.permute(0, 3, 1, 2), counted_steps(mask, y),
            _memory_by_head(memory), unit_stride(output), unit_stride(cell),
            by_head(y), _memory_by_head(last), last_cell, by_head(kept),
        ],
        scratch=(3 * D + 15, group.lanes),
    )  # fmt: skip
    return y, last, last_cell, kept


@_forward.register_fake
def _forward_shapes(
    z: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    memory: Tensor,
    output: Tensor,
    cell: Tensor,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    y = z.new_empty(z[:, :, 0].shape)
    kept = z.new_empty(*y.shape[:-1], 7 * y.shape[-1])
    return y, memory.new_empty(memory.shape), cell.new_empty(cell.shape), kept


@torch.library.custom_op("fastweights::delta_lstm_backward", mutates_args=(), device_types="cpu")
def _backward(
    k: Tensor,
    beta: Tensor,
    output: Tensor,
    cell: Tensor,
    mask: Tensor | None,
    y: Tensor,
    last: Tensor,
    kept: Tensor,
    dy: Tensor,
    d_last: Tensor,
    d_last_cell: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    B, _, H, D = y.shape
    group = Group.of(H, D, y.dtype)
    gradients = _backward_shapes(k, beta, output, cell, mask, y, last)
    dz, dk, dv, d_beta, d_memory, d_output, d_cell = gradients
    _, backward = _kernels(D, group, y.dtype)
    backward.run(
        group.num_groups(B, H),
        2 * _work(y),
        [
            _by_head(k), beta.permute(0, 3, 1, 2), counted_steps(mask, y),
            unit_stride(output), unit_stride(cell),
            by_head(y), _memory_by_head(last.mT), by_head(kept),
            by_head(dy), _memory_by_head(d_last.mT), unit_stride(d_last_cell),
            *(_by_head(x) for x in (dz, dk, dv)), d_beta.permute(0, 3, 1, 2),
            _memory_by_head(d_memory), d_output, d_cell,
        ],
        scratch=(6 * D + 7, group.lanes),
    )  # fmt: skip
    return dz, dk, dv, d_beta, d_memory.mT.contiguous(), d_output, d_cell


@_backward.register_fake
def _backward_shapes(
    k: Tensor,
    beta: Tensor,
    output: Tensor,
    cell: Tensor,
    mask: Any,
    y: Tensor,
    last: Tensor,
    *_: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = k, k, k, beta, last, output, cell
    return tuple(x.new_empty(x.shape) for x in inputs)  # type: ignore[return-value]


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    _, k, _, beta, _, initial, initial_cell, mask = inputs
    y, last, _, kept = output
    ctx.save_for_backward(k, beta, initial, initial_cell, mask, y, last, kept)
    ctx.set_materialize_grads(False)  # no zeros for what is kept


def _differentiate(
    ctx: Any, dy: Tensor | None, d_last: Tensor | None, d_cell: Tensor | None, d_kept: None
) -> tuple[Any, ...]:
    saved = ctx.saved_tensors  # once, as activation checkpointing wants it
    _, _, _, cell, _, y, last, _ = saved
    dy = torch.zeros_like(y) if dy is None else dy
    d_last = torch.zeros_like(last) if d_last is None else d_last
    d_cell = torch.zeros_like(cell) if d_cell is None else d_cell
    return *_backward(*saved, dy, d_last, d_cell), None


_forward.register_autograd(_differentiate, setup_context=_save)


def _work(y: Tensor) -> int:
    """Of the forward pass; the exponential of a number costs as much as 20 multiply-adds."""
    return (9 * y.shape[-1] + 60) * y.numel()


@functools.cache
def _kernels(D: int, group: Group, dtype: torch.dtype) -> tuple[Kernel, Kernel]:
    """Forward and backward for heads of D numbers. An item is a group of heads."""
    N, M, W = group
    P = N * M
    used = D * P

    def forward(
        z: Any, k: Any, v: Any, beta: Any, counted: Any, memory: Any, initial: Any,
        initial_cell: Any,
        y: Any, last: Any, last_cell: Any, kept: Any,
        scratch: Any, start: int, stop: int,
    ) -> None:  # fmt: skip
        _, H, T, _ = y.shape
        # The memories, the rows of each one's passes, its write of the step before, and its gate.
        S, rows = scratch[: 3 * D], scratch[3 * D : 3 * D + 9]
        writes, gates = scratch[3 * D + 9 : 3 * D + 12], scratch[3 * D + 12 :]
        nothing = zeros(y, W)
        for item in range(start, stop):
            block, heads = divmod(item, H // M)
            b, h = block * N, heads * M
            for g in range(3):
                for a in range(D):
                    store(S, (g * D + a, 0), load_group(memory, (b, h, g, a, 0), D, N, M, W))
                store(rows, (3 * g, 0), nothing)  # the key of the step before
                store(writes, (g, 0), nothing)
            output = load_group(initial, (b, h, 0), D, N, M, W)
            cell = load_group(initial_cell, (b, h, 0), D, N, M, W)
            for t in range(T):
                q_t = group_softmax(output, used, P)
                counts = repeat(load_group(counted, (b, h, t), 1, N, M, P), W)
                for g in range(3):
                    z_t = load_group(z, (b, h, t, g, 0), D, N, M, W)
                    k_t = load_group(k, (b, h, t, g, 0), D, N, M, W)
                    v_t = load_group(v, (b, h, t, g, 0), D, N, M, W)
                    beta_t = load_group(beta, (b, h, t, g), 1, N, M, P)
                    k_t = select(counts, k_t, nothing)
                    read, prediction = write_and_read(
                        S[g * D : g * D + D], D, P, rows[3 * g : 3 * g + 3],
                        load(writes, (g, 0), W), q_t, k_t,
                    )  # fmt: skip
                    error = select(counts, v_t - prediction, nothing)
                    u = select(counts, repeat(beta_t, W) * error, nothing)
                    read = muladd(repeat(group_totals(q_t * k_t, P), W), u, read)
                    store(writes, (g, 0), u)
                    store(gates, (g, 0), z_t + read)
                    store_group(kept, (b, h, t, (4 + g) * D), D, N, M, error)
                i_t = 1 / (1 + exp(-load(gates, (0, 0), W)))
                u_t = load(gates, (1, 0), W)
                o_t = 1 / (1 + exp(-load(gates, (2, 0), W)))
                cell = select(counts, muladd(i_t, u_t - cell, cell), cell)
                output = select(counts, o_t * cell, output)
                store_group(y, (b, h, t, 0), D, N, M, output)
                store_group(kept, (b, h, t, 0), D, N, M, i_t)
                store_group(kept, (b, h, t, D), D, N, M, u_t)
                store_group(kept, (b, h, t, 2 * D), D, N, M, o_t)
                store_group(kept, (b, h, t, 3 * D), D, N, M, cell)
            for g in range(3):
                u = load(writes, (g, 0), W)
                for a in range(D):
                    k_a = repeat(load(rows, (3 * g, a * P), P), W)
                    s = muladd(k_a, u, load(S, (g * D + a, 0), W))
                    store_group(last, (b, h, g, a, 0), D, N, M, s)
            store_group(last_cell, (b, h, 0), D, N, M, cell)

    def backward(
        k: Any, beta: Any, counted: Any, initial: Any, initial_cell: Any,
        y: Any, last: Any, kept: Any, dy: Any, d_last: Any, d_last_cell: Any,
        dz: Any, dk: Any, dv: Any, d_beta: Any, d_memory: Any, d_initial: Any, d_initial_cell: Any,
        scratch: Any, start: int, stop: int,
    ) -> None:  # fmt: skip
        _, H, T, _ = y.shape
        # The memories, their gradients, the rows of a pass, and the gradients of the gates.
        S, dS = scratch[: 3 * D], scratch[3 * D : 6 * D]
        rows, d_gates = scratch[6 * D : 6 * D + 4], scratch[6 * D + 4 :]
        nothing = zeros(y, W)
        for item in range(start, stop):
            block, heads = divmod(item, H // M)
            b, h = block * N, heads * M
            for g in range(3):
                for j in range(D):
                    store(S, (g * D + j, 0), load_group(last, (b, h, g, j, 0), D, N, M, W))
                    store(dS, (g * D + j, 0), load_group(d_last, (b, h, g, j, 0), D, N, M, W))
            d_output = nothing
            d_cell = load_group(d_last_cell, (b, h, 0), D, N, M, W)
            for t in range(T - 1, -1, -1):
                if t:
                    output = load_group(y, (b, h, t - 1, 0), D, N, M, W)
                    cell_before = load_group(kept, (b, h, t - 1, 3 * D), D, N, M, W)
                else:
                    output = load_group(initial, (b, h, 0), D, N, M, W)
                    cell_before = load_group(initial_cell, (b, h, 0), D, N, M, W)
                q_t = group_softmax(output, used, P)
                count = load_group(counted, (b, h, t), 1, N, M, P)
                counts = repeat(count, W)
                i_t = load_group(kept, (b, h, t, 0), D, N, M, W)
                u_t = load_group(kept, (b, h, t, D), D, N, M, W)
                o_t = load_group(kept, (b, h, t, 2 * D), D, N, M, W)
                cell = load_group(kept, (b, h, t, 3 * D), D, N, M, W)
                d_output = load_group(dy, (b, h, t, 0), D, N, M, W) + d_output
                dc = muladd(d_output, o_t, d_cell)
                d_i = dc * (u_t - cell_before) * i_t * (1 - i_t)
                d_o = d_output * cell * o_t * (1 - o_t)
                store(d_gates, (0, 0), select(counts, d_i, nothing))
                store(d_gates, (1, 0), select(counts, dc * i_t, nothing))
                store(d_gates, (2, 0), select(counts, d_o, nothing))
                d_cell = select(counts, dc * (1 - i_t), d_cell)
                dq = nothing
                for g in range(3):
                    k_t = select(counts, load_group(k, (b, h, t, g, 0), D, N, M, W), nothing)
                    beta_t = load_group(beta, (b, h, t, g), 1, N, M, P)
                    beta_t = select(count, beta_t, zeros(y, P))
                    error = load_group(kept, (b, h, t, (4 + g) * D), D, N, M, W)
                    d_read = load(d_gates, (g, 0), W)
                    dq_g, dk_t, dv_t, d_beta_t = take_back(
                        S[g * D : g * D + D], dS[g * D : g * D + D], D, P, rows,
                        q_t, k_t, error, beta_t, d_read,
                    )  # fmt: skip
                    dq = dq + dq_g
                    store_group(dz, (b, h, t, g, 0), D, N, M, d_read)
                    store_group(dk, (b, h, t, g, 0), D, N, M, dk_t)
                    store_group(dv, (b, h, t, g, 0), D, N, M, dv_t)
                    store_group(d_beta, (b, h, t, g), 1, N, M, d_beta_t)
                dq = q_t * (dq - repeat(group_totals(q_t * dq, P), W))
                d_output = select(counts, dq, d_output)
            for g in range(3):
                for j in range(D):
                    ds = load(dS, (g * D + j, 0), W)
                    store_group(d_memory, (b, h, g, j, 0), D, N, M, ds)
            store_group(d_initial, (b, h, 0), D, N, M, d_output)
            store_group(d_initial_cell, (b, h, 0), D, N, M, d_cell)

    sizes = f"head_dim {D}, {P} heads at a time, {dtype}"
    return (
        Kernel(forward, f"delta_lstm ({sizes})"),
        Kernel(backward, f"delta_lstm's backward pass ({sizes})"),
    )
