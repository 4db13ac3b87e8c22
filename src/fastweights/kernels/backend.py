"""Which backend serves an op: the only code that looks at the machine."""

from importlib.util import find_spec
from typing import Literal, get_args

import torch

Backend = Literal["auto", "torch", "cpu", "triton"]

CPU_OPS = (
    "clamped_delta_rule",
    "delta_lstm",
    "delta_rnn",
    "delta_rule",
    "delta_rule_weights",
    "dpfp_similarity",
    "e_lstm",
    "favor_similarity",
    "linear_attention",
    "recurrent_delta",
    "self_reference",
)
CPU_DTYPES = (torch.float32, torch.float64)

NUMBA_INSTALLED = find_spec("numba") is not None
REGISTER_BLOCK_BYTES = 256 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 128
"""Width of a vector of which a CPU kernel can keep four in registers, and then some."""


def resolve_backend(
    backend: Backend, op: str, device: torch.device, dtype: torch.dtype
) -> Literal["torch", "cpu"]:
    """The backend that runs `op` on tensors of `device`, computing in `dtype`.

    "auto" takes "cpu" (kernels compiled by Numba) for CPU tensors when Numba is installed and there
    is a kernel for the op and the dtype, and "torch" (any device, any dtype) otherwise. A backend
    asked for by name runs or raises ValueError, as does an unknown name.
    """
    if backend == "torch":
        return "torch"
    if backend not in get_args(Backend):
        names = ", ".join(get_args(Backend))
        raise ValueError(f"backend={backend!r} for {op} is unknown: choose one of {names}")
    if backend == "triton":
        raise ValueError(f"backend='triton' has no kernel for {op}: choose 'auto' or 'torch'")
    reason = _why_not_cpu(op, device, dtype)
    if reason is None:
        return "cpu"
    if backend == "cpu":
        raise ValueError(f"backend='cpu' {reason}: choose 'auto' or 'torch'")
    return "torch"


def _why_not_cpu(op: str, device: torch.device, dtype: torch.dtype) -> str | None:
    if op not in CPU_OPS:
        return f"has no kernel for {op}"
    if device.type != "cpu":
        return f"needs CPU tensors for {op}, got one on {device}"
    if dtype not in CPU_DTYPES:
        return f"computes {op} in float32 or float64, not in {dtype}"
    if not NUMBA_INSTALLED:
        return f"needs Numba for {op}, which is not installed"
    return None
