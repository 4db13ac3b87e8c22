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
