"""Heads too small to fill a vector, several of them in one.

The heads of a group are interleaved: number j of head p is in lane j * P + p, where P is the size
of the group. So the P numbers that the heads have in one place are neighbours, `repeat` spreads
them over a vector, and a product of P numbers with P rows is one product of vectors. What happens
in one head stays in its lanes.

A group has neighbouring heads, whose numbers are close in memory, and where the number of heads is
not a multiple of what fits, several sequences of the batch. In an array of a group the first axis
is the batch and the second the heads, and the last axis has stride 1.
"""

from typing import Any, NamedTuple

import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from torch import Tensor
from torch.nn.functional import pad

from fastweights.kernels.backend import REGISTER_BLOCK_BYTES
from fastweights.kernels.cpu.columns import FEWEST_LANES, unit_stride
from fastweights.kernels.cpu.vectors import INLINED, INT32, Code, Vector, exp, without_padding


class Group(NamedTuple):
    """`heads` heads of each of `batch` sequences, in vectors of `lanes` lanes."""

    batch: int
    heads: int
    lanes: int

    @classmethod
    def of(cls, num_heads: int, head_dim: int, dtype: torch.dtype) -> "Group":
        """As many heads as fit in a few registers; one where a head is wider than that."""
        width = max(FEWEST_LANES, 1 << (head_dim - 1).bit_length())
        size = max(1, REGISTER_BLOCK_BYTES // dtype.itemsize // width)
        heads = min(size, num_heads & -num_heads)  # a power of two that divides num_heads
        return cls(size // heads, heads, size * width)

    @property
    def size(self) -> int:
        """Heads of all its sequences together."""
        return self.batch * self.heads

    def num_groups(self, batch_size: int, num_heads: int) -> int:
        """How many groups a batch has; the last ones may reach past its end."""
        return -(-batch_size // self.batch) * (num_heads // self.heads)

    def interleave(self, x: Tensor) -> Tensor:
        """The same numbers for all sequences: [H, ..., D] -> [H / heads, ..., lanes]."""
        width = self.lanes // self.size
        rows = pad(x, (0, width - x.shape[-1])).unflatten(0, (-1, self.heads)).movedim(1, -1)
        rows = rows.unsqueeze(-2).expand(*rows.shape[:-1], self.batch, self.heads)
        return rows.flatten(-3)


def by_head(x: Tensor) -> Tensor:
    """[B, T, H, D] -> [B, H, T, D], the last axis with stride 1."""
    return unit_stride(x).transpose(1, 2)


def counted_steps(mask: Tensor | None, x: Tensor) -> Tensor:
    """mask [B, T] for x [B, T, H, D] -> [B, H, T]: 1 where a step counts, else 0."""
    B, T, H, _ = x.shape
    return (x.new_ones(B, T) if mask is None else mask.to(x.dtype))[:, None].expand(B, H, T)


@intrinsic(prefer_literal=True)
def load_group(
    typing_context: Any, array: Any, index: Any, columns: Any, batch: Any, heads: Any, lanes: Any
) -> Any:
    """load_group(array, index, columns, batch, heads, lanes): the `columns` numbers at `index` and
    at the same place of the group's other heads, interleaved; 0 in the lanes that are left.

    Past the end of the batch, its last sequence stands in.
    """
    row = Vector(array.dtype, columns.literal_value)
    vector = Vector(array.dtype, lanes.literal_value)
    group = batch.literal_value, heads.literal_value
    width = vector.lanes // (group[0] * group[1])

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zeros = ir.Constant(context.get_value_type(row), [0.0] * row.lanes)
        padded = [min(lane, row.lanes) for lane in range(width)]  # lane row.lanes is a zero
        rows = []
        for pointer in _addresses(context, builder, signature, args, group, row):
            x = builder.load(pointer, align=array.dtype.bitwidth // 8)
            rows.append(_shuffle(builder, x, zeros, padded))
        return _interleave(builder, rows)

    return vector(array, index, columns, batch, heads, lanes), code


@intrinsic(prefer_literal=True)
def store_group(
    typing_context: Any, array: Any, index: Any, columns: Any, batch: Any, heads: Any, vector: Any
) -> Any:
    """store_group(array, index, columns, batch, heads, vector): the inverse of `load_group`."""
    row = Vector(array.dtype, columns.literal_value)
    group = batch.literal_value, heads.literal_value

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointers = _addresses(context, builder, signature, args, group, row)
        rows = _separate(builder, args[-1], vector.lanes, len(pointers))
        for pointer, x in zip(pointers, rows, strict=True):
            x = _shuffle(builder, x, x, range(row.lanes))
            builder.store(x, pointer, align=array.dtype.bitwidth // 8)

    return types.void(array, index, columns, batch, heads, vector), code


@intrinsic(prefer_literal=True)
def repeat(typing_context: Any, x: Any, lanes: Any) -> Any:
    """repeat(x, lanes): x again and again, in a vector of `lanes` lanes."""
    vector = Vector(x.scalar, lanes.literal_value)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _shuffle(builder, args[0], args[0], [i % x.lanes for i in range(vector.lanes)])

    return vector(x, lanes), code


@intrinsic(prefer_literal=True)
def group_totals(typing_context: Any, x: Any, size: Any) -> Any:
    """group_totals(x, size): for a group of `size` heads, the sum of each one's lanes."""
    return _halve(x, size, lambda builder, low, high: builder.fadd(low, high))


@intrinsic(prefer_literal=True)
def group_largest(typing_context: Any, x: Any, size: Any) -> Any:
    """group_largest(x, size): for a group of `size` heads, the largest of each one's lanes."""

    def larger(builder: Any, low: Any, high: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", low, high), low, high)

    return _halve(x, size, larger)


def group_softmax(x: Any, count: Any, size: Any) -> Any:
    """group_softmax(x, count, size): for a group of `size` heads, the softmax of each one's lanes
    among the first `count`; 0 in the others."""


@overload(group_softmax, prefer_literal=True, jit_options=INLINED)
def _group_softmax(x: Any, count: Any, size: Any) -> Any:
    lanes = x.lanes

    def code(x: Any, count: Any, size: Any) -> Any:
        x = without_padding(x, count)
        x = exp(x - repeat(group_largest(x, size), lanes))
        return x * repeat(1 / group_totals(x, size), lanes)

    return code


def _halve(vector: Vector, size: Any, pair: Code) -> Any:
    """The intrinsic that joins the halves of a vector with `pair` until `size` lanes are left."""
    result = Vector(vector.scalar, size.literal_value)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, lanes = args[0], vector.lanes
        while lanes > result.lanes:
            lanes //= 2
            low, high = (_shuffle(builder, x, x, range(i, i + lanes)) for i in (0, lanes))
            x = pair(builder, low, high)
        return x

    return result(vector, size), code


def _addresses(
    context: Any, builder: Any, signature: Any, args: Any, group: tuple[int, int], row: Vector
) -> list[Any]:
    """Pointers to a row at args[1] of the array args[0] and to those of the group's others."""
    array_type, index_type = signature.args[:2]
    array = context.make_array(array_type)(context, builder, args[0])
    first, *others = [
        context.cast(builder, i, kind, types.intp)
        for i, kind in zip(cgutils.unpack_tuple(builder, args[1]), index_type, strict=True)
    ]
    last = builder.sub(builder.extract_value(array.shape, 0), ir.Constant(first.type, 1))
    to_next_head = builder.extract_value(array.strides, 1)
    kind = context.get_value_type(row).as_pointer()
    pointers = []
    for p in range(group[0]):
        b = builder.add(first, ir.Constant(first.type, p))
        b = builder.select(builder.icmp_signed("<", b, last), b, last)
        pointer = cgutils.get_item_pointer(context, builder, array_type, array, [b, *others])
        for _ in range(group[1]):
            pointers.append(builder.bitcast(pointer, kind))
            pointer = cgutils.pointer_add(builder, pointer, to_next_head)
    return pointers


def _interleave(builder: Any, rows: list[Any]) -> Any:
    """One vector of as many rows of equal length as a power of two."""
    if len(rows) == 1:
        return rows[0]
    even, odd = (_interleave(builder, rows[start::2]) for start in (0, 1))
    length = even.type.count
    return _shuffle(builder, even, odd, [i // 2 + i % 2 * length for i in range(2 * length)])


def _separate(builder: Any, x: Any, lanes: int, count: int) -> list[Any]:
    """The inverse of `_interleave`: the `count` rows of a vector of `lanes` lanes."""
    if count == 1:
        return [x]
    even, odd = (_shuffle(builder, x, x, range(start, lanes, 2)) for start in (0, 1))
    halves = (_separate(builder, half, lanes // 2, count // 2) for half in (even, odd))
    return [row for pair in zip(*halves, strict=True) for row in pair]


def _shuffle(builder: Any, x: Any, y: Any, lanes: Any) -> Any:
    """A vector of the given lanes of x and, counted on from its last one, of y."""
    mask = [ir.Constant(INT32, lane) for lane in lanes]
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(INT32, len(mask)), mask))
