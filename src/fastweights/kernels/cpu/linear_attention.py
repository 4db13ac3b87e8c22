"""The sum rule, a loop over steps with a block of the memory in the first-level cache.

Katharopoulos et al. (2020); see `fastweights.ops.linear_attention`. The gradients are the rule
again, with its arguments exchanged:

    dq_t = dy_t S_t^T    in the direction of time, from the transposed first memory
    dk_t = v_t dS_t^T    against it, from the transposed gradient of the last memory
    dv_t = k_t dS_t      against it, from the gradient of the last memory; ends as that of the first

so that no sum over lanes is needed, and the memories are built up as in the forward pass: taken
back from the last one, a growing sum would lose its first steps. Nothing is kept but the inputs.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from fastweights.kernels.backend import REGISTER_BLOCK_BYTES
from fastweights.kernels.cpu.columns import column_lanes, pad_columns, unit_stride
from fastweights.kernels.cpu.kernel import Kernel
from fastweights.kernels.cpu.vectors import load, muladd, number, prefetch, store, zeros


def linear_attention(q: Tensor, k: Tensor, v: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """q, k [B, T, H, K], v [B, T, H, V], memory [B, H, K, V], of one dtype, float32 or float64
    -> y [B, T, H, V] and the last memory."""
    return _sum_rule(q, k, v, memory, False)


@torch.library.custom_op("fastweights::linear_attention", mutates_args=(), device_types="cpu")
def _sum_rule(
    q: Tensor, k: Tensor, v: Tensor, memory: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """reverse: from the last step to the first."""
    B, _, H, V = v.shape
    K = q.shape[-1]
    # A block and the values and reads of two steps have to fit in the registers.
    lanes = min(column_lanes(V, v.dtype), REGISTER_BLOCK_BYTES // 2 // v.dtype.itemsize)
    q, k = unit_stride(q), unit_stride(k)
    v, memory = pad_columns(v, lanes), pad_columns(memory, lanes)
    y, last = v.new_empty(v.shape), memory.new_empty(memory.shape)
    _kernel(lanes, reverse, v.dtype).run(
        B * H * (v.shape[-1] // lanes),
        2 * K * v.numel(),
        [q, k, v, memory, y, last],
        scratch=(K, lanes),
    )
    if v.shape[-1] == V:
        return y, last
    return y[..., :V].contiguous(), last[..., :V].contiguous()


@_sum_rule.register_fake
def _shapes(
    q: Tensor, k: Tensor, v: Tensor, memory: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    return v.new_empty(v.shape), memory.new_empty(memory.shape)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, dy: Tensor, d_last: Tensor) -> tuple[Any, ...]:
    q, k, v, memory = ctx.saved_tensors
    dq, _ = _sum_rule(dy, v, k, memory.mT, ctx.reverse)
    dk, _ = _sum_rule(v, dy, q, d_last.mT, not ctx.reverse)
    dv, d_memory = _sum_rule(k, q, dy, d_last, not ctx.reverse)
    return dq, dk, dv, d_memory, None


_sum_rule.register_autograd(_differentiate, setup_context=_save)


@functools.cache
def _kernel(W: int, reverse: bool, dtype: torch.dtype) -> Kernel:
    """The rule for blocks of W columns. An item is one block of one memory.

    Two steps a pass over the block: half as many loads and stores of the memory.
    """

    def loop(
        q: Any, k: Any, v: Any, initial: Any, y: Any, last: Any,
        S: Any, start: int, stop: int,
    ) -> None:  # fmt: skip
        _, T, H, V = v.shape
        K = q.shape[-1]
        for item in range(start, stop):
            head, c = divmod(item, V // W)
            b, h = divmod(head, H)
            c *= W
            for a in range(K):
                store(S, (a, 0), load(initial, (b, h, a, c), W))
            for n in range(0, T - 1, 2):
                t = T - 1 - n if reverse else n
                following = t - 1 if reverse else t + 1
                for now in (t, following):
                    soon = now - 2 if reverse else now + 2
                    prefetch(v, (b, soon, h, c), W)
                    for a in range(0, K, W):
                        prefetch(k, (b, soon, h, a), W)
                    for a in range(0, K, W):
                        prefetch(q, (b, soon, h, a), W)
                value, next_value = load(v, (b, t, h, c), W), load(v, (b, following, h, c), W)
                read, next_read = zeros(v, W), zeros(v, W)
                for a in range(K):
                    s = muladd(number(k, (b, t, h, a)), value, load(S, (a, 0), W))
                    read = muladd(number(q, (b, t, h, a)), s, read)
                    s = muladd(number(k, (b, following, h, a)), next_value, s)
                    next_read = muladd(number(q, (b, following, h, a)), s, next_read)
                    store(S, (a, 0), s)
                store(y, (b, t, h, c), read)
                store(y, (b, following, h, c), next_read)
            if T % 2:
                t = 0 if reverse else T - 1
                value, read = load(v, (b, t, h, c), W), zeros(v, W)
                for a in range(K):
                    s = muladd(number(k, (b, t, h, a)), value, load(S, (a, 0), W))
                    read = muladd(number(q, (b, t, h, a)), s, read)
                    store(S, (a, 0), s)
                store(y, (b, t, h, c), read)
            for a in range(K):
                store(last, (b, h, a, c), load(S, (a, 0), W))

    name = "linear_attention's backward pass" if reverse else "linear_attention"
    return Kernel(loop, f"{name} ({W} columns, {dtype})")
