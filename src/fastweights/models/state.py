"""A model's state as what it is: tensors in nested tuples, each with one row a sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor


def map_state(change: Callable[..., Tensor], state: Any, *others: Any) -> Any:
    """The same tuples, NamedTuples or not, around `change(tensor, *tensors of the others)`."""
    if isinstance(state, Tensor):
        return change(state, *others)
    parts = (map_state(change, *pieces) for pieces in zip(state, *others, strict=True))
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


def tensors_of(state: Any) -> list[Tensor]:
    """The tensors from left to right."""
    if isinstance(state, Tensor):
        return [state]
    return [tensor for part in state for tensor in tensors_of(part)]


def with_tensors(state: Any, tensors: Iterable[Tensor]) -> Any:
    """The reverse of `tensors_of`: a state built as the given one is, around other tensors."""
    others = iter(tensors)
    return map_state(lambda _: next(others), state)


def leave_segment(state: Any, initial: Any) -> Any:
    """What a segment hands to the next one: the state without gradients.

    Of a part that starts as a parameter (`initial`, the model's own, requires grad) it is the
    change since then, as in the published code of the self-referential weight matrix: the next
    segment adds it to the parameter as that is by then, and the parameter gets gradients from every
    segment.
    """

    def leave(x: Tensor, start: Tensor) -> Tensor:
        return (x - start if start.requires_grad else x).detach()

    return map_state(leave, state, initial)


def enter_segment(carried: Any, initial: Any) -> Any:
    """The state in which a segment begins, of what `leave_segment` returned."""

    def enter(x: Tensor, start: Tensor) -> Tensor:
        return start + x if start.requires_grad else x

    return map_state(enter, carried, initial)
