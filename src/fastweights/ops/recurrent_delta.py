"""The Recurrent Delta rule: the delta rule whose keys, queries, values and write strengths also see
the previous output.

Irie, Schlag, Csordas, Schmidhuber (2021), section 3.2, in the form of Irie et al. (2023): the
feedback stays within a head and is the output before the output projection, through a tanh. The
memory is stored `[key, value]` and read as `q @ S`, the transpose of the papers' `W q`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastweights.kernels.backend import Backend, resolve_backend
from fastweights.ops.mask import check_mask, where_counted
from fastweights.ops.precision import autocast_off, widest_dtype


class RecurrentDeltaState(NamedTuple):
    memory: Tensor  # [B, H, D, D]
    output: Tensor  # [B, H, D], the previous output before its tanh


def recurrent_delta_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta_logit: Tensor,
    recurrent_q: Tensor,
    recurrent_k: Tensor,
    recurrent_v: Tensor,
    recurrent_beta: Tensor,
    state: RecurrentDeltaState,
) -> tuple[Tensor, RecurrentDeltaState]:
    """One time step: the definition.

    With `s = tanh(previous output)`: `q = softmax(q + s R_q)`, `k = softmax(k + s R_k)`,
    `v = v + s R_v` (no activation), `beta = sigmoid(beta_logit + s r_beta)`, then the delta rule,
    read after the write.

    Args:
        q, k, v: raw inputs `[B, H, D]`; beta_logit: `[B, H]`.
        recurrent_q, recurrent_k, recurrent_v: `[H, D, D]`; recurrent_beta: `[H, D]`.
        state: memory and output of the step before.

    Returns:
        `y` `[B, H, D]` in the dtype of v and the next state, in float32 at least.
    """

    def feed_back(weight: Tensor) -> Tensor:
        return torch.einsum("bhi,hij->bhj", feedback, weight.to(dtype))

    recurrent = recurrent_q, recurrent_k, recurrent_v, recurrent_beta
    v_dtype, dtype = v.dtype, widest_dtype(q, k, v, beta_logit, *recurrent, *state)
    memory, output = (part.to(dtype) for part in state)
    with autocast_off(q):
        feedback = output.tanh()
        q = (q + feed_back(recurrent_q)).softmax(-1)
        k = (k + feed_back(recurrent_k)).softmax(-1)
        v = v + feed_back(recurrent_v)
        strength = torch.einsum("bhi,hi->bh", feedback, recurrent_beta.to(dtype))
        beta = (beta_logit + strength).sigmoid()
        error = v - torch.einsum("bhk,bhkv->bhv", k, memory)
        memory = memory + torch.einsum("bhk,bhv->bhkv", k, beta[..., None] * error)
        y = torch.einsum("bhk,bhkv->bhv", q, memory)
    return y.to(v_dtype), RecurrentDeltaState(memory, y)


def recurrent_delta_recurrent(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta_logit: Tensor,
    recurrent_q: Tensor,
    recurrent_k: Tensor,
    recurrent_v: Tensor,
    recurrent_beta: Tensor,
    state: RecurrentDeltaState | None = None,
    *,
    mask: Tensor | None = None,
) -> tuple[Tensor, RecurrentDeltaState]:
    """The loop over steps, with autograd: the reference. Arguments as in `recurrent_delta`.

    The batch is kept as the last axis inside: on a CPU, products over a long contiguous axis are
    much faster than many small matrix products.
    """
    tensors = q, k, v, beta_logit, recurrent_q, recurrent_k, recurrent_v, recurrent_beta
    inputs, recurrent, state = _in_one_dtype(tensors, state, mask)
    dim = q.shape[-1]
    memory = state.memory.permute(1, 2, 3, 0).contiguous()
    output = state.output.permute(1, 2, 0).contiguous()
    z = torch.cat([*inputs[:3], inputs[3].unsqueeze(-1)], -1).permute(1, 2, 3, 0).contiguous()
    recurrent = recurrent.mT  # [H, 3D + 1, D]
    ys = []
    with autocast_off(q):
        for t, z_t in enumerate(z.unbind(0)):  # [H, 3D + 1, B]
            before = memory, output
            z_t = torch.baddbmm(z_t, recurrent, output.tanh())
            q_t, k_t, v_t, beta_t = z_t.split([dim, dim, dim, 1], 1)
            q_t, k_t = q_t.softmax(1).unsqueeze(2), k_t.softmax(1).unsqueeze(2)
            update = beta_t.sigmoid() * (v_t - (k_t * memory).sum(1))
            memory = torch.addcmul(memory, k_t, update.unsqueeze(1))
            output = (q_t * memory).sum(1)
            if mask is not None:
                memory, output = (
                    torch.where(mask[:, t], x, old)
                    for x, old in zip((memory, output), before, strict=True)
                )
            ys.append(output)
    y = torch.stack(ys).permute(3, 0, 1, 2)
    final = RecurrentDeltaState(memory.permute(3, 0, 1, 2), output.permute(2, 0, 1))
    return where_counted(y, mask).to(v.dtype), final


def recurrent_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta_logit: Tensor,
    recurrent_q: Tensor,
    recurrent_k: Tensor,
    recurrent_v: Tensor,
    recurrent_beta: Tensor,
    state: RecurrentDeltaState | None = None,
    *,
    mask: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, RecurrentDeltaState]:
    """Recurrent Delta rule over a sequence; gradients reach every tensor argument and `state`.

    There is no chunk form: the output of a step enters the next one through a tanh. Backend "cpu"
    is a fused loop over steps, "torch" is `recurrent_delta_recurrent`.

    Args:
        q, k, v: `[B, T, H, D]`, raw: the rule applies the softmax to q and k itself.
        beta_logit: `[B, T, H]`, the write strength before its sigmoid.
        recurrent_q, recurrent_k, recurrent_v: `[H, D, D]`, applied as `tanh(y) @ R`.
        recurrent_beta: `[H, D]`.
        state: memory `[B, H, D, D]` and previous output `[B, H, D]`; zeros if None.
        mask: bool `[B, T]`; a step where it is False leaves the state as it was, and its y is 0.
        backend: see `fastweights.kernels.backend`.

    Returns:
        `y` `[B, T, H, D]` (without the tanh) in the dtype of v, and the state after the last step,
        in float32 at least.

    Raises:
        ValueError: if shapes do not fit, or the named backend cannot serve the tensors.
    """
    tensors = q, k, v, beta_logit, recurrent_q, recurrent_k, recurrent_v, recurrent_beta
    dtype = widest_dtype(*tensors, *(state or ()))
    if resolve_backend(backend, "recurrent_delta", q.device, dtype) == "torch":
        return recurrent_delta_recurrent(*tensors, state, mask=mask)
    from fastweights.kernels.cpu import recurrent_delta as kernel

    inputs, recurrent, state = _in_one_dtype(tensors, state, mask)
    y, memory = kernel.recurrent_delta(*inputs, recurrent, *state, mask)
    # A copy: a view would keep all of y alive with the state.
    final = RecurrentDeltaState(memory, y[:, -1].clone())
    return where_counted(y, mask).to(v.dtype), final


def _in_one_dtype(
    tensors: Sequence[Tensor], state: RecurrentDeltaState | None, mask: Tensor | None
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor, RecurrentDeltaState]:
    """The first eight arguments of `recurrent_delta`, checked -> the inputs, the recurrent weights
    `[H, D, 3 D + 1]` and the state, in one dtype."""
    _check(tensors, state, mask)
    dtype = widest_dtype(*tensors, *(state or ()))
    q, k, v, beta_logit, *products, strength = [x.to(dtype) for x in tensors]
    if state is None:
        output = torch.zeros_like(q[:, 0])
        state = RecurrentDeltaState(output.new_zeros(*output.shape, output.shape[-1]), output)
    recurrent = torch.cat([*products, strength.unsqueeze(-1)], -1)
    state = RecurrentDeltaState(*(x.to(dtype) for x in state))
    return (q, k, v, beta_logit), recurrent, state


def _check(
    tensors: Sequence[Tensor], state: RecurrentDeltaState | None, mask: Tensor | None
) -> None:
    q = tensors[0]
    if q.dim() != 4 or not q.shape[1]:
        raise ValueError(f"recurrent_delta: q must be [B, T, H, D], T >= 1, got {list(q.shape)}")
    batch, time, heads, dim = q.shape
    shapes = {
        "q": [batch, time, heads, dim],
        "k": [batch, time, heads, dim],
        "v": [batch, time, heads, dim],
        "beta_logit": [batch, time, heads],
        "recurrent_q": [heads, dim, dim],
        "recurrent_k": [heads, dim, dim],
        "recurrent_v": [heads, dim, dim],
        "recurrent_beta": [heads, dim],
    }
    if state is not None:
        shapes["state.memory"] = [batch, heads, dim, dim]
        shapes["state.output"] = [batch, heads, dim]
    for (name, shape), tensor in zip(shapes.items(), (*tensors, *(state or ())), strict=True):
        if list(tensor.shape) != shape:
            raise ValueError(
                f"recurrent_delta: {name} must be {shape} for q {list(q.shape)}, "
                f"got {list(tensor.shape)}"
            )
    if mask is not None:
        check_mask(mask, q)
