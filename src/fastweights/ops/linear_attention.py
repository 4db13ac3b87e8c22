"""Linear attention: a memory that adds every association (the sum rule).

    S_t = S_{t-1} + k_t v_t^T,   y_t = q_t S_t
    z_t = z_{t-1} + k_t,         y_t = q_t S_t / (q_t . z_t + 1e-6)   with normalize=True

Katharopoulos et al. (2020); Schlag, Irie, Schmidhuber (2021), Eq. 16-19; S [K, V] is the
transpose of the paper's W. Read after the write. q and k come mapped from the layer; nothing is
scaled here. The papers' normaliser has no 1e-6; their code has it.

The arithmetic and the state are in float32 at least, autocast or not; y has the dtype of q.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastweights.kernels.backend import Backend, resolve_backend
from fastweights.ops.chunks import balanced_chunk, merge_chunks, split_chunks
from fastweights.ops.mask import check_mask, where_counted
from fastweights.ops.precision import autocast_off, widest_dtype

NORMALIZER_EPS = 1e-6


class LinearAttentionState(NamedTuple):
    """memory [B, H, K, V]: the sum of k v^T; key_sum [B, H, K]: the sum of k."""

    memory: Tensor
    key_sum: Tensor


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: LinearAttentionState | None = None,
    *,
    normalize: bool = False,
    mask: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, LinearAttentionState]:
    """q, k [B, T, H, K], v [B, T, H, V], state (None: zeros).

    A step where mask [B, T] is False leaves the state as it was and reads 0.

    Returns y [B, T, H, V] and the state after the last step. Backend "cpu" is a fused loop over
    steps; "torch" runs the step for T = 1 and the chunk form for any other T. Raises ValueError for
    shapes that do not fit and for a missing backend.
    """
    _check_shapes(q, k, v, state, "B T H")
    if mask is not None:
        check_mask(mask, v)
        k = where_counted(k, mask)
        y, state = linear_attention(q, k, v, state, normalize=normalize, backend=backend)
        return where_counted(y, mask), state
    dtype = widest_dtype(q, k, v, *(state or ()))
    if resolve_backend(backend, "linear_attention", q.device, dtype) == "cpu":
        from fastweights.kernels.cpu import linear_attention as kernel

        return _read_and_add(kernel.linear_attention, q, k, v, state, normalize)
    if q.shape[1] > 1:
        return linear_attention_chunk(q, k, v, state, normalize=normalize)
    y, state = linear_attention_step(q[:, 0], k[:, 0], v[:, 0], state, normalize=normalize)
    return y[:, None], state


def linear_attention_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: LinearAttentionState | None = None,
    *,
    normalize: bool = False,
) -> tuple[Tensor, LinearAttentionState]:
    """One step, the definition: q, k [B, H, K], v [B, H, V] -> y [B, H, V], state."""
    _check_shapes(q, k, v, state, "B H")
    dtype = widest_dtype(q, k, v, *(state or ()))
    S, z = _initial_state(k, v, state, dtype)
    query, k, v = (x.to(dtype) for x in (q, k, v))
    with autocast_off(q):
        S = S + k[..., :, None] * v[..., None, :]
        z = z + k
        y = torch.einsum("bhk,bhkv->bhv", query, S)
        if normalize:
            y = y / ((query * z).sum(-1, keepdim=True) + NORMALIZER_EPS)
    return y.to(q.dtype), LinearAttentionState(S, z)


def linear_attention_recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: LinearAttentionState | None = None,
    *,
    normalize: bool = False,
) -> tuple[Tensor, LinearAttentionState]:
    """The loop over steps, the reference. Autograd keeps the memory of every step."""
    _check_shapes(q, k, v, state, "B T H")
    outputs = []
    for t in range(q.shape[1]):
        y, state = linear_attention_step(q[:, t], k[:, t], v[:, t], state, normalize=normalize)
        outputs.append(y)
    assert state is not None  # T >= 1
    return torch.stack(outputs, 1), state


def linear_attention_chunk(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: LinearAttentionState | None = None,
    *,
    normalize: bool = False,
    chunk_size: int = 64,
) -> tuple[Tensor, LinearAttentionState]:
    """Parallel inside chunks of at most `chunk_size` steps, for any T.

    A chunk that starts from S reads Q S + tril(Q K^T) V. The backward pass keeps the memory of
    each chunk (K V / chunk_size numbers a step and head) and none of a single step; it is
    differentiable once.
    """
    _check_shapes(q, k, v, state, "B T H")
    _, T, H, _ = q.shape
    chunk = balanced_chunk(T, chunk_size)

    def sum_rule(q: Tensor, k: Tensor, v: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        chunks = [split_chunks(x, chunk) for x in (q, k, v)]
        y, last = _LinearAttentionChunk.apply(*chunks, memory.flatten(0, 1))
        return merge_chunks(y, T, H), last.view(memory.shape)

    return _read_and_add(sum_rule, q, k, v, state, normalize)


def _read_and_add(
    sum_rule: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: LinearAttentionState | None,
    normalize: bool,
) -> tuple[Tensor, LinearAttentionState]:
    """The op by `sum_rule`, which maps q, k, v and a memory to y and the last memory.

    The normaliser is one more column: values of 1, whose memory is the key sum.
    """
    dtype = widest_dtype(q, k, v, *(state or ()))
    S, z = _initial_state(k[:, 0], v[:, 0], state, dtype)
    query, k, v = (x.to(dtype) for x in (q, k, v))
    if normalize:
        v = torch.cat([v, torch.ones_like(v[..., :1])], -1)
        y, S = sum_rule(query, k, v, torch.cat([S, z[..., None]], -1))
        y = y[..., :-1] / (y[..., -1:] + NORMALIZER_EPS)
        S, z = S[..., :-1], S[..., -1]
    else:
        y, S = sum_rule(query, k, v, S)
        z = z + k.sum(1)
    return y.to(q.dtype), LinearAttentionState(S, z)


def linear_attention_weights(q: Tensor, k: Tensor, *, normalize: bool = False) -> Tensor:
    """How much of each value is read from the memory after the last step: w [B, H, M, T] with
    q_m S_T = sum_t w_mt v_t, for queries q [B, M, H, K], k [B, T, H, K] and a memory that was
    empty; divided by their sum + 1e-6 with normalize=True."""
    with autocast_off(q):
        weights = torch.einsum("bmhk,bthk->bhmt", q, k)
    return normalize_weights(weights) if normalize else weights


def normalize_weights(weights: Tensor) -> Tensor:
    """Weights [..., T] divided by their sum + 1e-6."""
    return weights / (weights.sum(-1, keepdim=True) + NORMALIZER_EPS)


class _LinearAttentionChunk(torch.autograd.Function):
    """q, k [N, G, C, K], v [N, G, C, V], S [G, K, V] -> y [N, G, C, V], S.

    N chunks of C steps; G = B*H independent memories.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, initial: Tensor
    ) -> tuple[Tensor, Tensor]:
        N, G, _, K = k.shape
        with autocast_off(q):
            kT = k.mT
            S = k.new_empty(N + 1, G, K, v.shape[-1])
            S[0] = initial
            for n in range(N):
                torch.baddbmm(S[n], kT[n], v[n], out=S[n + 1])
            y = q @ S[:-1]
            y += (q @ kT).tril_() @ v
        ctx.save_for_backward(q, k, v, S)
        return y, S[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, d_last: Tensor) -> tuple[Tensor, ...]:
        q, k, v, S = ctx.saved_tensors
        N, qT, S = len(k), q.mT, S[:-1]
        with autocast_off(q):
            dS = S.new_empty(N + 1, *S.shape[1:])  # dS[n]: the gradient of the memory before n
            dS[N] = d_last
            for n in reversed(range(N)):
                torch.baddbmm(dS[n + 1], qT[n], dy[n], out=dS[n])
            d_scores = (dy @ v.mT).tril_()
            dq = dy @ S.mT + d_scores @ k
            dk = v @ dS[1:].mT + d_scores.mT @ q
            dv = k @ dS[1:] + (q @ k.mT).tril_().mT @ dy
        return dq, dk, dv, dS[0]


def _initial_state(
    k: Tensor, v: Tensor, state: LinearAttentionState | None, dtype: torch.dtype
) -> LinearAttentionState:
    """k [B, H, K], v [B, H, V] -> the given state in `dtype`, or zeros."""
    if state is not None:
        return LinearAttentionState(state.memory.to(dtype), state.key_sum.to(dtype))
    memory = torch.zeros(*k.shape, v.shape[-1], dtype=dtype, device=k.device)
    return LinearAttentionState(memory, torch.zeros(k.shape, dtype=dtype, device=k.device))


def _check_shapes(
    q: Tensor, k: Tensor, v: Tensor, state: LinearAttentionState | None, axes: str
) -> None:
    lead = v.shape[:-1]
    fits = len(lead) == len(axes.split()) and q.shape == k.shape and q.dim() == len(lead) + 1
    fits = fits and q.shape[:-1] == lead and 0 not in lead
    if fits and state is not None:
        key_sum = (lead[0], lead[-1], k.shape[-1])
        fits = state.key_sum.shape == key_sum and state.memory.shape == (*key_sum, v.shape[-1])
    if not fits:
        given = None if state is None else [list(x.shape) for x in state]
        raise ValueError(
            f"linear attention needs q, k [{axes} K], v [{axes} V], state ([B H K V], [B H K]) "
            f"and T >= 1, got q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}, "
            f"state {given}"
        )
