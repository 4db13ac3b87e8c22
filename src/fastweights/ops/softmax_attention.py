"""Causal softmax attention (Vaswani et al., 2017) with the keys and values seen so far as state."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fastweights.kernels.backend import Backend, resolve_backend


class SoftmaxAttentionState(NamedTuple):
    """Every key and value so far: grows with the sequence, unlike the memory of the other rules."""

    key: Tensor  # [B, S, H, K]
    value: Tensor  # [B, S, H, V]


def softmax_attention_step(
    q: Tensor, k: Tensor, v: Tensor, state: SoftmaxAttentionState
) -> tuple[Tensor, SoftmaxAttentionState]:
    """One time step: the definition. q, k `[B, H, K]`, v `[B, H, V]` -> `[B, H, V]`."""
    state = SoftmaxAttentionState(
        torch.cat([state.key, k[:, None]], 1), torch.cat([state.value, v[:, None]], 1)
    )
    weight = torch.einsum("bhk,bshk->bhs", q, state.key).softmax(-1)
    return torch.einsum("bhs,bshv->bhv", weight, state.value), state


def softmax_attention_recurrent(
    q: Tensor, k: Tensor, v: Tensor, state: SoftmaxAttentionState | None = None
) -> tuple[Tensor, SoftmaxAttentionState]:
    """The loop over steps: the reference. Arguments as in `softmax_attention`."""
    state = SoftmaxAttentionState(k[:, :0], v[:, :0]) if state is None else state
    ys = []
    for q_t, k_t, v_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), strict=True):
        y, state = softmax_attention_step(q_t, k_t, v_t, state)
        ys.append(y)
    return torch.stack(ys, 1), state


def softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: SoftmaxAttentionState | None = None,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, SoftmaxAttentionState]:
    """Causal softmax attention, by PyTorch's `scaled_dot_product_attention`.

    Args:
        q, k: `[B, T, H, K]`; q comes already scaled (by 1/sqrt(K), as a rule): no hidden scale.
        v: `[B, T, H, V]`.
        state: earlier keys and values, which every query sees; none if None.
        backend: see `fastweights.kernels.backend`.

    Returns:
        `[B, T, H, V]` and the state with the new keys and values appended.

    Raises:
        ValueError: if shapes do not fit, or the named backend cannot serve the tensors.
    """
    resolve_backend(backend, "softmax_attention", q.device, q.dtype)
    if q.dim() != 4 or not q.shape[1] or k.shape != q.shape or v.shape[:3] != q.shape[:3]:
        raise ValueError(
            "softmax_attention: q and k must be [B, T, H, K], v [B, T, H, V], T >= 1, "
            f"got {list(q.shape)}, {list(k.shape)}, {list(v.shape)}"
        )
    if state is not None:
        k, v = torch.cat([state.key, k], 1), torch.cat([state.value, v], 1)
    seen, time = k.shape[1] - q.shape[1], q.shape[1]
    mask = None
    if seen:
        mask = torch.ones(time, seen + time, dtype=torch.bool, device=q.device).tril(seen)
    query, key, value = (x.transpose(1, 2) for x in (q, k, v))
    y = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=not seen, scale=1.0
    )
    return y.transpose(1, 2), SoftmaxAttentionState(k, v)
