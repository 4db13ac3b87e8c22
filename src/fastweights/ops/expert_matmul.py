"""The two products of a mixture of experts, computed for the chosen experts of each token alone.

A route is a token with one of its K experts: R = N K of them. Sorted by expert, the routes of an
expert are consecutive rows, and a product with the weights `[E, F, D]` of all experts is one matrix
product an expert. Between the two products stands whatever a layer does with the hidden vectors
`[R, F]`: bias, activation, gate, dropout.

The rows `[R, D]` of either product live for the time of a call; autograd keeps x and the hidden
vectors. The weights are never indexed under autograd: the gradient of `weight[e]` would be as large
as all of `weight`, once for each expert.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastweights.ops.precision import autocast_dtype

GROUPED_DTYPES = torch.float32, torch.bfloat16, torch.float16
GROUPED_ALIGNMENT_BYTES = 16


class Routes(NamedTuple):
    """The routes of N tokens to K of E experts each, sorted by expert, then by token."""

    expert: Tensor  # [R], ascending
    order: Tensor  # [R], the place of each route in expert_index.flatten()
    position: Tensor  # [N, K], the row of each route: the inverse of order
    end: Tensor  # [E] int32, where the rows of an expert end


def sort_routes(expert_index: Tensor, num_experts: int) -> Routes:
    """`expert_index [N, K]` int64, each in 0 ... num_experts - 1 -> the routes by expert."""
    if expert_index.dim() != 2 or expert_index.dtype != torch.int64:
        raise ValueError(
            "sort_routes: expert_index must be [N, K] int64, "
            f"got {list(expert_index.shape)} {expert_index.dtype}"
        )
    expert, order = expert_index.flatten().sort(stable=True)
    rows = torch.arange(len(order), device=order.device)
    position = torch.empty_like(order).scatter(0, order, rows).view_as(expert_index)
    experts = torch.arange(num_experts, device=order.device)
    end = torch.searchsorted(expert, experts, right=True, out_int32=True)
    return Routes(expert, order, position, end)


def expert_up(x: Tensor, weight: Tensor, routes: Routes) -> Tensor:
    """Tokens to hidden vectors: `h[r] = weight[e] @ x[n]` for the expert e and token n of route r.

    Args:
        x: `[N, D]`; weight: `[E, F, D]`, of the same dtype. In an autocast region both are cast as
            for `torch.mm`.
        routes: see `sort_routes`.

    Returns:
        `h [R, F]`, in the order of the routes.
    """
    x, weight = _in_one_dtype("expert_up", x, weight, routes)
    if x.shape != (len(routes.position), weight.shape[2]):
        raise ValueError(
            f"expert_up: x must be [N, D] for {len(routes.position)} routed tokens and weight "
            f"{list(weight.shape)}, got {list(x.shape)}"
        )
    return _expert_up(x, weight, routes.order, routes.position, routes.end)


def expert_down(hidden: Tensor, weight: Tensor, routes: Routes) -> Tensor:
    """Hidden vectors to tokens: `y[n] = sum over the routes r of token n of hidden[r] @ weight[e]`.

    Args:
        hidden: `[R, F]`, in the order of the routes; weight: `[E, F, D]`, of the same dtype. In an
            autocast region both are cast as for `torch.mm`.
        routes: see `sort_routes`.

    Returns:
        `y [N, D]`.
    """
    hidden, weight = _in_one_dtype("expert_down", hidden, weight, routes)
    if hidden.shape != (len(routes.order), weight.shape[1]):
        raise ValueError(
            f"expert_down: hidden must be [R, F] for {len(routes.order)} routes and weight "
            f"{list(weight.shape)}, got {list(hidden.shape)}"
        )
    return _expert_down(hidden, weight, routes.order, routes.position, routes.end)


def _in_one_dtype(op: str, rows: Tensor, weight: Tensor, routes: Routes) -> tuple[Tensor, Tensor]:
    dtypes = [autocast_dtype(rows), autocast_dtype(weight)]
    if dtypes[0] != dtypes[1]:
        raise ValueError(f"{op}: weight must be {dtypes[0]} as the rows are, got {dtypes[1]}")
    if weight.dim() != 3 or len(weight) != len(routes.end):
        raise ValueError(
            f"{op}: weight must be [E, F, D] for {len(routes.end)} experts, "
            f"got {list(weight.shape)}"
        )
    return rows.to(dtypes[0]).contiguous(), weight.to(dtypes[0]).contiguous()


@torch.library.custom_op("fastweights::expert_up", mutates_args=())
def _expert_up(x: Tensor, weight: Tensor, order: Tensor, position: Tensor, end: Tensor) -> Tensor:
    return _grouped_mm(_of_routes(x, order, position), weight.mT, end)


@torch.library.custom_op("fastweights::expert_up_backward", mutates_args=())
def _expert_up_backward(
    grad: Tensor, x: Tensor, weight: Tensor, order: Tensor, position: Tensor, end: Tensor
) -> tuple[Tensor, Tensor]:
    grad = grad.contiguous()
    grad_x = _sum_of_routes(_grouped_mm(grad, weight, end), position)
    return grad_x, _grouped_outer(grad, _of_routes(x, order, position), end)


@torch.library.custom_op("fastweights::expert_down", mutates_args=())
def _expert_down(
    hidden: Tensor, weight: Tensor, order: Tensor, position: Tensor, end: Tensor
) -> Tensor:
    return _sum_of_routes(_grouped_mm(hidden, weight, end), position)


@torch.library.custom_op("fastweights::expert_down_backward", mutates_args=())
def _expert_down_backward(
    grad: Tensor, hidden: Tensor, weight: Tensor, order: Tensor, position: Tensor, end: Tensor
) -> tuple[Tensor, Tensor]:
    grad = _of_routes(grad.contiguous(), order, position)
    return _grouped_mm(grad, weight.mT, end), _grouped_outer(hidden, grad, end)


def _of_routes(x: Tensor, order: Tensor, position: Tensor) -> Tensor:
    """`x [N, D]` -> the token of each route, `[R, D]`.

    All at once: between two matrix products, the rows of one expert cost two to three times as much
    (caches and address translations are cold).
    """
    return x.index_select(0, order // position.shape[1])


def _sum_of_routes(rows: Tensor, position: Tensor) -> Tensor:
    """`rows [R, D]` -> their sum for each token, `[N, D]`, in the order of `position [N, K]`.

    As sums of K rows, not as scattered additions: the same numbers in every run on every device.
    """
    return F.embedding_bag(position, rows, mode="sum")


def _grouped_mm(rows: Tensor, weight: Tensor, end: Tensor) -> Tensor:
    """`rows [R, P]` times `weight [E, P, Q]` of each row's expert -> `[R, Q]`."""
    if _served_by_grouped_mm(weight.shape[1], weight.shape[2], weight.dtype):
        return F.grouped_mm(rows, weight, offs=end)
    out = rows.new_empty(len(rows), weight.shape[2])
    sizes = _sizes(end)
    for a, b, y in zip(rows.split(sizes), weight.unbind(), out.split(sizes), strict=True):
        torch.mm(a, b, out=y)
    return out


def _grouped_outer(rows: Tensor, others: Tensor, end: Tensor) -> Tensor:
    """`rows [R, P]` and `others [R, Q]` -> the sum over each expert's rows of their outer products,
    `[E, P, Q]`; exactly 0 for an expert without rows."""
    if _served_by_grouped_mm(rows.shape[1], others.shape[1], rows.dtype):
        return F.grouped_mm(rows.mT, others, offs=end)
    out = rows.new_empty(len(end), rows.shape[1], others.shape[1])
    sizes = _sizes(end)
    for a, b, y in zip(rows.split(sizes), others.split(sizes), out.unbind(), strict=True):
        torch.mm(a.mT, b, out=y)
    return out


def _served_by_grouped_mm(rows: int, columns: int, dtype: torch.dtype) -> bool:
    """`torch.nn.functional.grouped_mm` wants rows of whole 16 bytes and knows no float64."""
    aligned = all(n * dtype.itemsize % GROUPED_ALIGNMENT_BYTES == 0 for n in (rows, columns))
    return aligned and dtype in GROUPED_DTYPES


def _sizes(end: Tensor) -> list[int]:
    return end.diff(prepend=end.new_zeros(1)).tolist()


@_expert_up.register_fake
def _(x: Tensor, weight: Tensor, order: Tensor, position: Tensor, end: Tensor) -> Tensor:
    return x.new_empty(order.shape[0], weight.shape[1])


@_expert_down.register_fake
def _(hidden: Tensor, weight: Tensor, order: Tensor, position: Tensor, end: Tensor) -> Tensor:
    return hidden.new_empty(position.shape[0], weight.shape[2])


@_expert_up_backward.register_fake
@_expert_down_backward.register_fake
def _(
    grad: Tensor, rows: Tensor, weight: Tensor, order: Tensor, position: Tensor, end: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(rows), torch.empty_like(weight)


def _keep(ctx: Any, inputs: Sequence[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


_expert_up.register_autograd(
    lambda ctx, grad: (*_expert_up_backward(grad, *ctx.saved_tensors), None, None, None),
    setup_context=_keep,
)
_expert_down.register_autograd(
    lambda ctx, grad: (*_expert_down_backward(grad, *ctx.saved_tensors), None, None, None),
    setup_context=_keep,
)
