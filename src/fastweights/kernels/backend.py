"""Which backend serves an op: the only code that looks at the machine."""

from typing import Literal, get_args

from torch import Tensor

Backend = Literal["auto", "torch", "cpu", "triton"]


def resolve_backend(backend: Backend, op: str, tensor: Tensor) -> Literal["torch"]:
    """The backend that runs `op` on `tensor`.

    "auto" takes the fastest backend that has the op and serves the tensor's device and dtype;
    today "torch" (any device, any dtype) is the only one. A backend asked for by name runs or
    raises ValueError, as does an unknown name.
    """
    if backend in ("auto", "torch"):
        return "torch"
    if backend not in get_args(Backend):
        names = ", ".join(get_args(Backend))
        raise ValueError(f"backend={backend!r} for {op} is unknown: choose one of {names}")
    raise ValueError(
        f"backend={backend!r} has no kernel for {op} "
        f"(tensor: {tensor.dtype} on {tensor.device}): choose 'auto' or 'torch'"
    )
