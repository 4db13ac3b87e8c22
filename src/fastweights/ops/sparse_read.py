"""A weighted sum of a few rows of a matrix: y = sum_k weight_k values[index_k]."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from torch.nn.functional import embedding_bag

DENSE_FRACTION = 1 / 8
"""Above this fraction of the rows the dense product is the faster one, forward and backward, on a
CPU core in float32; in bfloat16 it is from about 1/32."""

_may_be_dense = True  # a plain name: torch.compile reads no ContextVar


@contextmanager
def chosen_rows_alone() -> Iterator[None]:
    """Inside the `with`, `sparse_read` reads the rows that are chosen and no others, also where the
    dense product is the faster one."""
    global _may_be_dense
    before, _may_be_dense = _may_be_dense, False
    try:
        yield
    finally:
        _may_be_dense = before


def sparse_read(values: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """values `[R, D]`, index (int64) and weight `[..., K]` -> `[..., D]` in the dtype of weight.

    An index that occurs twice counts twice. The rows are summed as they are read, so nothing of
    size `[..., K, D]` is stored; where K is more than an eighth of R, the weights are scattered
    into `[..., R]` and multiplied by all of values instead (see `chosen_rows_alone`).
    """
    rows, count = len(values), index.shape[-1]
    if count > DENSE_FRACTION * rows and _may_be_dense:
        spread = weight.new_zeros(*weight.shape[:-1], rows).scatter_add(-1, index, weight)
        return spread @ values.to(weight.dtype)
    y = embedding_bag(
        index.reshape(-1, count),
        values.contiguous(),
        mode="sum",
        per_sample_weights=weight.reshape(-1, count).to(values.dtype),
    )
    return y.view(*index.shape[:-1], values.shape[1]).to(weight.dtype)
