"""The kernel function of DPFP, one key after the other; see `fastweights.ops.dpfp_similarity`.

The products z of a query and a key lie in scratch memory with nu of them repeated on either side,
so that a roll is a load from another place. The backward pass makes them again: nothing is kept but
the inputs.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from fastweights.kernels.cpu.columns import column_lanes, unit_stride
from fastweights.kernels.cpu.kernel import Kernel
from fastweights.kernels.cpu.vectors import load, muladd, relu, select, store, total, zeros


def dpfp_similarity(q: Tensor, k: Tensor, nu: int) -> Tensor:
    """q [B, M, D], k [B, T, D], both float32 or both float64 -> [B, M, T]."""
    return _forward(q, k, nu)


@torch.library.custom_op("fastweights::dpfp_similarity", mutates_args=(), device_types="cpu")
def _forward(q: Tensor, k: Tensor, nu: int) -> Tensor:
    similarity = _forward_shape(q, k, nu)
    forward, _ = _kernels(q.shape[-1], nu, _lanes(q), q.dtype)
    forward.run(
        len(q), _work(q, k, nu), [unit_stride(q), unit_stride(k), similarity], _scratch(q, nu)
    )
    return similarity


@_forward.register_fake
def _forward_shape(q: Tensor, k: Tensor, nu: int) -> Tensor:
    return q.new_empty(len(q), q.shape[1], k.shape[1])


@torch.library.custom_op(
    "fastweights::dpfp_similarity_backward", mutates_args=(), device_types="cpu"
)
def _backward(q: Tensor, k: Tensor, gradient: Tensor, nu: int) -> tuple[Tensor, Tensor]:
    dq, dk = _backward_shapes(q, k, gradient, nu)
    dk.zero_()
    _, backward = _kernels(q.shape[-1], nu, _lanes(q), q.dtype)
    tensors = [unit_stride(q), unit_stride(k), gradient, dq, dk]
    backward.run(len(q), 3 * _work(q, k, nu), tensors, _scratch(q, nu))
    return dq, dk


@_backward.register_fake
def _backward_shapes(q: Tensor, k: Tensor, gradient: Tensor, nu: int) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.nu = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
    return *_backward(*ctx.saved_tensors, gradient, ctx.nu), None


_forward.register_autograd(_differentiate, setup_context=_save)


def _lanes(q: Tensor) -> int:
    """Of vectors that fill D exactly: a power of two that divides it."""
    D = q.shape[-1]
    return min(D & -D, column_lanes(D, q.dtype))


def _work(q: Tensor, k: Tensor, nu: int) -> int:
    return q.shape[1] * k.numel() * (2 * nu + 4)


def _scratch(q: Tensor, nu: int) -> tuple[int, int]:
    """u of the query, its gradient, u of a key, and z with nu products on either side."""
    return 4, 2 * (q.shape[-1] + nu)


@functools.cache
def _kernels(D: int, nu: int, W: int, dtype: torch.dtype) -> tuple[Kernel, Kernel]:
    """Forward and backward for keys of D numbers, W at a time. An item is a sequence."""
    N = 2 * D

    def forward(q: Any, k: Any, similarity: Any, scratch: Any, start: int, stop: int) -> None:
        u, z = scratch[0], scratch[3]
        for b in range(start, stop):
            for m in range(q.shape[1]):
                for i in range(0, D, W):
                    x = load(q, (b, m, i), W)
                    store(u, (i,), relu(x))
                    store(u, (D + i,), relu(-x))
                for t in range(k.shape[1]):
                    for i in range(0, D, W):
                        x = load(k, (b, t, i), W)
                        store(z, (nu + i,), relu(x) * load(u, (i,), W))
                        store(z, (nu + D + i,), relu(-x) * load(u, (D + i,), W))
                    for j in range(nu):
                        z[j] = z[N + j]
                    found = zeros(q, W)
                    for i in range(0, N, W):
                        rolled = zeros(q, W)
                        for j in range(nu):
                            rolled = rolled + load(z, (i + j,), W)
                        found = muladd(load(z, (nu + i,), W), rolled, found)
                    similarity[b, m, t] = total(found)

    def backward(
        q: Any, k: Any, gradient: Any, dq: Any, dk: Any, scratch: Any, start: int, stop: int
    ) -> None:
        u, du, u_k, z = scratch[0], scratch[1], scratch[2], scratch[3]
        for b in range(start, stop):
            for m in range(q.shape[1]):
                for i in range(0, D, W):
                    x = load(q, (b, m, i), W)
                    store(u, (i,), relu(x))
                    store(u, (D + i,), relu(-x))
                    store(du, (i,), zeros(q, W))
                    store(du, (D + i,), zeros(q, W))
                for t in range(k.shape[1]):
                    g = gradient[b, m, t]
                    for i in range(0, D, W):
                        x = load(k, (b, t, i), W)
                        store(u_k, (i,), relu(x))
                        store(u_k, (D + i,), relu(-x))
                        store(z, (nu + i,), relu(x) * load(u, (i,), W))
                        store(z, (nu + D + i,), relu(-x) * load(u, (D + i,), W))
                    for j in range(nu):
                        z[j] = z[N + j]
                        z[nu + N + j] = z[nu + j]
                    for i in range(0, D, W):
                        dz, dz_minus = zeros(q, W), zeros(q, W)
                        for j in range(1, nu + 1):
                            dz = dz + load(z, (nu + i - j,), W) + load(z, (nu + i + j,), W)
                            at = nu + D + i
                            dz_minus = dz_minus + load(z, (at - j,), W) + load(z, (at + j,), W)
                        dz, dz_minus = dz * g, dz_minus * g
                        plus, minus = load(u_k, (i,), W), load(u_k, (D + i,), W)
                        store(du, (i,), muladd(dz, plus, load(du, (i,), W)))
                        store(du, (D + i,), muladd(dz_minus, minus, load(du, (D + i,), W)))
                        none = zeros(q, W)
                        dx = select(plus, dz * load(u, (i,), W), none)
                        dx = dx - select(minus, dz_minus * load(u, (D + i,), W), none)
                        store(dk, (b, t, i), load(dk, (b, t, i), W) + dx)
                for i in range(0, D, W):
                    none = zeros(q, W)
                    dx = select(load(u, (i,), W), load(du, (i,), W), none)
                    dx = dx - select(load(u, (D + i,), W), load(du, (D + i,), W), none)
                    store(dq, (b, m, i), dx)

    sizes = f"head_dim {D}, nu {nu}, {dtype}"
    return Kernel(forward, f"dpfp_similarity ({sizes})"), Kernel(
        backward, f"dpfp_similarity's backward pass ({sizes})"
    )
