"""The kernel function of FAVOR+; see `fastweights.ops.favor_similarity`.

A matrix product makes the projections p_i of a key. One pass over them takes the exponentials,
sums, and leaves in their place the slopes, the derivatives of the similarity with respect to them:

    similarity = sum_i (exp(p_i + r_i - h) + exp(-p_i - r_i - h)) / (2 m),
    slope_i = (exp(p_i + r_i - h) - exp(-p_i - r_i - h)) / (2 m),

with r_i the projections of the query, h half the squared lengths of query and key together, and m
the number of directions. The slopes are also the derivatives with respect to r_i, so the backward
pass is one more matrix product, without exponentials. A feature above exp(88) counts as that
(float64: exp(709)), one below the smallest normal number as 0.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from fastweights.kernels.cpu.columns import column_lanes, pad_columns
from fastweights.kernels.cpu.kernel import Kernel
from fastweights.kernels.cpu.vectors import exp, load, store, total, zeros


def favor_similarity(q: Tensor, k: Tensor, projection: Tensor, temperature: float) -> Tensor:
    """q [B, M, D], k [B, T, D], projection [m, D], all float32 or all float64 -> [B, M, T]."""
    num_directions = len(projection)
    lanes = column_lanes(num_directions, projection.dtype)
    directions = pad_columns(temperature * projection.mT, lanes)
    similarity, _ = _forward(q, k, directions, num_directions, temperature)
    return similarity


@torch.library.custom_op("fastweights::favor_similarity", mutates_args=(), device_types="cpu")
def _forward(
    q: Tensor, k: Tensor, directions: Tensor, num_directions: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """The similarities and the slopes [B, M, T, P], for directions [D, P] that contain the
    temperature; columns of zeros after the first `num_directions` fill the vectors."""
    similarity, slopes = _forward_shapes(q, k, directions, num_directions, temperature)
    of_query = q.new_empty(2, *q.shape[:2], directions.shape[1])
    # Autocast would lower the precision of these products, were they not those with `out`.
    torch.matmul(q, directions, out=of_query[0])
    torch.matmul(k[:, None].expand(-1, q.shape[1], -1, -1), directions, out=slopes)
    torch.neg(of_query[0], out=of_query[1])
    of_query.sub_(_half_square(q, temperature)[..., None]).exp_().div_(2 * num_directions)
    of_query[..., num_directions:] = 0
    kernel = _kernel(column_lanes(num_directions, q.dtype), q.dtype)
    work = 40 * slopes.numel()
    kernel.run(len(q), work, [of_query, _half_square(k, temperature), slopes, similarity])
    return similarity, slopes


@_forward.register_fake
def _forward_shapes(
    q: Tensor, k: Tensor, directions: Tensor, num_directions: int, temperature: float
) -> tuple[Tensor, Tensor]:
    sizes = len(q), q.shape[1], k.shape[1]
    return q.new_empty(sizes), q.new_empty(*sizes, directions.shape[1])


@torch.library.custom_op(
    "fastweights::favor_similarity_backward", mutates_args=(), device_types="cpu"
)
def _backward(
    q: Tensor,
    k: Tensor,
    directions: Tensor,
    similarity: Tensor,
    slopes: Tensor,
    gradient: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Every slope pulls along its direction, and the squared lengths push back."""
    pull = slopes.new_empty(*slopes.shape[:3], q.shape[-1])
    torch.matmul(slopes, directions.mT, out=pull)
    pull *= gradient[..., None]
    push = temperature**2 * gradient * similarity
    dq = pull.sum(2).addcmul_(push.sum(2)[..., None], q, value=-1)
    dk = pull.sum(1).addcmul_(push.sum(1)[..., None], k, value=-1)
    return dq, dk


@_backward.register_fake
def _backward_shapes(
    q: Tensor,
    k: Tensor,
    directions: Tensor,
    similarity: Tensor,
    slopes: Tensor,
    gradient: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    q, k, directions, _, ctx.temperature = inputs
    ctx.save_for_backward(q, k, directions, *output)
    ctx.set_materialize_grads(False)  # zeros for the slopes would cost as much as making them


def _differentiate(ctx: Any, gradient: Tensor | None, d_slopes: Any) -> tuple[Any, ...]:
    if gradient is None:
        return (None,) * 5
    return *_backward(*ctx.saved_tensors, gradient, ctx.temperature), None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)


def _half_square(x: Tensor, temperature: float) -> Tensor:
    """h(x) = |temperature x|^2 / 2, over the last axis."""
    return torch.linalg.vector_norm(x, dim=-1).square_().mul_(temperature**2 / 2)


@functools.cache
def _kernel(W: int, dtype: torch.dtype) -> Kernel:
    """For a multiple of W directions. An item is a sequence.

    The features of a query come divided by 2 m, with zeros where a direction is missing.
    """

    def forward(
        of_query: Any, half_square: Any, slopes: Any, similarity: Any, scratch: Any,
        start: int, stop: int,
    ) -> None:  # fmt: skip
        _, M, T, P = slopes.shape
        for b in range(start, stop):
            for m in range(M):
                for t in range(T):
                    h = half_square[b, t]
                    found = zeros(slopes, W)
                    for i in range(0, P, W):
                        p = load(slopes, (b, m, t, i), W)
                        up = exp(p - h) * load(of_query, (0, b, m, i), W)
                        down = exp(-p - h) * load(of_query, (1, b, m, i), W)
                        store(slopes, (b, m, t, i), up - down)
                        found = found + (up + down)
                    similarity[b, m, t] = total(found)

    return Kernel(forward, f"favor_similarity ({W} directions at a time, {dtype})")
