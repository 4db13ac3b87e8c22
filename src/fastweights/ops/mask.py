"""Padding: a mask [B, T] is True where a step counts."""

import torch
from torch import Tensor


def check_mask(mask: Tensor, x: Tensor) -> None:
    """Raises ValueError unless mask is bool, [B, T] for x [B, T, ...]."""
    if mask.dtype != torch.bool or mask.shape != x.shape[:2]:
        raise ValueError(
            f"mask must be bool {list(x.shape[:2])}, got {mask.dtype} {list(mask.shape)}"
        )


def where_counted(y: Tensor, mask: Tensor | None) -> Tensor:
    """y [B, T, ...] with 0 at the steps that do not count."""
    return y if mask is None else y.masked_fill(~mask.reshape(*mask.shape, *[1] * (y.dim() - 2)), 0)
