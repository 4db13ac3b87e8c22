"""The Recurrent Delta rule, a loop over steps with the memory in the first-level cache.

Irie, Schlag, Csordas, Schmidhuber (2021), section 3.2; see `fastweights.ops.recurrent_delta`. A
group of small heads shares a vector (`fastweights.kernels.cpu.groups`). A step passes once over
the memory: it applies the write of the step before, and instead of reading after its own write it
adds that write's part, y_t = q_t S_{t-1} + (q_t k_t) u_t^T.

The backward pass keeps no memory of a step: it starts from the last one and takes back each write,
S_{t-1} = S_t - k_t u_t^T. It holds the memory transposed, so that the gradients of q and k are sums
of rows, and again passes over it once a step. Beyond its inputs and y it keeps 3 D + 1 numbers a
step and head (q and k after the softmax, the error v_t - k_t S_{t-1}, the write strength) and the
last memory. The gradients of the recurrent weights are one matrix product over all steps, of the
outputs fed back and the gradients of the inputs.
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
from fastweights.kernels.cpu.vectors import (
    exp,
    load,
    muladd,
    select,
    store,
    tanh,
    zeros,
)


def recurrent_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta_logit: Tensor,
    recurrent: Tensor,
    memory: Tensor,
    output: Tensor,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """q, k, v [B, T, H, D], beta_logit [B, T, H], recurrent [H, D, 3 D + 1] (for q, k, v and the
    strength), memory [B, H, D, D], output [B, H, D], of one dtype, float32 or float64; mask [B, T]
    -> y [B, T, H, D] and the last memory. Where the mask is False, y is that of the step before."""
    y, memory, _ = _forward(q, k, v, beta_logit, recurrent, memory, output, mask)
    return y, memory


@torch.library.custom_op("fastweights::recurrent_delta", mutates_args=(), device_types="cpu")
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta_logit: Tensor,
    recurrent: Tensor,
    memory: Tensor,
    output: Tensor,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    B, _, H, D = q.shape
    group = Group.of(H, D, q.dtype)
    y, last, kept = _forward_shapes(q, k, v, beta_logit, recurrent, memory)
    forward, _ = _kernels(D, group, q.dtype)
    forward.run(
        group.num_groups(B, H),
        _work(y),
        [
            *(by_head(x) for x in (q, k, v)), beta_logit.mT, counted_steps(mask, y),
            _recurrent_rows(recurrent, group, transposed=False),
            unit_stride(memory), unit_stride(output), by_head(y), last, by_head(kept),
        ],
        scratch=(D + 4, group.lanes),
    )  # fmt: skip
    return y, last, kept


@_forward.register_fake
def _forward_shapes(
    q: Tensor, k: Tensor, v: Tensor, beta_logit: Tensor, recurrent: Tensor, memory: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    kept = q.new_empty(*q.shape[:-1], 3 * q.shape[-1] + 1)
    return q.new_empty(q.shape), memory.new_empty(memory.shape), kept


@torch.library.custom_op(
    "fastweights::recurrent_delta_backward", mutates_args=(), device_types="cpu"
)
def _backward(
    recurrent: Tensor,
    output: Tensor,
    mask: Tensor | None,
    y: Tensor,
    last: Tensor,
    kept: Tensor,
    dy: Tensor,
    d_last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B, _, H, D = y.shape
    group = Group.of(H, D, y.dtype)
    d_inputs, d_recurrent, d_memory, d_output = _backward_shapes(
        recurrent, output, mask, y, last, kept
    )
    feedback = torch.empty_like(y)
    _, backward = _kernels(D, group, y.dtype)
    backward.run(
        group.num_groups(B, H),
        2 * _work(y),
        [
            by_head(kept), counted_steps(mask, y),
            _recurrent_rows(recurrent, group, transposed=True), unit_stride(output),
            by_head(y), unit_stride(last.mT), by_head(dy), unit_stride(d_last.mT),
            by_head(d_inputs), by_head(feedback), d_memory, d_output,
        ],
        scratch=(2 * D + 4, group.lanes),
    )  # fmt: skip
    with torch.autocast("cpu", enabled=False):
        fed_back = feedback.flatten(0, 1).permute(1, 2, 0)  # [H, D, B T]
        torch.bmm(fed_back, d_inputs.flatten(0, 1).transpose(0, 1), out=d_recurrent)
    return d_inputs, d_recurrent, d_memory.mT.contiguous(), d_output


@_backward.register_fake
def _backward_shapes(
    recurrent: Tensor, output: Tensor, mask: Any, y: Tensor, last: Tensor, kept: Tensor, *_: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs = kept, recurrent, last, output
    return tuple(x.new_empty(x.shape) for x in inputs)  # type: ignore[return-value]


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    *_, recurrent, _, initial, mask = inputs
    ctx.save_for_backward(recurrent, initial, mask, *output)
    ctx.set_materialize_grads(False)  # no zeros for what is kept


def _differentiate(
    ctx: Any, dy: Tensor | None, d_last: Tensor | None, d_kept: None
) -> tuple[Any, ...]:
    saved = ctx.saved_tensors  # once, as activation checkpointing wants it
    *_, y, last, _ = saved
    dy = torch.zeros_like(y) if dy is None else dy
    d_last = torch.zeros_like(last) if d_last is None else d_last
    d_inputs, *others = _backward(*saved, dy, d_last)
    D = y.shape[-1]
    dq, dk, dv, d_logit = d_inputs.split([D, D, D, 1], -1)
    return dq, dk, dv, d_logit.squeeze(-1), *others, None


_forward.register_autograd(_differentiate, setup_context=_save)


def _work(y: Tensor) -> int:
    """Of the forward pass; the exponentials of a number cost as much as 50 multiply-adds."""
    return (6 * y.shape[-1] + 50) * y.numel()


def _recurrent_rows(recurrent: Tensor, group: Group, transposed: bool) -> Tensor:
    """[H / heads, 3 D + 1, lanes]: for each number of the output fed back (transposed: of each
    input) its row for q, for k and for v; last, the one for the strength."""
    D = recurrent.shape[1]
    *products, strength = recurrent.split([D, D, D, 1], -1)
    rows = torch.stack([x.mT if transposed else x for x in products], 2).flatten(1, 2)
    return group.interleave(torch.cat([rows, strength.mT], 1))


@functools.cache
def _kernels(D: int, group: Group, dtype: torch.dtype) -> tuple[Kernel, Kernel]:
    """Forward and backward for heads of D numbers. An item is a group of heads."""
    N, M, W = group
    P = N * M
    used = D * P

    def forward(
        q: Any, k: Any, v: Any, logit: Any, counted: Any, recurrent: Any, memory: Any, initial: Any,
        y: Any, last: Any, kept: Any,
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
                feedback = tanh(output)
                store(rows, (3, 0), feedback)
                q_t = load_group(q, (b, h, t, 0), D, N, M, W)
                k_t = load_group(k, (b, h, t, 0), D, N, M, W)
                v_t = load_group(v, (b, h, t, 0), D, N, M, W)
                for a in range(D):
                    f = repeat(load(rows, (3, a * P), P), W)
                    q_t = muladd(f, load(recurrent, (heads, 3 * a, 0), W), q_t)
                    k_t = muladd(f, load(recurrent, (heads, 3 * a + 1, 0), W), k_t)
                    v_t = muladd(f, load(recurrent, (heads, 3 * a + 2, 0), W), v_t)
                strength = group_totals(feedback * load(recurrent, (heads, 3 * D, 0), W), P)
                strength = strength + load_group(logit, (b, h, t), 1, N, M, P)
                q_t = group_softmax(q_t, used, P)
                k_t = group_softmax(k_t, used, P)
                count = load_group(counted, (b, h, t), 1, N, M, P)
                counts = repeat(count, W)
                q_t = select(counts, q_t, nothing)
                k_t = select(counts, k_t, nothing)
                beta = select(count, 1 / (1 + exp(-strength)), zeros(y, P))
                read, prediction = write_and_read(S, D, P, rows, u, q_t, k_t)
                error = select(counts, v_t - prediction, nothing)
                u = repeat(beta, W) * error
                read = muladd(repeat(group_totals(q_t * k_t, P), W), u, read)
                output = select(counts, read, output)
                store_group(y, (b, h, t, 0), D, N, M, output)
                store_group(kept, (b, h, t, 0), D, N, M, q_t)
                store_group(kept, (b, h, t, D), D, N, M, k_t)
                store_group(kept, (b, h, t, 2 * D), D, N, M, error)
                store_group(kept, (b, h, t, 3 * D), 1, N, M, beta)
            for a in range(D):
                s = muladd(repeat(load(rows, (0, a * P), P), W), u, load(S, (a, 0), W))
                store_group(last, (b, h, a, 0), D, N, M, s)

    def backward(
        kept: Any, counted: Any, recurrent: Any, initial: Any, y: Any, last: Any, dy: Any,
        d_last: Any, d_inputs: Any, fed_back: Any, d_memory: Any, d_initial: Any,
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
                q_t = load_group(kept, (b, h, t, 0), D, N, M, W)
                k_t = load_group(kept, (b, h, t, D), D, N, M, W)
                error = load_group(kept, (b, h, t, 2 * D), D, N, M, W)
                beta = load_group(kept, (b, h, t, 3 * D), 1, N, M, P)
                d_read = load_group(dy, (b, h, t, 0), D, N, M, W) + d_output
                dq, dk, dv, d_beta = take_back(S, dS, D, P, rows, q_t, k_t, error, beta, d_read)
                dq = q_t * (dq - repeat(group_totals(q_t * dq, P), W))
                dk = k_t * (dk - repeat(group_totals(k_t * dk, P), W))
                d_logit = d_beta * beta * (1 - beta)
                store(rows, (0, 0), dq)
                store(rows, (1, 0), dk)
                store(rows, (2, 0), dv)
                df = repeat(d_logit, W) * load(recurrent, (heads, 3 * D, 0), W)
                for j in range(D):
                    d = repeat(load(rows, (0, j * P), P), W)
                    df = muladd(d, load(recurrent, (heads, 3 * j, 0), W), df)
                    d = repeat(load(rows, (1, j * P), P), W)
                    df = muladd(d, load(recurrent, (heads, 3 * j + 1, 0), W), df)
                    d = repeat(load(rows, (2, j * P), P), W)
                    df = muladd(d, load(recurrent, (heads, 3 * j + 2, 0), W), df)
                if t:
                    feedback = tanh(load_group(y, (b, h, t - 1, 0), D, N, M, W))
                else:
                    feedback = tanh(load_group(initial, (b, h, 0), D, N, M, W))
                counts = repeat(load_group(counted, (b, h, t), 1, N, M, P), W)
                d_output = select(counts, df * (1 - feedback * feedback), d_read)
                store_group(fed_back, (b, h, t, 0), D, N, M, feedback)
                store_group(d_inputs, (b, h, t, 0), D, N, M, dq)
                store_group(d_inputs, (b, h, t, D), D, N, M, dk)
                store_group(d_inputs, (b, h, t, 2 * D), D, N, M, dv)
                store_group(d_inputs, (b, h, t, 3 * D), 1, N, M, d_logit)
            for j in range(D):
                store_group(d_memory, (b, h, j, 0), D, N, M, load(dS, (j, 0), W))
            store_group(d_initial, (b, h, 0), D, N, M, d_output)

    sizes = f"head_dim {D}, {P} heads at a time, {dtype}"
    return (
        Kernel(forward, f"recurrent_delta ({sizes})"),
        Kernel(backward, f"recurrent_delta's backward pass ({sizes})"),
    )
