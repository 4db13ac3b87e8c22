"""The element-wise LSTM (e-LSTM, "Quasi-LSTM"): an LSTM without a hidden-to-hidden matrix.

Irie et al. (2023). Input and forget gate are coupled, so |cell| < 1 whenever it starts there, and
the recurrence runs through the cell itself, element by element. The output gate depends only on
the new cell and the input, so the layer computes it for all steps at once, outside this op.
"""

import math

import torch
from torch import Tensor

from fastweights.kernels.backend import Backend, resolve_backend
from fastweights.ops.mask import check_mask, where_counted
from fastweights.ops.precision import widest_dtype


def e_lstm_step(
    z: Tensor, f: Tensor, peephole_z: Tensor, peephole_f: Tensor, cell: Tensor
) -> Tensor:
    """One time step: the definition.

    `c <- sigmoid(f + w_f c) c + (1 - sigmoid(f + w_f c)) tanh(z + w_z c)`.

    Args:
        z, f: candidate and forget input of this step, biases included, `[B, D]`.
        peephole_z, peephole_f: `[D]`.
        cell: `[B, D]`.

    Returns:
        The new cell `[B, D]`.
    """
    candidate = torch.tanh(torch.addcmul(z, peephole_z, cell))
    keep = torch.sigmoid(torch.addcmul(f, peephole_f, cell))
    return torch.lerp(candidate, cell, keep)


def e_lstm_recurrent(
    z: Tensor, f: Tensor, peephole_z: Tensor, peephole_f: Tensor, cell: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The loop over steps: the reference. Arguments as in `e_lstm`."""
    dtype = widest_dtype(z, f, cell)
    peephole_z, peephole_f = peephole_z.to(dtype), peephole_f.to(dtype)
    batch, _, dim = z.shape
    cell = z.new_zeros(batch, dim, dtype=dtype) if cell is None else cell.to(dtype)
    cells = []
    for z_t, f_t in zip(z.to(dtype).unbind(1), f.to(dtype).unbind(1), strict=True):
        cell = e_lstm_step(z_t, f_t, peephole_z, peephole_f, cell)
        cells.append(cell)
    return torch.stack(cells, 1).to(z.dtype), cell


def e_lstm(
    z: Tensor,
    f: Tensor,
    peephole_z: Tensor,
    peephole_f: Tensor,
    cell: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """e-LSTM cells over a sequence; gradients reach every tensor argument.

    Args:
        z, f: candidate and forget inputs, biases included, `[B, T, D]`.
        peephole_z, peephole_f: `[D]`.
        cell: `[B, D]`; zeros if None.
        mask: `[B, T]`; a step where it is False leaves the cell as it was, and gives 0.
        backend: "cpu" is a fused loop over steps, "torch" `e_lstm_recurrent`; see
            `fastweights.kernels.backend`.

    Returns:
        The cells of every step `[B, T, D]` in the dtype of z, and the last one `[B, D]` in float32
        at least.

    Raises:
        ValueError: if shapes do not fit, or the named backend cannot serve the tensors.
    """
    _check_shapes(z, f, peephole_z, peephole_f, cell)
    if mask is not None:
        check_mask(mask, z)
        f = f.masked_fill(~mask[..., None], math.inf)  # the gate keeps all of the cell
        cells, cell = e_lstm(z, f, peephole_z, peephole_f, cell, backend=backend)
        return where_counted(cells, mask), cell
    dtype = widest_dtype(z, f, cell)
    if resolve_backend(backend, "e_lstm", z.device, dtype) == "cpu":
        from fastweights.kernels.cpu import e_lstm as kernel

        initial = z.new_zeros(z.shape[0], z.shape[-1]) if cell is None else cell
        inputs = (x.to(dtype) for x in (z, f, peephole_z, peephole_f, initial))
        cells, cell = kernel.e_lstm(*inputs)
        return cells.to(z.dtype), cell
    return e_lstm_recurrent(z, f, peephole_z, peephole_f, cell)


def _check_shapes(
    z: Tensor, f: Tensor, peephole_z: Tensor, peephole_f: Tensor, cell: Tensor | None
) -> None:
    if z.dim() != 3 or not z.shape[1] or f.shape != z.shape:
        raise ValueError(
            f"e_lstm: z and f must be [B, T, D], T >= 1, got {list(z.shape)} and {list(f.shape)}"
        )
    batch, _, dim = z.shape
    fits = peephole_z.shape == peephole_f.shape == (dim,)
    if not fits or (cell is not None and cell.shape != (batch, dim)):
        raise ValueError(
            f"e_lstm: for z {list(z.shape)} the peepholes must be [{dim}] and the cell "
            f"[{batch}, {dim}], got {list(peephole_z.shape)}, {list(peephole_f.shape)} and "
            f"{None if cell is None else list(cell.shape)}"
        )
