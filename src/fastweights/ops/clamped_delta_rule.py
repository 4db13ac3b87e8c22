"""The delta rule with a memory whose norm is kept at 1 or below.

    S'_t = S_{t-1} + k_t (beta_t (v_t - k_t S_{t-1}))^T
    S_t = S'_t / max(1, |S'_t|),   y_t = q_t S_t

|S| is the Frobenius norm of the memory of one head. The fast weight memory of Schlag, Munkhdalai,
Schmidhuber (2021), arXiv 2011.07831, as the baseline of Schlag, Irie, Schmidhuber (2021), whose
code maps q and k by a tanh and normalises what is read (a LayerNorm without weights); both belong
to the caller here. Read after the write; S [K, V] is the transpose of the paper's W. That code
leaves the norm of the first write as it is; here every step is the same, so that a memory of zeros
and none at all are, and pieces of a sequence are the whole.

The arithmetic and the memory are in float32 at least, autocast or not; y has the dtype of q.
"""

import torch
from torch import Tensor

from fastweights.kernels.backend import Backend, resolve_backend
from fastweights.ops.delta_rule import check_shapes, initial_memory
from fastweights.ops.mask import check_mask, where_counted
from fastweights.ops.precision import autocast_off, widest_dtype

RULE = "clamped delta rule"


def clamped_delta_rule(
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

    Returns y [B, T, H, V] and the memory after the last step. There is no chunk form: the norm is
    not linear in what was written. Backend "cpu" is a fused loop over steps, "torch" is
    `clamped_delta_rule_recurrent`. Raises ValueError for shapes that do not fit and for a missing
    backend.
    """
    check_shapes(q, k, v, beta, memory, "B T H", RULE)
    dtype = widest_dtype(q, k, v, beta, memory)
    if resolve_backend(backend, "clamped_delta_rule", q.device, dtype) == "torch":
        return clamped_delta_rule_recurrent(q, k, v, beta, memory, mask=mask)
    from fastweights.kernels.cpu import clamped_delta_rule as kernel

    if mask is not None:
        check_mask(mask, v)
    S = initial_memory(k[:, 0], v[:, 0], memory, dtype)
    query, k, v, beta = (where_counted(x, mask).to(dtype) for x in (q, k, v, beta))
    y, S = kernel.clamped_delta_rule(query, k, v, beta, S, mask)
    return y.to(q.dtype), S


def clamped_delta_rule_step(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, memory: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One step, the definition: q, k [B, H, K], v [B, H, V], beta [B, H] -> y [B, H, V], memory."""
    check_shapes(q, k, v, beta, memory, "B H", RULE)
    dtype = widest_dtype(q, k, v, beta, memory)
    S = initial_memory(k, v, memory, dtype)
    query, k, v, beta = (x.to(dtype) for x in (q, k, v, beta))
    with autocast_off(q):
        error = v - torch.einsum("bhk,bhkv->bhv", k, S)
        S = S + k[..., :, None] * (beta[..., None] * error)[..., None, :]
        S = S / torch.linalg.vector_norm(S, dim=(-2, -1), keepdim=True).clamp(min=1)
        y = torch.einsum("bhk,bhkv->bhv", query, S)
    return y.to(q.dtype), S


def clamped_delta_rule_recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    memory: Tensor | None = None,
    *,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The loop over steps, the reference. Autograd keeps the memory of every step."""
    check_shapes(q, k, v, beta, memory, "B T H", RULE)
    if mask is not None:
        check_mask(mask, v)
    dtype = widest_dtype(q, k, v, beta, memory)
    S = initial_memory(k[:, 0], v[:, 0], memory, dtype)
    q, k, v, beta = (where_counted(x, mask) for x in (q, k, v, beta))
    outputs = []
    for t in range(q.shape[1]):
        y, after = clamped_delta_rule_step(q[:, t], k[:, t], v[:, t], beta[:, t], S)
        S = after if mask is None else torch.where(mask[:, t, None, None, None], after, S)
        outputs.append(y)
    return torch.stack(outputs, 1), S
