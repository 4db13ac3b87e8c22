"""Arithmetic in float32 at least, also inside an autocast region."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def widest_dtype(*tensors: Tensor | None) -> torch.dtype:
    """The common dtype of the tensors that are not None, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        if tensor is not None:
            dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def autocast_off(tensor: Tensor) -> AbstractContextManager[None]:
    """A context in which autocast does not lower the precision on the tensor's device."""
    device_type = tensor.device.type
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def autocast_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype in which `torch.mm` would take the tensor: that of an autocast region it is in
    (unless it is float64, which autocast leaves as it is), else its own."""
    device_type = tensor.device.type
    if (
        tensor.dtype != torch.float64
        and torch.amp.is_autocast_available(device_type)
        and torch.is_autocast_enabled(device_type)
    ):
        return torch.get_autocast_dtype(device_type)
    return tensor.dtype
