"""The element-wise LSTM, a loop over steps for a few vectors of cells at a time.

Irie et al. (2023); see `fastweights.ops.e_lstm`. A step waits for an exponential and a tanh of the
step before, so a loop has to carry several vectors to keep the machine busy. The gates are computed
again in the backward pass: beyond its inputs it keeps the cells, D numbers a step, which are the
output. Where D does not divide into whole vectors, cells and inputs are padded, and the backward
pass keeps the padded ones: 3 D numbers a step, D rounded up.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from fastweights.kernels.backend import REGISTER_BLOCK_BYTES
from fastweights.kernels.cpu.columns import column_lanes, pad_columns
from fastweights.kernels.cpu.kernel import Kernel
from fastweights.kernels.cpu.vectors import exp, load, muladd, prefetch, store, tanh, zeros

GROUP = 4
"""Vectors of an item."""


def e_lstm(
    z: Tensor, f: Tensor, peephole_z: Tensor, peephole_f: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor]:
    """z, f [B, T, D], peephole_z, peephole_f [D], cell [B, D], of one dtype, float32 or float64
    -> the cells [B, T, D] and the last one."""
    D = z.shape[-1]
    lanes = min(column_lanes(D, z.dtype), REGISTER_BLOCK_BYTES // 2 // z.dtype.itemsize)
    inputs = z, f, peephole_z, peephole_f, cell
    cells, last = _forward(*(pad_columns(x, lanes) for x in inputs), lanes)
    return cells[..., :D], last[..., :D]


@torch.library.custom_op("fastweights::e_lstm", mutates_args=(), device_types="cpu")
def _forward(
    z: Tensor, f: Tensor, peephole_z: Tensor, peephole_f: Tensor, cell: Tensor, lanes: int
) -> tuple[Tensor, Tensor]:
    cells, last = _forward_shapes(z, f, peephole_z, peephole_f, cell, lanes)
    forward, _ = _kernels(lanes, z.dtype)
    forward.run(
        _num_items(cell, lanes),
        20 * z.numel(),
        [z, f, peephole_z, peephole_f, cell, cells, last],
        scratch=(GROUP, lanes),
    )
    return cells, last


@_forward.register_fake
def _forward_shapes(
    z: Tensor, f: Tensor, peephole_z: Tensor, peephole_f: Tensor, cell: Tensor, lanes: int
) -> tuple[Tensor, Tensor]:
    return z.new_empty(z.shape), cell.new_empty(cell.shape)


@torch.library.custom_op("fastweights::e_lstm_backward", mutates_args=(), device_types="cpu")
def _backward(
    z: Tensor,
    f: Tensor,
    peephole_z: Tensor,
    peephole_f: Tensor,
    cell: Tensor,
    cells: Tensor,
    d_cells: Tensor,
    d_last: Tensor,
    lanes: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dz, df, d_cell = z.new_empty(z.shape), z.new_empty(z.shape), cell.new_empty(cell.shape)
    # One part a sequence, added up below.
    d_peephole_z, d_peephole_f = torch.empty_like(d_cell), torch.empty_like(d_cell)
    _, backward = _kernels(lanes, z.dtype)
    backward.run(
        _num_items(cell, lanes),
        30 * z.numel(),
        [
            z, f, peephole_z, peephole_f, cell, cells,
            pad_columns(d_cells, lanes), pad_columns(d_last, lanes),
            dz, df, d_peephole_z, d_peephole_f, d_cell,
        ],
        scratch=(3, GROUP, lanes),
    )  # fmt: skip
    return dz, df, d_peephole_z.sum(0), d_peephole_f.sum(0), d_cell


@_backward.register_fake
def _backward_shapes(
    z: Tensor, f: Tensor, peephole_z: Tensor, peephole_f: Tensor, cell: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = z, f, peephole_z, peephole_f, cell
    return tuple(x.new_empty(x.shape) for x in inputs)  # type: ignore[return-value]


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.lanes = inputs
    ctx.save_for_backward(*tensors, output[0])


def _differentiate(ctx: Any, d_cells: Tensor, d_last: Tensor) -> tuple[Any, ...]:
    return *_backward(*ctx.saved_tensors, d_cells, d_last, ctx.lanes), None


_forward.register_autograd(_differentiate, setup_context=_save)


def _num_items(cell: Tensor, lanes: int) -> int:
    return -(-cell.numel() // (GROUP * lanes))


@functools.cache
def _kernels(W: int, dtype: torch.dtype) -> tuple[Kernel, Kernel]:
    """Forward and backward for vectors of W cells.

    Vector i holds the cells from c = (i mod (D / W)) W on of sequence i div (D / W); an item is
    GROUP of them.
    """

    def forward(
        z: Any, f: Any, peephole_z: Any, peephole_f: Any, initial: Any, cells: Any, last: Any,
        carried: Any, start: int, stop: int,
    ) -> None:  # fmt: skip
        B, T, D = z.shape
        blocks = D // W
        for item in range(start, stop):
            first = item * GROUP
            vectors = range(first, min(first + GROUP, B * blocks))
            for i in vectors:
                b, block = divmod(i, blocks)
                store(carried, (i - first, 0), load(initial, (b, block * W), W))
            for t in range(T):
                for i in vectors:
                    b, block = divmod(i, blocks)
                    c = block * W
                    prefetch(z, (b, t + 2, c), W)
                    prefetch(f, (b, t + 2, c), W)
                    cell = load(carried, (i - first, 0), W)
                    z_t = muladd(load(peephole_z, (c,), W), cell, load(z, (b, t, c), W))
                    f_t = muladd(load(peephole_f, (c,), W), cell, load(f, (b, t, c), W))
                    e = exp(-f_t)
                    cell = muladd(e / (1.0 + e), tanh(z_t) - cell, cell)
                    store(cells, (b, t, c), cell)
                    store(carried, (i - first, 0), cell)
            for i in vectors:
                b, block = divmod(i, blocks)
                store(last, (b, block * W), load(carried, (i - first, 0), W))

    def backward(
        z: Any, f: Any, peephole_z: Any, peephole_f: Any, initial: Any, cells: Any,
        d_cells: Any, d_last: Any,
        dz: Any, df: Any, d_peephole_z: Any, d_peephole_f: Any, d_initial: Any,
        scratch: Any, start: int, stop: int,
    ) -> None:  # fmt: skip
        B, T, D = z.shape
        blocks = D // W
        carried, sum_z, sum_f = scratch[0], scratch[1], scratch[2]
        for item in range(start, stop):
            first = item * GROUP
            vectors = range(first, min(first + GROUP, B * blocks))
            for i in vectors:
                b, block = divmod(i, blocks)
                store(carried, (i - first, 0), load(d_last, (b, block * W), W))
                store(sum_z, (i - first, 0), zeros(z, W))
                store(sum_f, (i - first, 0), zeros(z, W))
            for t in range(T - 1, -1, -1):
                for i in vectors:
                    b, block = divmod(i, blocks)
                    c = block * W
                    prefetch(z, (b, t - 2, c), W)
                    prefetch(f, (b, t - 2, c), W)
                    prefetch(cells, (b, t - 2, c), W)
                    prefetch(d_cells, (b, t - 2, c), W)
                    cell = load(cells, (b, t - 1, c), W) if t else load(initial, (b, c), W)
                    weight_z, weight_f = load(peephole_z, (c,), W), load(peephole_f, (c,), W)
                    candidate = tanh(muladd(weight_z, cell, load(z, (b, t, c), W)))
                    e = exp(-muladd(weight_f, cell, load(f, (b, t, c), W)))
                    leak = e / (1.0 + e)
                    keep = 1.0 - leak
                    d = load(carried, (i - first, 0), W) + load(d_cells, (b, t, c), W)
                    dz_t = d * leak * (1.0 - candidate * candidate)
                    df_t = d * (cell - candidate) * leak * keep
                    store(dz, (b, t, c), dz_t)
                    store(df, (b, t, c), df_t)
                    d = muladd(weight_f, df_t, muladd(weight_z, dz_t, d * keep))
                    store(carried, (i - first, 0), d)
                    store(sum_z, (i - first, 0), muladd(dz_t, cell, load(sum_z, (i - first, 0), W)))
                    store(sum_f, (i - first, 0), muladd(df_t, cell, load(sum_f, (i - first, 0), W)))
            for i in vectors:
                b, block = divmod(i, blocks)
                store(d_initial, (b, block * W), load(carried, (i - first, 0), W))
                store(d_peephole_z, (b, block * W), load(sum_z, (i - first, 0), W))
                store(d_peephole_f, (b, block * W), load(sum_f, (i - first, 0), W))

    sizes = f"{W} cells, {dtype}"
    return (
        Kernel(forward, f"e_lstm ({sizes})"),
        Kernel(backward, f"e_lstm's backward pass ({sizes})"),
    )
