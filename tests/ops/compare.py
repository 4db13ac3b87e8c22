"""How two forms of a rule are compared: results, gradients, and what autograd keeps."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

BOUNDS = {torch.float32: 1e-5, torch.float64: 1e-10}


def with_gradients(form: Callable[..., Any], inputs: Sequence[Tensor]) -> list[Tensor]:
    """The results of `form(*inputs)` and the gradients of a random function of them.

    `form` takes and returns tensors alone. They reach it with the strides that they have.
    """
    leaves = [x.detach().requires_grad_() for x in inputs]
    results = form(*leaves)
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        (x * torch.randn(x.shape, generator=generator, dtype=torch.float64)).sum() for x in results
    )
    return [*(x.detach() for x in results), *torch.autograd.grad(loss, leaves)]


def assert_near(got: Sequence[Tensor], want: Sequence[Tensor], bound: float | None = None) -> None:
    """Every tensor within `bound` times the largest entry of the wanted one, which may be wider.

    The bound is what the kernels promise for a dtype, unless another is given.
    """
    for x, y in zip(got, want, strict=True):
        atol = (bound or BOUNDS[x.dtype]) * y.abs().max().item()
        torch.testing.assert_close(x, y, rtol=0, atol=atol, check_dtype=False)


def numbers_kept(form: Callable[..., Any], inputs: Sequence[Tensor]) -> int:
    """Numbers that autograd keeps for the backward pass of `form(*inputs)`, beyond the inputs."""
    given = {x.untyped_storage().data_ptr() for x in inputs}
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes() // x.element_size()
        return x

    leaves = [x.detach().requires_grad_() for x in inputs]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        form(*leaves)
    return sum(kept.values())


def make_mask(B: int, T: int) -> Tensor:
    """A third of the steps do not count; nor one whole sequence, nor an end of two others."""
    mask = torch.rand(B, T, generator=torch.Generator().manual_seed(2)) > 1 / 3
    mask[0], mask[1, 0], mask[-1, -1] = False, False, False
    return mask
