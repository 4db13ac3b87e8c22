"""The Delta LSTM: an LSTM whose recurrent weights are memories of the delta rule.

    r_t = z_t + softmax(y_{t-1}) R_t                     for the gates i, u and o, each with its R
    c_t = (1 - sigmoid(i_t)) c_{t-1} + sigmoid(i_t) u_t,   y_t = sigmoid(o_t) c_t

with R_t as in `fastweights.ops.delta_rnn`. Irie, Schlag, Csordas, Schmidhuber (2021), appendix, in
the version without an activation of u and of the cell (v4 of the official code). The layer makes
the feed-forward parts z with three other memories, and applies the softmax to k.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastweights.kernels.backend import Backend, resolve_backend
from fastweights.ops.delta_rule import delta_rule_step
from fastweights.ops.mask import check_mask, where_counted
from fastweights.ops.precision import autocast_off, widest_dtype

NUM_GATES = 3
"""Axes of that size are in the order input gate, update, output gate."""


class DeltaLSTMState(NamedTuple):
    memory: Tensor  # [B, 3, H, D, D]
    output: Tensor  # [B, H, D], the previous y
    cell: Tensor  # [B, H, D]


def delta_lstm_step(
    z: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: DeltaLSTMState
) -> tuple[Tensor, DeltaLSTMState]:
    """One time step: the definition. z, k, v `[B, 3, H, D]`, beta `[B, 3, H]` -> y `[B, H, D]` in
    the dtype of z, and the next state, in float32 at least."""
    dtype = widest_dtype(z, k, v, beta, *state)
    memory, output, cell = (part.to(dtype) for part in state)
    query = output.softmax(-1).unsqueeze(1).expand_as(z)
    query, key, value, beta = (x.flatten(1, 2) for x in (query, k, v, beta))
    read, memory = delta_rule_step(query, key, value, beta, memory.flatten(1, 2))
    input_gate, update, output_gate = (z.to(dtype) + read.view_as(z)).unbind(1)
    cell = cell.lerp(update, input_gate.sigmoid())
    y = output_gate.sigmoid() * cell
    return y.to(z.dtype), DeltaLSTMState(memory.view_as(state.memory), y, cell)


def delta_lstm_recurrent(
    z: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    state: DeltaLSTMState | None = None,
    *,
    mask: Tensor | None = None,
) -> tuple[Tensor, DeltaLSTMState]:
    """The loop over steps, with autograd: the reference. Arguments as in `delta_lstm`.

    The batch is kept as the last axis inside, as in `recurrent_delta_recurrent`.
    """
    (*inputs, strength), state = _in_one_dtype((z, k, v, beta), state, mask)
    inputs = [*inputs, strength.unsqueeze(-1)]
    steps = [x.movedim(0, -1).contiguous() for x in inputs]  # [T, 3, H, D, B]
    memory, output, cell = (x.movedim(0, -1).contiguous() for x in state)
    ys = []
    with autocast_off(z):
        for t, (z_t, k_t, v_t, beta_t) in enumerate(zip(*steps, strict=True)):
            before = memory, output, cell
            k_t = k_t.unsqueeze(3)
            write = beta_t * (v_t - (k_t * memory).sum(2))
            memory = torch.addcmul(memory, k_t, write.unsqueeze(2))
            gates = z_t + (output.softmax(1).unsqueeze(2) * memory).sum(2)
            input_gate, update, output_gate = gates.unbind(0)
            cell = cell.lerp(update, input_gate.sigmoid())
            output = output_gate.sigmoid() * cell
            if mask is not None:
                memory, output, cell = (
                    torch.where(mask[:, t], x, old)
                    for x, old in zip((memory, output, cell), before, strict=True)
                )
            ys.append(output)
    y = torch.stack(ys).permute(3, 0, 1, 2)
    final = DeltaLSTMState(*(x.movedim(-1, 0) for x in (memory, output, cell)))
    return where_counted(y, mask).to(z.dtype), final


def delta_lstm(
    z: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    state: DeltaLSTMState | None = None,
    *,
    mask: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, DeltaLSTMState]:
    """Delta LSTM over a sequence; gradients reach every tensor argument and `state`.

    There is no chunk form: the output of a step is the query of the next one. Backend "cpu" is a
    fused loop over steps, "torch" is `delta_lstm_recurrent`.

    Args:
        z: `[B, T, 3, H, D]`, the feed-forward parts.
        k, v: `[B, T, 3, H, D]`; beta: `[B, T, 3, H]`, the write strengths after their sigmoid.
        state: memories `[B, 3, H, D, D]`, previous output and cell `[B, H, D]`; zeros if None.
        mask: bool `[B, T]`; a step where it is False leaves the state as it was, and its y is 0.
        backend: see `fastweights.kernels.backend`.

    Returns:
        `y` `[B, T, H, D]` in the dtype of z, and the state after the last step, in float32 at
        least.

    Raises:
        ValueError: if shapes do not fit, or the named backend cannot serve the tensors.
    """
    dtype = widest_dtype(z, k, v, beta, *(state or ()))
    if resolve_backend(backend, "delta_lstm", z.device, dtype) == "torch":
        return delta_lstm_recurrent(z, k, v, beta, state, mask=mask)
    from fastweights.kernels.cpu import delta_lstm as kernel

    inputs, state = _in_one_dtype((z, k, v, beta), state, mask)
    y, memory, cell = kernel.delta_lstm(*inputs, *state, mask)
    # A copy: a view would keep all of y alive with the state.
    final = DeltaLSTMState(memory, y[:, -1].clone(), cell)
    return where_counted(y, mask).to(z.dtype), final


def _in_one_dtype(
    inputs: Sequence[Tensor], state: DeltaLSTMState | None, mask: Tensor | None
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], DeltaLSTMState]:
    """The arguments of `delta_lstm`, checked -> z, k, v, beta and the state, in one dtype."""
    _check(inputs, state, mask)
    dtype = widest_dtype(*inputs, *(state or ()))
    z, k, v, beta = (x.to(dtype) for x in inputs)
    if state is None:
        B, _, _, H, D = z.shape
        memory = z.new_zeros(B, NUM_GATES, H, D, D)
        state = DeltaLSTMState(memory, memory.new_zeros(B, H, D), memory.new_zeros(B, H, D))
    return (z, k, v, beta), DeltaLSTMState(*(x.to(dtype) for x in state))


def _check(inputs: Sequence[Tensor], state: DeltaLSTMState | None, mask: Tensor | None) -> None:
    z = inputs[0]
    shapes = [list(x.shape) for x in (*inputs, *(state or ()))]
    fit = z.dim() == 5 and z.shape[1] > 0
    if fit:
        B, T, _, H, D = z.shape
        wanted = [[B, T, NUM_GATES, H, D]] * 3 + [[B, T, NUM_GATES, H]]
        wanted += [[B, NUM_GATES, H, D, D], [B, H, D], [B, H, D]]
        fit = shapes == wanted[: len(shapes)]
    if not fit:
        raise ValueError(
            "delta_lstm: wants z, k, v [B, T, 3, H, D], beta [B, T, 3, H], memory [B, 3, H, D, D], "
            f"output, cell [B, H, D] and T >= 1, got {', '.join(map(str, shapes))}"
        )
    if mask is not None:
        check_mask(mask, z)
