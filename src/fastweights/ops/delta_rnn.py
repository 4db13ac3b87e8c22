"""The Delta RNN: a recurrent network whose recurrent weights are a memory of the delta rule.

    R_t = R_{t-1} + k_t (beta_t (v_t - k_t R_{t-1}))^T,   y_t = z_t + softmax(y_{t-1}) R_t

Irie, Schlag, Csordas, Schmidhuber (2021), in the version without an activation of y
(v2 of the official code). The memory is stored `[key, value]`, the transpose of the paper's R. The
layer makes z, the feed-forward part, with another memory, and applies the softmax to k.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastweights.kernels.backend import Backend, resolve_backend
from fastweights.ops.delta_rule import delta_rule_step
from fastweights.ops.mask import check_mask, where_counted
from fastweights.ops.precision import autocast_off, widest_dtype


class DeltaRNNState(NamedTuple):
    memory: Tensor  # [B, H, D, D]
    output: Tensor  # [B, H, D], the previous y


def delta_rnn_step(
    z: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: DeltaRNNState
) -> tuple[Tensor, DeltaRNNState]:
    """One time step: the definition. z, k, v `[B, H, D]`, beta `[B, H]` -> y `[B, H, D]` in the
    dtype of z, and the next state, in float32 at least."""
    dtype = widest_dtype(z, k, v, beta, *state)
    memory, output = (part.to(dtype) for part in state)
    read, memory = delta_rule_step(output.softmax(-1), k, v, beta, memory)
    y = z.to(dtype) + read
    return y.to(z.dtype), DeltaRNNState(memory, y)


def delta_rnn_recurrent(
    z: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    state: DeltaRNNState | None = None,
    *,
    mask: Tensor | None = None,
) -> tuple[Tensor, DeltaRNNState]:
    """The loop over steps, with autograd: the reference. Arguments as in `delta_rnn`.

    The batch is kept as the last axis inside, as in `recurrent_delta_recurrent`.
    """
    (*inputs, strength), state = _in_one_dtype((z, k, v, beta), state, mask)
    inputs = [*inputs, strength.unsqueeze(-1)]
    steps = [x.movedim(0, -1).contiguous() for x in inputs]  # [T, H, D, B]
    memory, output = (x.movedim(0, -1).contiguous() for x in state)
    ys = []
    with autocast_off(z):
        for t, (z_t, k_t, v_t, beta_t) in enumerate(zip(*steps, strict=True)):
            before = memory, output
            k_t = k_t.unsqueeze(2)
            update = beta_t * (v_t - (k_t * memory).sum(1))
            memory = torch.addcmul(memory, k_t, update.unsqueeze(1))
            output = z_t + (output.softmax(1).unsqueeze(2) * memory).sum(1)
            if mask is not None:
                memory, output = (
                    torch.where(mask[:, t], x, old)
                    for x, old in zip((memory, output), before, strict=True)
                )
            ys.append(output)
    y = torch.stack(ys).permute(3, 0, 1, 2)
    final = DeltaRNNState(memory.permute(3, 0, 1, 2), output.permute(2, 0, 1))
    return where_counted(y, mask).to(z.dtype), final


def delta_rnn(
    z: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    state: DeltaRNNState | None = None,
    *,
    mask: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, DeltaRNNState]:
    """Delta RNN over a sequence; gradients reach every tensor argument and `state`.

    There is no chunk form: the output of a step is the query of the next one. Backend "cpu" is a
    fused loop over steps, "torch" is `delta_rnn_recurrent`.

    Args:
        z: `[B, T, H, D]`, the feed-forward part.
        k, v: `[B, T, H, D]`; beta: `[B, T, H]`, the write strength after its sigmoid.
        state: memory `[B, H, D, D]` and previous output `[B, H, D]`; zeros if None.
        mask: bool `[B, T]`; a step where it is False leaves the state as it was, and its y is 0.
        backend: see `fastweights.kernels.backend`.

    Returns:
        `y` `[B, T, H, D]` in the dtype of z, and the state after the last step, in float32 at
        least.

    Raises:
        ValueError: if shapes do not fit, or the named backend cannot serve the tensors.
    """
    dtype = widest_dtype(z, k, v, beta, *(state or ()))
    if resolve_backend(backend, "delta_rnn", z.device, dtype) == "torch":
        return delta_rnn_recurrent(z, k, v, beta, state, mask=mask)
    from fastweights.kernels.cpu import delta_rnn as kernel

    inputs, state = _in_one_dtype((z, k, v, beta), state, mask)
    y, memory = kernel.delta_rnn(*inputs, *state, mask)
    # A copy: a view would keep all of y alive with the state.
    final = DeltaRNNState(memory, y[:, -1].clone())
    return where_counted(y, mask).to(z.dtype), final


def _in_one_dtype(
    inputs: Sequence[Tensor], state: DeltaRNNState | None, mask: Tensor | None
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], DeltaRNNState]:
    """The arguments of `delta_rnn`, checked -> z, k, v, beta and the state, in one dtype."""
    _check(inputs, state, mask)
    dtype = widest_dtype(*inputs, *(state or ()))
    z, k, v, beta = (x.to(dtype) for x in inputs)
    if state is None:
        output = torch.zeros_like(z[:, 0])
        state = DeltaRNNState(output.new_zeros(*output.shape, output.shape[-1]), output)
    return (z, k, v, beta), DeltaRNNState(*(x.to(dtype) for x in state))


def _check(inputs: Sequence[Tensor], state: DeltaRNNState | None, mask: Tensor | None) -> None:
    z = inputs[0]
    shapes = [list(x.shape) for x in (*inputs, *(state or ()))]
    fit = z.dim() == 4 and z.shape[1] > 0
    if fit:
        B, T, H, D = z.shape
        wanted = [[B, T, H, D]] * 3 + [[B, T, H], [B, H, D, D], [B, H, D]]
        fit = shapes == wanted[: len(shapes)]
    if not fit:
        raise ValueError(
            "delta_rnn: wants z, k, v [B, T, H, D], beta [B, T, H], memory [B, H, D, D], output "
            f"[B, H, D] and T >= 1, got {', '.join(map(str, shapes))}"
        )
    if mask is not None:
        check_mask(mask, z)
