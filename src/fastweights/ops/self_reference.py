"""The self-referential weight matrix: a memory that makes its own keys and write strengths.

Irie, Schlag, Csordas, Schmidhuber (2022), Eqs. 5-8; the form of Irie et al. (2023), in which no
feature map is applied to the input. The weights are stored `[key, value]` and read as `x @ W`, the
transpose of the papers' `W x`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fastweights.kernels.backend import Backend, resolve_backend
from fastweights.ops.mask import check_mask, where_counted
from fastweights.ops.precision import autocast_off, widest_dtype

NUM_WRITE_STRENGTHS = 4  # one for each of the four parts below, in their order


class SelfReferenceState(NamedTuple):
    """The four parts of the current weight matrix, one copy a sequence."""

    output: Tensor  # [B, H, D, D]
    query: Tensor  # [B, H, D, D]
    key: Tensor  # [B, H, D, D]
    write_strength: Tensor  # [B, H, D, 4]


def self_reference_step(x: Tensor, state: SelfReferenceState) -> tuple[Tensor, SelfReferenceState]:
    """One time step: the definition.

    Every part W is read before the write, and every part is written from the same old state:
    `W <- W + beta_W * outer(k, (q - k) @ W)`.

    Args:
        x: `[B, H, D]`.
        state: the weights before this step.

    Returns:
        `y` `[B, H, D]` in the dtype of x and the weights after this step, in float32 at least.
    """

    def read(vector: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum("bhk,bhkv->bhv", vector, weight)

    dtype = widest_dtype(x, *state)
    x_dtype, x = x.dtype, x.to(dtype)
    state = SelfReferenceState(*(part.to(dtype) for part in state))
    with autocast_off(x):
        y = read(x, state.output)
        query = read(x, state.query).softmax(-1)
        key = read(x, state.key).softmax(-1)
        write_strength = read(x, state.write_strength).sigmoid()
        written = [
            weight + torch.einsum("bhk,bhv->bhkv", key, beta[..., None] * read(query - key, weight))
            for weight, beta in zip(state, write_strength.unbind(-1), strict=True)
        ]
    return y.to(x_dtype), SelfReferenceState(*written)


def self_reference_recurrent(
    x: Tensor, state: SelfReferenceState, *, mask: Tensor | None = None
) -> tuple[Tensor, SelfReferenceState]:
    """The loop over steps, with autograd: the reference.

    The batch is kept as the last axis inside: on a CPU, products over a long contiguous axis are
    much faster than many small matrix products.

    Args:
        x: `[B, T, H, D]`, raw: no normalisation and no feature map.
        state: the initial weights.
        mask: bool `[B, T]`; a step where it is False leaves the weights as they were, and its y
            is 0.

    Returns:
        `y` `[B, T, H, D]` in the dtype of x, and the weights after the last step, in float32 at
        least. The write of the last step is part of them.
    """
    _check(x, state, mask)
    dtype = widest_dtype(x, *state)
    sizes = [part.shape[-1] for part in state]
    weight = torch.cat([part.to(dtype) for part in state], -1).permute(1, 2, 3, 0).contiguous()
    ys = []
    for t, x_t in enumerate(x.to(dtype).permute(1, 2, 3, 0).unbind(0)):  # [H, D, B]
        z = (x_t.unsqueeze(2) * weight).sum(1)
        y, query, key, write_strength = z.split(sizes, 1)
        query, key, write_strength = query.softmax(1), key.softmax(1), write_strength.sigmoid()
        rate = torch.cat(
            [
                beta.expand(-1, size, -1)
                for beta, size in zip(write_strength.split(1, 1), sizes, strict=True)
            ],
            1,
        )
        change = rate * ((query - key).unsqueeze(2) * weight).sum(1)
        if mask is not None:
            change = change.masked_fill(~mask[:, t], 0)
        weight = torch.addcmul(weight, key.unsqueeze(2), change.unsqueeze(1))
        ys.append(y)
    final = SelfReferenceState(*weight.permute(3, 0, 1, 2).split(sizes, -1))
    return where_counted(torch.stack(ys).permute(3, 0, 1, 2), mask).to(x.dtype), final


def self_reference(
    x: Tensor,
    state: SelfReferenceState,
    *,
    mask: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, SelfReferenceState]:
    """Self-referential weight matrix over a sequence; gradients reach x and every part of `state`.

    There is no chunk form: the keys of a step depend on the weights that the step before wrote.
    Backend "cpu" is a fused loop over steps, "torch" is `self_reference_recurrent`.

    Args:
        x: `[B, T, H, D]`, raw.
        state: the initial weights, one copy a sequence.
        mask: bool `[B, T]`; a step where it is False leaves the weights as they were, and its y
            is 0.
        backend: see `fastweights.kernels.backend`.

    Returns:
        `y` `[B, T, H, D]` and the weights after the last step.

    Raises:
        ValueError: if shapes do not fit, or the named backend cannot serve the tensors.
    """
    dtype = widest_dtype(x, *state)
    if resolve_backend(backend, "self_reference", x.device, dtype) == "torch":
        return self_reference_recurrent(x, state, mask=mask)
    from fastweights.kernels.cpu import self_reference as kernel

    _check(x, state, mask)
    output, query, key, write_strength = (part.to(dtype) for part in state)
    y, *last = kernel.self_reference(x.to(dtype), output, query, key, write_strength, mask)
    return where_counted(y, mask).to(x.dtype), SelfReferenceState(*last)


def _check(x: Tensor, state: SelfReferenceState, mask: Tensor | None) -> None:
    if x.dim() != 4 or not x.shape[1]:
        raise ValueError(f"self_reference: x must be [B, T, H, D], T >= 1, got {list(x.shape)}")
    batch, _, heads, dim = x.shape
    for name, part in state._asdict().items():
        columns = NUM_WRITE_STRENGTHS if name == "write_strength" else dim
        if list(part.shape) != [batch, heads, dim, columns]:
            raise ValueError(
                f"self_reference: state.{name} must be {[batch, heads, dim, columns]} "
                f"for x {list(x.shape)}, got {list(part.shape)}"
            )
    if mask is not None:
        check_mask(mask, x)
