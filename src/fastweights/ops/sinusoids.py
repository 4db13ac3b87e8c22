"""Positions as sines and cosines of geometrically spaced frequencies."""

import torch
from torch import Tensor

from fastweights.ops.precision import widest_dtype


def sinusoids(position: Tensor, dim: int, like: Tensor) -> Tensor:
    """position `[...]` -> `[..., dim]`, on the device of position and in the dtype of `like`.

    The sines of position / 10000^(2 i / dim), i = 0 .. dim / 2 - 1, then the cosines (Vaswani et
    al., 2017, have them by turns); computed in float32 at least.
    """
    dtype = widest_dtype(like)
    exponent = torch.arange(0, dim, 2, dtype=dtype, device=position.device) / dim
    angle = position.to(dtype)[..., None] / 10000**exponent
    return torch.cat([angle.sin(), angle.cos()], -1)[..., :dim].to(like.dtype)
