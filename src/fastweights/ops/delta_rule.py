"""The delta rule: a memory that writes the error of its own prediction.

    u_t = beta_t (v_t - k_t S_{t-1}),   S_t = S_{t-1} + k_t u_t^T,   y_t = q_t S_t

Schlag, Irie, Schmidhuber (2021), Eq. 20-25; S [K, V] is the transpose of the paper's W. Read
after the write. q and k come mapped (and normalised) from the layer and beta after its sigmoid,
in [0, 2]; nothing is scaled here. The memory decays or turns along k by 1 - beta |k|^2, so it
stays bounded for 0 <= beta |k|^2 <= 2.

The arithmetic and the memory are in float32 at least, autocast or not; y has the dtype of q.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastweights.kernels.backend import Backend, resolve_backend
from fastweights.ops.chunks import balanced_chunk, merge_chunks, split_chunks
from fastweights.ops.mask import check_mask, where_counted
from fastweights.ops.precision import autocast_off, widest_dtype


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    memory: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """q, k [B, T, H, K], v [B, T, H, V], beta [B, T, H], memory [B, H, K, V] (None: zeros).

    A step where mask [B, T] is False leaves the memory as it was and reads 0.

    Returns y [B, T, H, V] and the memory after the last step. Backend "cpu" is a fused loop over
    steps; "torch" runs the step for T = 1 and the chunk form for any other T. Raises ValueError for
    shapes that do not fit and for a missing backend.
    """
    check_shapes(q, k, v, beta, memory, "B T H")
    if mask is not None:
        check_mask(mask, v)
        beta = beta.masked_fill(~mask[..., None], 0)
        y, memory = delta_rule(q, k, v, beta, memory, backend=backend)
        return where_counted(y, mask), memory
    dtype = widest_dtype(q, k, v, beta, memory)
    if resolve_backend(backend, "delta_rule", q.device, dtype) == "cpu":
        from fastweights.kernels.cpu import delta_rule as kernel

        S = initial_memory(k[:, 0], v[:, 0], memory, dtype)
        y, S = kernel.delta_rule(q.to(dtype), k.to(dtype), v.to(dtype), beta.to(dtype), S)
        return y.to(q.dtype), S
    if q.shape[1] > 1:
        return delta_rule_chunk(q, k, v, beta, memory)
    y, memory = delta_rule_step(q[:, 0], k[:, 0], v[:, 0], beta[:, 0], memory)
    return y[:, None], memory


def delta_rule_step(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One step, the definition: q, k [B, H, K], v [B, H, V], beta [B, H] -> y [B, H, V], memory."""
    check_shapes(q, k, v, beta, memory, "B H")
    dtype = widest_dtype(q, k, v, beta, memory)
    S = initial_memory(k, v, memory, dtype)
    query, k, v, beta = (x.to(dtype) for x in (q, k, v, beta))
    with autocast_off(q):
        error = v - torch.einsum("bhk,bhkv->bhv", k, S)
        S = S + k[..., :, None] * (beta[..., None] * error)[..., None, :]
        y = torch.einsum("bhk,bhkv->bhv", query, S)
    return y.to(q.dtype), S


def delta_rule_recurrent(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The loop over steps, the reference. Autograd keeps the memory of every step."""
    check_shapes(q, k, v, beta, memory, "B T H")
    outputs = []
    for t in range(q.shape[1]):
        y, memory = delta_rule_step(q[:, t], k[:, t], v[:, t], beta[:, t], memory)
        outputs.append(y)
    assert memory is not None  # T >= 1
    return torch.stack(outputs, 1), memory


def delta_rule_chunk(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    memory: Tensor | None = None,
    *,
    chunk_size: int = 32,
) -> tuple[Tensor, Tensor]:
    """Parallel inside chunks of at most `chunk_size` steps, for any T.

    Inside a chunk that starts from S, the writes solve one triangular system:
    (I + tril(diag(beta) K K^T, -1)) U = diag(beta) (V - K S). Yang et al. (2024),
    arXiv 2406.06484. The inverse is made by substitution: a Neumann or doubling series overflows
    for correlated keys. The backward pass keeps the memory of each chunk (K V / chunk_size
    numbers a step and head) and none of a single step; it is differentiable once.
    """
    check_shapes(q, k, v, beta, memory, "B T H")
    _, T, H, _ = q.shape
    dtype = widest_dtype(q, k, v, beta, memory)
    S = initial_memory(k[:, 0], v[:, 0], memory, dtype)
    chunk = balanced_chunk(T, chunk_size)
    chunks = [split_chunks(x.to(dtype), chunk) for x in (q, k, v, beta[..., None])]
    y, last = _DeltaRuleChunk.apply(*chunks, S.flatten(0, 1))
    return merge_chunks(y, T, H).to(q.dtype), last.view(S.shape)


class _DeltaRuleChunk(torch.autograd.Function):
    """q, k [N, G, C, K], v [N, G, C, V], beta [N, G, C, 1], S [G, K, V] -> y [N, G, C, V], S.

    N chunks of C steps; G = B*H independent memories.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, initial: Tensor
    ) -> tuple[Tensor, Tensor]:
        N, G, _, K = k.shape
        with autocast_off(q):
            kT = k.mT
            inverse = _inverse_of_identity_plus(((beta * k) @ kT).tril_(-1))
            solve = inverse * beta.mT
            S = k.new_empty(N + 1, G, K, v.shape[-1])
            S[0] = initial
            u = torch.empty_like(v)
            for n in range(N):
                error = torch.baddbmm(v[n], k[n], S[n], alpha=-1)
                torch.bmm(solve[n], error, out=u[n])
                torch.baddbmm(S[n], kT[n], u[n], out=S[n + 1])
            y = q @ S[:-1]
            y += (q @ kT).tril_() @ u
        ctx.save_for_backward(q, k, v, beta, inverse, u, S)
        return y, S[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, d_last: Tensor) -> tuple[Tensor, ...]:
        q, k, v, beta, inverse, u, S = ctx.saved_tensors
        N, kT, S = len(k), k.mT, S[:-1]
        with autocast_off(q):
            du = (q @ kT).tril_().mT @ dy
            # dS[n]: the gradient of the memory after chunk n; dS[-1] ends as that before chunk 0.
            from_reads = q.mT @ dy
            dS = torch.empty_like(S)
            d_memory = d_last
            r = torch.empty_like(v)  # the gradient of diag(beta) (v - k S)
            for n in reversed(range(N)):
                dS[n] = d_memory
                torch.bmm(inverse[n].mT, torch.baddbmm(du[n], k[n], d_memory), out=r[n])
                d_memory = torch.baddbmm(from_reads[n], kT[n], beta[n] * r[n], alpha=-1) + d_memory
            d_error = beta * r
            d_scores = (dy @ u.mT).tril_()
            d_system = (r @ u.mT).tril_(-1).neg_()
            d_written_key = d_system @ k - r @ S.mT  # of beta * k
            dq = dy @ S.mT + d_scores @ k
            dk = d_scores.mT @ q + u @ dS.mT + d_system.mT @ (beta * k) + beta * d_written_key
            d_beta = (r * v).sum(-1, keepdim=True) + (d_written_key * k).sum(-1, keepdim=True)
        return dq, dk, d_error, d_beta, d_memory


def _inverse_of_identity_plus(lower: Tensor) -> Tensor:
    """(I + lower)^-1 for strictly lower triangular [N, G, C, C]: substitution, refined once.

    The refinement X + X (I - (I + L) X) takes float32 errors for nearly equal keys at beta = 2
    down to those of a substitution in float64.
    """
    system = lower.flatten(0, 1)
    eye = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device).expand_as(system)
    inverse = torch.linalg.solve_triangular(system, eye, upper=False, unitriangular=True)
    residual = torch.baddbmm(eye - inverse, system, inverse, alpha=-1)
    return torch.baddbmm(inverse, inverse, residual).view(lower.shape)


def initial_memory(k: Tensor, v: Tensor, memory: Tensor | None, dtype: torch.dtype) -> Tensor:
    """k [B, H, K], v [B, H, V] -> the given memory in `dtype`, or zeros."""
    if memory is not None:
        return memory.to(dtype)
    return torch.zeros(*k.shape, v.shape[-1], dtype=dtype, device=k.device)


def check_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    memory: Tensor | None,
    axes: str,
    rule: str = "delta rule",
) -> None:
    """Raise ValueError unless the arguments of the rule fit, with `axes` before K and V."""
    lead = beta.shape
    fits = len(lead) == len(axes.split()) and q.shape == k.shape and q.dim() == len(lead) + 1
    fits = fits and q.shape[:-1] == lead and v.shape[:-1] == lead and 0 not in lead
    if fits and memory is not None:
        fits = memory.shape == (lead[0], lead[-1], k.shape[-1], v.shape[-1])
    if not fits:
        raise ValueError(
            f"{rule} needs q, k [{axes} K], v [{axes} V], beta [{axes}], memory [B H K V] "
            f"and T >= 1, got q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}, "
            f"beta {list(lead)}, memory {None if memory is None else list(memory.shape)}"
        )
