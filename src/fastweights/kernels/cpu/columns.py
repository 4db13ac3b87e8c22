"""How a kernel cuts the columns of a memory into blocks, each one vector wide."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from fastweights.kernels.backend import REGISTER_BLOCK_BYTES

FEWEST_LANES = 4


def column_lanes(columns: int, dtype: torch.dtype) -> int:
    """Lanes of a block: the next power of two, as long as a few blocks fit in the registers."""
    lanes = FEWEST_LANES
    while lanes < columns and lanes < REGISTER_BLOCK_BYTES // dtype.itemsize:
        lanes *= 2
    return lanes


def pad_columns(x: Tensor, lanes: int) -> Tensor:
    """Zeros after the last axis up to a multiple of `lanes`; the axis gets stride 1."""
    missing = -x.shape[-1] % lanes
    return pad(x, (0, missing)) if missing else unit_stride(x)


def unit_stride(x: Tensor) -> Tensor:
    """x, or a copy if its last axis has another stride than 1."""
    return x if x.stride(-1) == 1 else x.contiguous()
