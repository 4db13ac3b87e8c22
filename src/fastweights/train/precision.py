"""Lightning's precisions, but for what they do to a model's state between two calls.

Lightning gives a model its inputs in the lower precision and takes its outputs in float32: a
memory that is carried on would be rounded to bfloat16, or from float64 to float32.
"""

from __future__ import annotations

from typing import Any

from lightning_fabric.plugins import DoublePrecision, MixedPrecision, Precision
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from fastweights.ops.precision import widest_dtype
from fastweights.train.config import Precision as PrecisionName


def precision_plugin(precision: PrecisionName, device_type: str) -> Precision:
    """What `Fabric` takes among its plugins."""
    match precision:
        case "64-true":
            return _Double()
        case "bf16-mixed":
            return _Mixed("bf16-mixed", device_type)
    return Precision()


class _KeepsState(Precision):
    def convert_input(self, data: Any) -> Any:
        """As they are: autocast lowers what it needs."""
        return data

    def convert_output(self, data: Any) -> Any:
        """In float32 at least."""
        return apply_to_collection(data, Tensor, _widened)


class _Double(_KeepsState, DoublePrecision):
    """float64."""


class _Mixed(_KeepsState, MixedPrecision):
    """float32 weights, bfloat16 where autocast says so."""


def _widened(x: Tensor) -> Tensor:
    return x.to(widest_dtype(x)) if x.is_floating_point() else x
