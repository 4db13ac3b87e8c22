"""Vectors of a fixed number of lanes for code that Numba compiles, of LLVM's own vector type.

LLVM keeps a vector in as many registers as it needs (64 floats are 4 of AVX-512, 8 of AVX2, 16 of
NEON), so one source serves every machine, and the source decides what stays in registers, not an
auto-vectoriser. Arithmetic is rounded as written; `muladd` is fused where the machine can; infinity
and NaN follow IEEE 754.

In compiled code: `x + y`, `x - y`, `x * y`, `x / y`, of vectors or of a vector and a scalar (which
then fills every lane), and the functions below. `lanes` has to be a constant of the compiled
function, and the last axis of an array has to have stride 1.
"""

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

Code = Callable[..., Any]
INT32 = ir.IntType(32)
CACHE_LINE_BYTES = 64
INLINED = {"error_model": "numpy", "forceinline": True}
"""Options of an `overload` that becomes a part of the loop that calls it."""


class Vector(types.Type):
    """`lanes` numbers of one floating-point type."""

    def __init__(self, scalar: types.Float, lanes: int) -> None:
        self.scalar = scalar
        self.lanes = lanes
        super().__init__(f"Vector({scalar}, {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        scalar = manager.lookup(vector.scalar).get_value_type()
        super().__init__(manager, vector, ir.VectorType(scalar, vector.lanes))


def _define_operator(function: Code, instruction: str) -> None:
    """`function` on two vectors of one type, or on a vector and a scalar."""

    @type_callable(function)
    def type_of_result(context: Any) -> Code:
        def typer(x: types.Type, y: types.Type) -> types.Type | None:
            if isinstance(x, Vector) and (x == y or isinstance(y, types.Number)):
                return x
            if isinstance(y, Vector) and isinstance(x, types.Number):
                return y
            return None

        return typer

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = _as_vectors(context, builder, signature, args)
        return getattr(builder, instruction)(*vectors)

    for pair in (Vector, Vector), (Vector, types.Number), (types.Number, Vector):
        lower_builtin(function, *pair)(lower)


_define_operator(operator.add, "fadd")
_define_operator(operator.sub, "fsub")
_define_operator(operator.mul, "fmul")
_define_operator(operator.truediv, "fdiv")


@type_callable(operator.neg)
def _type_of_negative(context: Any) -> Code:
    return lambda x: x if isinstance(x, Vector) else None


@lower_builtin(operator.neg, Vector)
def _negative(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.fneg(args[0])


@intrinsic(prefer_literal=True)
def load(typing_context: Any, array: Any, index: Any, lanes: Any) -> Any:
    """load(array, index, lanes): the `lanes` numbers of the last axis that start at `index`."""
    vector = Vector(array.dtype, lanes.literal_value)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, size = _address(context, builder, signature, args, vector)
        return builder.load(pointer, align=size)

    return vector(array, index, lanes), code


@intrinsic
def number(typing_context: Any, array: Any, index: Any) -> Any:
    """number(array, index): array[index], where the last axis has stride 1. Faster, because the
    compiled code knows the stride."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, size = _address(context, builder, signature, args, Vector(array.dtype, 1))
        scalar = context.get_value_type(array.dtype).as_pointer()
        return builder.load(builder.bitcast(pointer, scalar), align=size)

    return array.dtype(array, index), code


@intrinsic(prefer_literal=True)
def store(typing_context: Any, array: Any, index: Any, vector: Any) -> Any:
    """store(array, index, vector): the inverse of `load`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, size = _address(context, builder, signature, args, vector)
        builder.store(args[2], pointer, align=size)

    return types.void(array, index, vector), code


@intrinsic(prefer_literal=True)
def prefetch(typing_context: Any, array: Any, index: Any, count: Any) -> Any:
    """prefetch(array, index, count): asks for the `count` numbers of the last axis that start at
    `index`, to be in the first-level cache soon. An index outside the array does no harm.

    For arrays read against the order of memory, or in short rows far apart, which the machine does
    not foresee.
    """
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, INT32, INT32, INT32])
    num_bytes = count.literal_value * array.dtype.bitwidth // 8

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = Vector(array.dtype, 1)
        start = builder.bitcast(_address(context, builder, signature, args, vector)[0], byte)
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        to_read, into_first_level, data = INT32(0), INT32(3), INT32(1)
        for offset in range(0, num_bytes, CACHE_LINE_BYTES):
            pointer = builder.gep(start, [INT32(offset)])
            builder.call(function, [pointer, to_read, into_first_level, data])

    return types.void(array, index, count), code


@intrinsic(prefer_literal=True)
def zeros(typing_context: Any, array: Any, lanes: Any) -> Any:
    """zeros(array, lanes): a vector of zeros of the array's type."""
    vector = Vector(array.dtype, lanes.literal_value)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(context.get_value_type(vector), [0.0] * vector.lanes)

    return vector(array, lanes), code


@intrinsic(prefer_literal=True)
def without_padding(typing_context: Any, x: Any, count: Any) -> Any:
    """without_padding(x, count): x with minus infinity in the lanes from `count` on."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kept = [lane < count.literal_value for lane in range(x.lanes)]
        if all(kept):
            return args[0]
        mask = ir.Constant(ir.VectorType(ir.IntType(1), x.lanes), kept)
        return builder.select(mask, args[0], _constant(context, x, -math.inf))

    return x(x, count), code


@intrinsic
def muladd(typing_context: Any, x: Any, y: Any, z: Any) -> Any:
    """muladd(x, y, z): x * y + z."""
    vector = next(t for t in (x, y, z) if isinstance(t, Vector))

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors = _as_vectors(context, builder, signature, args)
        return _call(context, builder, "llvm.fmuladd", vector, *vectors)

    return vector(x, y, z), code


@intrinsic
def total(typing_context: Any, x: Any) -> Any:
    """total(x): the sum of the lanes, added in pairs."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scalar, kind = (context.get_value_type(t) for t in (x.scalar, x))
        name = f"llvm.vector.reduce.fadd.v{x.lanes}f{x.scalar.bitwidth}"
        function = ir.FunctionType(scalar, [scalar, kind])
        function = cgutils.get_or_insert_function(builder.module, function, name)
        start = ir.Constant(scalar, -0.0)
        return builder.call(function, [start, args[0]], fastmath=("reassoc",))

    return x.scalar(x), code


@intrinsic
def select(typing_context: Any, condition: Any, x: Any, y: Any) -> Any:
    """select(condition, x, y): x in the lanes where the condition is not 0, y in the others."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zeros = _constant(context, condition, 0.0)
        return builder.select(builder.fcmp_unordered("!=", args[0], zeros), args[1], args[2])

    return x(condition, x, y), code


@intrinsic
def relu(typing_context: Any, x: Any) -> Any:
    """relu(x): 0 in the lanes that are not above 0, but NaN where x is."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zeros = _constant(context, x, 0.0)
        return builder.select(builder.fcmp_unordered(">", args[0], zeros), args[0], zeros)

    return x(x), code


@intrinsic
def exp(typing_context: Any, x: Any) -> Any:
    """exp(x), within 2 units in the last place; exp(88) (float64: exp(709)) for anything larger,
    and 0 where the result would be subnormal."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scale, fraction = _exponential(context, builder, x, args[0])
        result = _call(context, builder, "llvm.fmuladd", x, scale, fraction, scale)
        smallest = _constant(context, x, _FORMATS[x.scalar].smallest)
        underflow = builder.fcmp_ordered("<", args[0], smallest)
        return builder.select(underflow, _constant(context, x, 0.0), result)

    return x(x), code


@intrinsic
def tanh(typing_context: Any, x: Any) -> Any:
    """tanh(x), within 4 units in the last place, also near 0."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # expm1(2x) / (expm1(2x) + 2); it is 1 to the last place from x = 20 on.
        limit = _constant(context, x, 20.0)
        large = builder.fcmp_ordered(">", args[0], limit)
        small = builder.select(large, limit, args[0])
        scale, fraction = _exponential(context, builder, x, builder.fadd(small, small))
        shifted = builder.fsub(scale, _constant(context, x, 1.0))
        expm1 = _call(context, builder, "llvm.fmuladd", x, scale, fraction, shifted)
        return builder.fdiv(expm1, builder.fadd(expm1, _constant(context, x, 2.0)))

    return x(x), code


class _Format(NamedTuple):
    """What the exponential needs to know of a floating-point type."""

    integer: ir.IntType
    mantissa_bits: int
    bias: int
    terms: int  # of the Taylor series, for |r| <= ln(2) / 2
    ln2_high: float  # the first bits of ln(2), so few that n times it is exact
    ln2_low: float  # the others

    @property
    def smallest(self) -> float:
        """The logarithm of the smallest normal number."""
        return (1 - self.bias) * math.log(2)

    @property
    def largest(self) -> float:
        """Below the logarithm of the largest power of two."""
        return float(math.floor(self.bias * math.log(2)))


_FORMATS = {
    types.float32: _Format(INT32, 23, 127, 8, 0.693359375, -2.12194440054690583e-4),
    types.float64: _Format(
        ir.IntType(64),
        52,
        1023,
        14,
        float.fromhex("0x1.62e42fee00000p-1"),
        float.fromhex("0x1.a39ef35793c76p-33"),
    ),
}


def _exponential(context: Any, builder: Any, vector: Vector, x: Any) -> tuple[Any, Any]:
    """2^n and expm1(r), where x = n ln(2) + r; x is first brought between the limits of 2^n."""

    def constant(value: float) -> Any:
        return _constant(context, vector, value)

    def muladd(*args: Any) -> Any:
        return _call(context, builder, "llvm.fmuladd", vector, *args)

    form = _FORMATS[vector.scalar]
    for sign, limit in (">", form.largest), ("<", form.smallest):
        beyond = builder.fcmp_ordered(sign, x, constant(limit))
        x = builder.select(beyond, constant(limit), x)
    # A sum in which one unit is the last bit of the mantissa: n is rounded into its lowest bits.
    rounder = constant(1.5 * 2.0**form.mantissa_bits)
    shifted = muladd(x, constant(1 / math.log(2)), rounder)
    n = builder.fsub(shifted, rounder)
    r = muladd(n, constant(-form.ln2_high), x)
    r = muladd(n, constant(-form.ln2_low), r)
    integers = ir.VectorType(form.integer, vector.lanes)
    exponent = builder.shl(
        builder.add(
            builder.bitcast(shifted, integers), ir.Constant(integers, [form.bias] * vector.lanes)
        ),
        ir.Constant(integers, [form.mantissa_bits] * vector.lanes),
    )
    scale = builder.bitcast(exponent, context.get_value_type(vector))
    series = constant(1 / math.factorial(form.terms))
    for term in range(form.terms - 1, 1, -1):
        series = muladd(series, r, constant(1 / math.factorial(term)))
    return scale, muladd(builder.fmul(r, r), series, r)


def _constant(context: Any, vector: Vector, value: float) -> Any:
    return ir.Constant(context.get_value_type(vector), [value] * vector.lanes)


def _as_vectors(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """The arguments as vectors of the type of the result; a scalar fills every lane."""
    vector = signature.return_type
    kind = context.get_value_type(vector)
    vectors = []
    for value, given in zip(args, signature.args, strict=True):
        if given != vector:
            scalar = context.cast(builder, value, given, vector.scalar)
            undefined = ir.Constant(kind, ir.Undefined)
            first = builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
            lanes = ir.Constant(ir.VectorType(INT32, vector.lanes), [0] * vector.lanes)
            value = builder.shuffle_vector(first, undefined, lanes)
        vectors.append(value)
    return vectors


def _address(
    context: Any, builder: Any, signature: Any, args: Any, vector: Vector
) -> tuple[Any, int]:
    """A pointer to the vector at args[1] of the array args[0], whose last axis has stride 1, and
    the bytes of one number."""
    array_type, index_type = signature.args[:2]
    array = context.make_array(array_type)(context, builder, args[0])
    index = [
        context.cast(builder, i, kind, types.intp)
        for i, kind in zip(cgutils.unpack_tuple(builder, args[1]), index_type, strict=True)
    ]
    row = [*index[:-1], ir.Constant(index[-1].type, 0)]
    start = cgutils.get_item_pointer(context, builder, array_type, array, row)
    pointer = builder.gep(start, index[-1:])
    kind = context.get_value_type(vector)
    return builder.bitcast(pointer, kind.as_pointer()), array_type.dtype.bitwidth // 8


def _call(context: Any, builder: Any, name: str, vector: Vector, *args: Any) -> Any:
    """An LLVM intrinsic from vectors to a vector."""
    kind = context.get_value_type(vector)
    name = f"{name}.v{vector.lanes}f{vector.scalar.bitwidth}"
    function = ir.FunctionType(kind, [kind] * len(args))
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), args)
